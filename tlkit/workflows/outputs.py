"""What a model gives for the examples of a split: computed, measured, and written down."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tlkit.config import Objective
from tlkit.data import Examples, make_pipeline
from tlkit.evaluation import compute_metrics, cosines
from tlkit.exchange import gather_bytes, place_of_worker
from tlkit.heads import to_scores
from tlkit.preprocessing.views import plain_view
from tlkit.progress import track
from tlkit.results import RunFolder, write_csv, write_npz
from tlkit.training import Features

OUTSIDE = "O"
RELEASE_EVERY = 5  # batches
COLUMNS = ["id", "split", "label", "predicted", "score"]


@dataclass(frozen=True)
class Outputs:
    """What a model gives for one split, and how good that is.

    `outputs`: float32 logits (n, classes) or values (n, targets); vectors (n, 2, d) for `embed`; for `tokens`
    an object array of logits (words, tags), one for each example.
    """

    examples: Examples
    outputs: np.ndarray
    metrics: dict[str, Any]


def model_function(model: keras.Model) -> Callable[[Any], Any]:
    """A function from model inputs to logits or values.

    Not Keras's `predict_on_batch`: a model that several replicas hold answers once for each of them.
    """
    function: Callable[[Any], Any] = tf.function(
        lambda inputs: model(inputs, training=False), reduce_retracing=True
    )
    return function


def evaluate_examples(
    answer: Callable[[Any], Any],
    preprocessing: Any,
    examples: Examples,
    objective: Objective,
    classes: tuple[str, ...] | None,
    loss: Any,
    global_batch_size: int = 32,
    features: Features | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Outputs:
    """Run a model (see `model_function`) over examples and measure it. `loss` may be None.

    With `features`, where those of all examples are, it is the model's part above the boundary. Of several
    workers of a `strategy` each takes every so many-th batch, and all of them get the whole.
    """
    order = examples.by_length
    place, n_workers = (0, 1) if strategy is None else place_of_worker(strategy)
    cuts = np.split(order, range(global_batch_size, len(order), global_batch_size))[place::n_workers]
    given, losses = [], []
    if cuts:
        ordered, inputs_of = examples.take(np.concatenate(cuts)), None
        if features is not None:
            inputs_of = features.reader(ordered, plain_view())
        pipeline = make_pipeline(
            ordered, preprocessing, global_batch_size=global_batch_size, training=False, inputs_of=inputs_of
        )
        for number, (inputs, targets, *_) in enumerate(track(pipeline, "Evaluating", len(cuts)), 1):
            outputs = answer(inputs)
            given.append(outputs.numpy())
            if number % RELEASE_EVERY == 0 or number == len(cuts):
                (examples if features is None else features.table).release()
            if loss is not None:
                losses.append((float(keras.ops.mean(loss(targets, outputs))), len(given[-1])))
    if strategy is not None and n_workers > 1:
        given, losses = _of_all_workers(strategy, given, losses)
    n_words = [np.size(examples.targets[row]) for row in order]
    rows = list(_rows(given, objective, n_words, classes))
    outputs = _stacked([rows[place] for place in np.argsort(order)])
    value = sum(value * n for value, n in losses) / sum(n for _, n in losses) if losses else None
    scores = _scores(objective, outputs)
    metrics = compute_metrics(objective, examples.targets, scores, classes, loss=value)
    return Outputs(examples, outputs, metrics)


def _of_all_workers(
    strategy: tf.distribute.Strategy, given: list[np.ndarray], losses: list[tuple[float, int]]
) -> tuple[list[np.ndarray], list[tuple[float, int]]]:
    """The batches of all workers, in the order that they have in one process."""
    held = io.BytesIO()
    np.savez(held, *given, losses=np.array(losses, np.float64).reshape(-1, 2))
    found: dict[int, tuple[np.ndarray, list[tuple[float, int]]]] = {}
    parts = gather_bytes(strategy, held.getvalue())
    for place, part in enumerate(parts):
        with np.load(io.BytesIO(part)) as arrays:
            for number in range(len(arrays.files) - 1):
                of_batch = [(float(value), int(n)) for value, n in arrays["losses"][number : number + 1]]
                found[place + number * len(parts)] = (arrays[f"arr_{number}"], of_batch)
    batches = [found[number] for number in sorted(found)]
    return [batch for batch, _ in batches], [loss for _, of_batch in batches for loss in of_batch]


def _rows(
    batches: list[np.ndarray], objective: Objective, n_words: list[int], classes: tuple[str, ...] | None
) -> Iterator[np.ndarray]:
    """The outputs of each example."""
    if objective == "embed":  # the two texts of a pair are two rows
        batches = [batch.reshape(-1, 2, batch.shape[-1]) for batch in batches]
    rows = (row for batch in batches for row in batch)
    if objective != "tokens":
        yield from rows
        return
    assert classes is not None
    for row, count in zip(rows, n_words, strict=True):
        yield complete_words(row, count, classes)


def complete_words(logits: np.ndarray, n_words: int, classes: tuple[str, ...]) -> np.ndarray:
    """Logits (n_words, tags): without padding, and `O` for words that the model did not see.

    The head gives 0 for every tag of a word that was cut off.
    """
    words = np.zeros((n_words, len(classes)), np.float32)
    words[: len(logits)] = logits[:n_words]
    unseen = (words == 0).all(axis=1)
    words[unseen, classes.index(OUTSIDE) if OUTSIDE in classes else 0] = 1.0
    return words


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    if len({row.shape for row in rows}) == 1:
        return np.stack(rows).astype(np.float32)
    ragged = np.empty(len(rows), dtype=object)
    ragged[:] = rows
    return ragged


def _scores(objective: Objective, outputs: np.ndarray) -> Any:
    if objective == "tokens":
        return [np.asarray(to_scores(objective, row)) for row in outputs]
    return np.asarray(to_scores(objective, outputs))


def save_outputs(
    splits: Mapping[str, Outputs], objective: Objective, classes: tuple[str, ...] | None, folder: RunFolder
) -> None:
    """Write `predictions.csv` for people and `outputs.npz` for programs."""
    if not splits:
        return
    tables = [
        prediction_table(output, objective, classes).assign(split=name)[COLUMNS]
        for name, output in splits.items()
    ]
    write_csv(folder.predictions, pd.concat(tables, ignore_index=True))
    ids = np.concatenate([output.examples.ids for output in splits.values()])
    rows = [row for output in splits.values() for row in output.outputs]
    arrays = {"ids": ids, "outputs": np.concatenate(rows) if objective == "tokens" else np.stack(rows)}
    if objective == "tokens":
        arrays["words"] = np.array([len(row) for row in rows])  # how many rows each id has
    write_npz(folder.outputs, arrays)


def prediction_table(output: Outputs, objective: Objective, classes: tuple[str, ...] | None) -> pd.DataFrame:
    """One row per example: `id, label, predicted, score`; the score is that of the predicted label."""
    label, predicted, score = _TABLES[objective](output, np.array(classes or (), dtype=object))
    return pd.DataFrame({"id": output.examples.ids, "label": label, "predicted": predicted, "score": score})


def _classify_table(output: Outputs, names: np.ndarray) -> tuple[Any, Any, Any]:
    scores = _scores("classify", output.outputs)
    return names[output.examples.targets], names[scores.argmax(axis=1)], scores.max(axis=1)


def _multilabel_table(output: Outputs, names: np.ndarray) -> tuple[Any, Any, Any]:
    scores = _scores("multilabel", output.outputs)
    joined = [["|".join(names[row > 0.5]) for row in rows] for rows in (output.examples.targets, scores)]
    return joined[0], joined[1], scores.max(axis=1)


def _regress_table(output: Outputs, names: np.ndarray) -> tuple[Any, Any, Any]:
    joined = [
        [";".join(f"{value:.6g}" for value in np.atleast_1d(row)) for row in rows]
        for rows in (output.examples.targets, output.outputs)
    ]
    return joined[0], joined[1], ""


def _tokens_table(output: Outputs, names: np.ndarray) -> tuple[Any, Any, Any]:
    scores = _scores("tokens", output.outputs)
    label = [" ".join(names[row]) for row in output.examples.targets]
    predicted = [" ".join(names[row.argmax(axis=1)]) for row in scores]
    return label, predicted, [float(row.max(axis=1).min()) if len(row) else "" for row in scores]


def _embed_table(output: Outputs, names: np.ndarray) -> tuple[Any, Any, Any]:
    label = ["" if np.isnan(value) else f"{value:.6g}" for value in output.examples.targets]
    return label, [f"{value:.6g}" for value in cosines(output.outputs)], ""


_TABLES: dict[Objective, Callable[[Outputs, np.ndarray], tuple[Any, Any, Any]]] = {
    "classify": _classify_table,
    "multilabel": _multilabel_table,
    "regress": _regress_table,
    "tokens": _tokens_table,
    "embed": _embed_table,
}
