"""What an exported model answers: tensors with names."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tlkit.config.head import Objective

TOP_K = 5
LABEL_THRESHOLD = 0.5
LABEL_SEPARATOR = "|"
OUTSIDE = "O"


def name_answers(scores: tf.Tensor, objective: Objective, classes: Sequence[str]) -> dict[str, tf.Tensor]:
    """The named outputs for what a model says about whole examples.

    Args:
        scores: float32 (N, classes), values (N,), (N, 1) or (N, k), or vectors (N, d).
        objective: `classify`, `multilabel`, `regress` or `embed`.
        classes: The names of the classes, in order.

    Returns:
        - classify: `scores` (N, classes), `label` (N,), `top_k_labels` and `top_k_scores`
          (N, min(5, classes));
        - multilabel: the same; `label` joins the names whose score is above 0.5 with `|`;
        - regress: `value` (N,), or (N, k) where there are several;
        - embed: `vector` (N, d).
    """
    if objective == "embed":
        return {"vector": scores}
    if objective == "regress":
        single = scores.shape.rank == 2 and scores.shape[1] == 1
        return {"value": tf.squeeze(scores, axis=1) if single else scores}
    names = tf.constant(list(classes))
    top_scores, top_indices = tf.math.top_k(scores, k=min(TOP_K, len(classes)))
    first = objective == "classify"
    return {
        "scores": scores,
        "label": tf.gather(names, tf.argmax(scores, axis=1)) if first else _join_names(scores, names),
        "top_k_labels": tf.gather(names, top_indices),
        "top_k_scores": top_scores,
    }


def name_tags(
    scores: tf.Tensor, word_starts: tf.Tensor, lengths: tf.Tensor, classes: Sequence[str]
) -> dict[str, tf.Tensor]:
    """The named outputs for what a model says about words.

    Args:
        scores: float32 (N, W, tags).
        word_starts: int32 (N, W), −1 for a word that the model did not see.
        lengths: Words of each example (N,).
        classes: The names of the tags, in order.

    Returns:
        `tags` (N, words of the longest), "" after an example's last word, and `scores`, float32, the score of
        that tag. A word that did not fit into the model's length gets the tag `O` and the score 0 (the tag ""
        where no tag is called `O`).
    """
    lengths = tf.cast(lengths, tf.int32)
    most = tf.reduce_max(tf.concat([lengths, [0]], axis=0))
    exists = tf.sequence_mask(lengths, most)
    seen = exists & (_fit(word_starts, most, -1) >= 0)
    best = tf.gather(tf.constant(list(classes)), tf.argmax(scores, axis=2))
    unseen = tf.where(exists, OUTSIDE if OUTSIDE in classes else "", "")
    return {
        "tags": tf.where(seen, _fit(best, most, ""), unseen),
        "scores": tf.where(seen, _fit(tf.reduce_max(scores, axis=2), most, 0.0), 0.0),
    }


def _fit(values: tf.Tensor, width: tf.Tensor, fill: int | float | str) -> tf.Tensor:
    """Values (N, W) as (N, width): cut off, or filled up."""
    n = tf.shape(values)[0]
    missing = tf.maximum(width - tf.shape(values)[1], 0)
    filler = tf.fill(tf.stack([n, missing]), tf.constant(fill, values.dtype))
    return tf.concat([values[:, :width], filler], axis=1)


def _join_names(scores: tf.Tensor, names: tf.Tensor) -> tf.Tensor:
    every = tf.broadcast_to(names, tf.shape(scores))
    chosen = tf.ragged.boolean_mask(every, scores > LABEL_THRESHOLD)
    return tf.strings.reduce_join(chosen, axis=1, separator=LABEL_SEPARATOR)
