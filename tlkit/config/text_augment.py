"""Random changes of training texts (the first three: Wei and Zou, EDA, EMNLP 2019).

Negations are never changed, taken out or moved, texts of fewer than four words stay as they are, and no text
becomes empty. Words are what white space separates; those of scripts without spaces stay as they are.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic

from tlkit.config.augmentation import Augmentation, Modality

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]


class _TextAugmentation(Augmentation):
    modality: ClassVar[Modality] = "text"


class SynonymReplacement(_TextAugmentation):
    """WordNet's synonyms (English); the table is made once, of the words of the training texts."""

    name: ClassVar[str] = "synonym_replacement"
    share: Share = 0.1
    """Share of a text's words that are replaced, as far as it has that many with synonyms."""


class RandomDeletion(_TextAugmentation):
    name: ClassVar[str] = "random_deletion"
    share: Share = 0.1
    """Share of a text's words that are taken out."""


class RandomSwap(_TextAugmentation):
    name: ClassVar[str] = "random_swap"
    share: Share = 0.1
    """Share of a text's words that change places with a neighbour."""


class KeyboardTypos(_TextAugmentation):
    name: ClassVar[str] = "keyboard_typos"
    share: Share = 0.05
    """Share of a text's words that get a wrong letter: a neighbour on a QWERTY keyboard. Only words of Latin
    letters without accents."""


TEXT_AUGMENTATIONS: tuple[type[Augmentation], ...] = (
    SynonymReplacement,
    RandomDeletion,
    RandomSwap,
    KeyboardTypos,
)
