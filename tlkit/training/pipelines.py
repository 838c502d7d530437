"""The batches that a stage trains on and is validated on."""

from __future__ import annotations

import tensorflow as tf

from tlkit.data import make_pipeline
from tlkit.plans import Stage
from tlkit.preprocessing.views import plain_view
from tlkit.training.cache.features import Features
from tlkit.training.resuming.position import Position
from tlkit.training.trainable import Place, Trainable


def training_pipeline(
    run: Trainable,
    stage: Stage,
    place: Place,
    features: Features | None = None,
    position: Position | None = None,
) -> tf.data.Dataset:
    """The epochs of a stage from a position on, augmented and batched; no two of a run draw the same."""
    position = position or Position()
    examples, inputs_of = run.dataset.splits["train"], None
    if features is not None:
        assert run.views is not None
        inputs_of = features.reader(examples, run.views)
    return make_pipeline(
        examples,
        run.preprocessing,
        global_batch_size=run.update_size,
        training=True,
        seed=run.seed,
        stage=place.index,
        # Keras looks at a batch before any step, also where the last one has been.
        epochs=max(1, stage.epochs - position.epoch) + bool(position.step),
        first_epoch=place.first_epoch + position.epoch,
        first_step=position.step,
        sample_weights=run.example_weights,
        replicas=run.n_replicas,
        batch_tokens=run.update_tokens,
        inputs_of=inputs_of,
        mixing=run.mixing,
        share=run.share,
        fill_last=run.on_tpu,
    )


def validation_pipeline(run: Trainable, features: Features | None = None) -> tf.data.Dataset | None:
    """Validation once; None where nothing is held out."""
    examples = run.dataset.splits.get("validation")
    if examples is None:
        return None
    examples = examples.take(examples.by_length)
    return make_pipeline(
        examples,
        run.preprocessing,
        global_batch_size=run.global_batch_size,
        training=False,
        replicas=run.n_replicas,
        inputs_of=None if features is None else features.reader(examples, plain_view()),
        share=run.share,
        fill_last=run.on_tpu,
    )
