"""From strings to token ids, in the graph, as each pretrained family does it."""

from tlkit.preprocessing.tokenizers.making import TOKENIZERS, load_tokenizer, make_tokenizer
from tlkit.preprocessing.tokenizers.tokenizer import Tokenizer
from tlkit.preprocessing.tokenizers.words import learn_tokenizer

__all__ = ["TOKENIZERS", "Tokenizer", "learn_tokenizer", "load_tokenizer", "make_tokenizer"]
