"""From strings to token ids, in the graph, as each pretrained family does it."""

from tlkit.preprocessing.tokenizers.making import TOKENIZERS, load_tokenizer, make_tokenizer
from tlkit.preprocessing.tokenizers.tokenizer import Tokenizer

__all__ = ["TOKENIZERS", "Tokenizer", "load_tokenizer", "make_tokenizer"]
