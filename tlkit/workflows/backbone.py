"""The backbone of a run, from its zoo entry."""

from __future__ import annotations

from tlkit.backbones import Backbone, load
from tlkit.config import RunConfig
from tlkit.preprocessing import TextPreprocessing
from tlkit.workflows.examples import Preprocessing
from tlkit.zoo import ZooEntry


def load_backbone(
    config: RunConfig, entry: ZooEntry, preprocessing: Preprocessing, *, weights: bool
) -> Backbone:
    """The backbone of this entry in the size that the preprocessing makes; raises what `backbones.load` does.

    `weights=False` leaves it as the layers' initialisers made it, by the config's seed.
    """
    if isinstance(preprocessing, TextPreprocessing):
        return load(
            entry,
            weights=weights,
            seed=config.seed,
            architecture=config.architecture,
            vocabulary_size=preprocessing.tokenizer.vocabulary_size,
            sequence_length=preprocessing.sequence_length,
            trust=config.trust,
        )
    return load(
        entry,
        weights=weights,
        image_size=preprocessing.image_size,
        seed=config.seed,
        architecture=config.architecture,
        trust=config.trust,
    )
