"""Synonyms of the words of a data set, from WordNet."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any

from tlkit.preprocessing.negations import is_negation
from tlkit.preprocessing.nltk_data import require_nltk_data

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
# Words that hold a sentence together. WordNet knows them as something else: `will` as volition.
_FUNCTION_WORDS = frozenset(
    """
    a about above across after again against all almost along already also although always am among
    an and another any are around as at away be because been before being below between both but by
    can could did do does doing done down during each either else enough even ever every few for
    from further get got had has have having he her here him his how however i if in into is it its
    itself just last least less let like many may me might more most much must my near need next now
    of off often on once one only or other our out over own per quite rather said same say see seem
    she should since so some still such than that the their them then there these they this those
    through till time to too toward under until up upon us very was way we well were what when where
    whether which while who whole whose why will with within would yet you your
    """.split()  # noqa: SIM905
)


def find_synonyms(texts: Iterable[str]) -> dict[str, list[str]]:
    """For each lower-case English word of the texts that has any: its synonyms, single words, sorted.

    Only those of the sense that the word has most often, and only those that are used in that sense, both by
    WordNet's own counts: rare senses make nonsense. Inflected forms are left alone (`movies` has no synonyms
    that end in s), and so are negations and function words. It takes a few seconds.

    Raises ConfigError where NLTK's data `wordnet` is missing.
    """
    require_nltk_data("wordnet", "corpora/wordnet")
    from nltk.corpus import wordnet

    words = {word for text in texts for word in _WORD.findall(text) if _is_usable(word)}
    counts = _sense_counts(wordnet)
    found = {}
    for word, senses in _senses_of(words, counts).items():
        names = {lemma.name() for lemma in _lemmas(wordnet, senses) if counts.get(lemma.key(), 0) > 0}
        if usable := sorted(name for name in names - {word} if _WORD.fullmatch(name) and _is_usable(name)):
            found[word] = usable
    return found


def _is_usable(word: str) -> bool:
    return len(word) > 2 and word not in _FUNCTION_WORDS and not is_negation(word)


def _sense_counts(wordnet: Any) -> dict[str, int]:
    """How often each sense occurs in the texts that WordNet's makers tagged, by sense key."""
    with wordnet.open("cntlist.rev") as file:
        rows = [line.split() for line in file]
    return {key: int(count) for key, _, count in rows}


def _senses_of(words: set[str], counts: dict[str, int]) -> dict[str, list[str]]:
    """The sense keys of each word, the commonest first."""
    senses: dict[str, list[str]] = {}
    for key in sorted(counts, key=lambda key: (-counts[key], key)):
        word = key.partition("%")[0]
        if word in words and counts[key] > 0:
            senses.setdefault(word, []).append(key)
    return dict(sorted(senses.items()))


def _lemmas(wordnet: Any, senses: list[str]) -> list[Any]:
    """The lemmas of the first sense that WordNet holds: its counts name some that later editions renamed."""
    from nltk.corpus.reader.wordnet import WordNetError

    for key in senses:
        with contextlib.suppress(WordNetError):
            return list(wordnet.lemma_from_key(key).synset().lemmas())
    return []
