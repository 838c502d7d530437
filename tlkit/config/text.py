"""How texts are normalised in the graph, and which NLTK steps run before it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from tlkit.config.base import Options
from tlkit.errors import suggest

LongTexts = Literal["head", "tail", "head_tail", "windows"]


class Normalization(Options):
    """What happens to a string inside the graph, in this order, in training and in serving alike."""

    strip_html: bool = False
    """Take out HTML tags and turn the common entities into their characters."""
    mask_urls: bool = False
    """Replace URLs by the word `url`."""
    mask_users: bool = False
    """Replace user names (`@name`) by the word `user`."""
    mask_numbers: bool = False
    """Replace numbers by the word `number`."""
    unicode: Literal["nfc", "nfkc", "none"] = "nfc"
    """Unicode normal form."""
    lowercase: bool = False
    """Lower-case everything. Uncased backbones do it anyway."""
    whitespace: bool = True
    """Turn every run of white space into one space, and take it off both ends."""


class WordTokenize(Options):
    """Words and punctuation marks, separated by spaces."""

    name: Literal["word_tokenize"] = "word_tokenize"
    language: str = "english"


class SentenceTokenize(Options):
    """The first sentences of a text; the others are dropped."""

    name: Literal["sentence_tokenize"] = "sentence_tokenize"
    language: str = "english"
    most: Annotated[int, pydantic.Field(ge=1)] = 3
    """How many sentences are kept."""


class StopWords(Options):
    """Take out the stop words of a language."""

    name: Literal["stop_words"] = "stop_words"
    language: str = "english"
    keep_negations: bool = True
    """Leave negations in, such as `not`, `isn't`, `nicht` or `pas`: they decide the meaning."""
    keep: tuple[str, ...] = ()
    """Further stop words that stay."""


class PorterStem(Options):
    """Porter's stemmer (English)."""

    name: Literal["porter"] = "porter"


class SnowballStem(Options):
    """The Snowball stemmer of a language."""

    name: Literal["snowball"] = "snowball"
    language: str = "english"


class WordNetLemmatize(Options):
    """WordNet's lemmas (English)."""

    name: Literal["lemmatize"] = "lemmatize"
    part_of_speech: Literal["noun", "verb", "adjective", "adverb"] = "noun"


NLTK_STEPS: dict[str, type[Options]] = {
    "word_tokenize": WordTokenize,
    "sentence_tokenize": SentenceTokenize,
    "stop_words": StopWords,
    "porter": PorterStem,
    "snowball": SnowballStem,
    "lemmatize": WordNetLemmatize,
}

NltkStep = Annotated[
    WordTokenize | SentenceTokenize | StopWords | PorterStem | SnowballStem | WordNetLemmatize,
    pydantic.Field(discriminator="name"),
]


def parse_nltk(value: Any) -> Any:
    """Step names and options as a tuple of mappings. Raises ValueError for an unknown name."""
    if value is None or value == "none":
        return ()
    items = [value] if isinstance(value, str | dict | Options) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list of steps, received {value!r}")
    parsed = [{"name": item} if isinstance(item, str) else item for item in items]
    for item in parsed:
        name = item.get("name") if isinstance(item, dict) else getattr(item, "name", None)
        if name not in NLTK_STEPS:
            raise ValueError(f"unknown step {name!r}.{suggest(str(name), NLTK_STEPS)}")
    return tuple(parsed)
