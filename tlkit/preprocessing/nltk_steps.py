"""NLTK's classic steps. They run in Python before the graph, so who calls an exported model runs them, too.

Where a step looks at words, they are what the pattern WORD matches; everything between them stays.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlkit.config.base import Options
from tlkit.config.text import (
    NltkStep,
    PorterStem,
    SentenceTokenize,
    SnowballStem,
    StopWords,
    WordNetLemmatize,
    WordTokenize,
)
from tlkit.errors import ConfigError, suggest
from tlkit.preprocessing.negations import is_negation
from tlkit.preprocessing.nltk_data import require_nltk_data

WORD = r"\w+(?:['’]\w+)*"
TextStep = Callable[[str], str]


@dataclass(frozen=True)
class Cleaner:
    """NLTK steps, in their order. Called with texts, it gives as many back; some may have become empty."""

    functions: tuple[TextStep, ...]
    descriptions: tuple[str, ...]

    def __call__(self, texts: Sequence[str]) -> list[str]:
        return [functools.reduce(lambda text, step: step(text), self.functions, text) for text in texts]

    def describe(self) -> list[str]:
        """What a client must do, one sentence a step, in the order of the steps."""
        return list(self.descriptions)


def make_cleaner(steps: Sequence[NltkStep]) -> Cleaner:
    """The steps as one function over texts.

    Raises ConfigError for a language that NLTK does not have, with those that it has, and where NLTK's data
    is missing, with both ways to get it. Nothing is downloaded.

    >>> make_cleaner([StopWords(), PorterStem()])(["The movies were not boring"])
    ['movi not bore']
    """
    made = [_MAKERS[type(step)](step) for step in steps]
    return Cleaner(tuple(function for function, _ in made), tuple(description for _, description in made))


def _word_tokenize(step: WordTokenize) -> tuple[TextStep, str]:
    import nltk

    _require_punkt(step.name, step.language)
    description = f"' '.join(nltk.word_tokenize(text, language={step.language!r}))"
    return lambda text: " ".join(nltk.word_tokenize(text, language=step.language)), description


def _sentence_tokenize(step: SentenceTokenize) -> tuple[TextStep, str]:
    import nltk

    _require_punkt(step.name, step.language)
    description = f"' '.join(nltk.sent_tokenize(text, language={step.language!r})[:{step.most}])"
    return lambda text: " ".join(nltk.sent_tokenize(text, language=step.language)[: step.most]), description


def _stop_words(step: StopWords) -> tuple[TextStep, str]:
    from nltk.corpus import stopwords

    require_nltk_data("stopwords", "corpora/stopwords")
    _check_language(step.name, step.language, stopwords.fileids())
    listed = frozenset(stopwords.words(step.language))
    spared = {word for word in listed if step.keep_negations and is_negation(word)}
    spared |= listed & {word.lower() for word in step.keep}
    dropped = listed - spared

    def take_out(text: str) -> str:
        kept = re.sub(WORD, lambda found: "" if _plain(found[0]) in dropped else found[0], text)
        return " ".join(kept.split())

    description = (
        f"Take out every match of {WORD!r} whose lower-case form is in "
        f"nltk.corpus.stopwords.words({step.language!r}){_except(spared)}; then single spaces."
    )
    return take_out, description


def _porter(step: PorterStem) -> tuple[TextStep, str]:
    del step
    from nltk.stem import PorterStemmer

    return _per_word(PorterStemmer().stem, "nltk.stem.PorterStemmer().stem(word)")


def _snowball(step: SnowballStem) -> tuple[TextStep, str]:
    from nltk.stem import SnowballStemmer

    languages = [name for name in SnowballStemmer.languages if name != "porter"]
    _check_language(step.name, step.language, languages)
    return _per_word(
        SnowballStemmer(step.language).stem, f"nltk.stem.SnowballStemmer({step.language!r}).stem(word)"
    )


def _lemmatize(step: WordNetLemmatize) -> tuple[TextStep, str]:
    from nltk.stem import WordNetLemmatizer

    require_nltk_data("wordnet", "corpora/wordnet")
    lemmatizer, part = WordNetLemmatizer(), _PARTS_OF_SPEECH[step.part_of_speech]
    return _per_word(
        lambda word: str(lemmatizer.lemmatize(word.lower(), part)),
        f"nltk.stem.WordNetLemmatizer().lemmatize(word.lower(), {part!r})",
    )


def _per_word(change: Callable[[str], str], description: str) -> tuple[TextStep, str]:
    cached = functools.lru_cache(maxsize=500_000)(change)  # few words make up most of a text
    pattern = re.compile(WORD)
    return (
        lambda text: pattern.sub(lambda found: cached(_straight(found[0])), text),
        f"Replace every match `word` of {WORD!r} (with ' for ’) by {description}.",
    )


def _plain(word: str) -> str:
    return _straight(word).lower()


def _straight(word: str) -> str:
    return word.replace("’", "'")


def _except(words: set[str]) -> str:
    return f" except {', '.join(sorted(words))}" if words else ""


def _require_punkt(step: str, language: str) -> None:
    _check_language(step, language, PUNKT_LANGUAGES)
    require_nltk_data("punkt_tab", f"tokenizers/punkt_tab/{language}")


def _check_language(step: str, language: str, allowed: Sequence[str]) -> None:
    if language not in allowed:
        hint = suggest(language, allowed)
        hint = hint if "Allowed" in hint else f"{hint} Allowed: {', '.join(sorted(allowed))}."
        raise ConfigError(f"preprocessing.nltk: {step} has no language {language!r}.{hint}")


# The folders of NLTK's `punkt_tab`: a person may have got only some of them.
PUNKT_LANGUAGES = (
    "czech", "danish", "dutch", "english", "estonian", "finnish", "french", "german", "greek", "italian",
    "malayalam", "norwegian", "polish", "portuguese", "russian", "slovene", "spanish", "swedish", "turkish",
)  # fmt: skip
_PARTS_OF_SPEECH = {"noun": "n", "verb": "v", "adjective": "a", "adverb": "r"}
_MAKERS: dict[type[Options], Callable[..., tuple[TextStep, str]]] = {
    WordTokenize: _word_tokenize,
    SentenceTokenize: _sentence_tokenize,
    StopWords: _stop_words,
    PorterStem: _porter,
    SnowballStem: _snowball,
    WordNetLemmatize: _lemmatize,
}
