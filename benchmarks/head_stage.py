"""Training a head on a frozen backbone: tlkit against what people write, on the same pictures and weights.

    python benchmarks/head_stage.py --data elpv --epochs 10 --repeats 3

Each side is a process of its own, from file names to a trained head: reading and decoding, loading the
weights, tracing, training and validating are in its seconds, importing is not. All have the same splits,
batches of 32, epochs, rate and head (pooling, dropout 0.2, one dense layer), without augmentation or early
stopping. Medians of the repeats.

- `one pass`: `from_raw` and the backbone over training and validation, once. The least that can be done.
- `tlkit`: plan `head`, with an empty feature cache; `tlkit, warm` finds the features of the first.
- `by hand`: the same features as arrays, and a Keras model of the head on them.
- `Keras guide`: https://keras.io/guides/transfer_learning, frozen backbone called with `training=False`, the
  decoded pictures in `Dataset.cache()`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Answer = dict[str, float | None]
BATCH_SIZE = 32
RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="elpv")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="+", default=list(SIDES))
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        answer = SIDES[arguments.side](arguments)
        Path(arguments.out).write_text(json.dumps(answer), encoding="utf-8")
        return
    found: dict[str, list[Answer]] = {side: [] for side in arguments.sides}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(arguments.repeats):
            for side in arguments.sides:
                found[side].append(run_side(side, Path(scratch), repeat))
                print(f"{side}: {found[side][-1]}", file=sys.stderr, flush=True)
    report(found, arguments)


def run_side(side: str, scratch: Path, repeat: int) -> Answer:
    """One measurement, in a process of its own and, for tlkit, with a feature cache of each repeat's own."""
    out = scratch / "answer.json"
    environment = os.environ | {"HEAD_STAGE_FEATURES": str(scratch / f"features-{repeat}")}
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--out", str(out)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    answer: Answer = json.loads(out.read_text(encoding="utf-8"))
    return answer


def report(found: dict[str, list[Answer]], arguments: argparse.Namespace) -> None:
    medians = {
        side: statistics.median(a["seconds"] or 0.0 for a in answers) for side, answers in found.items()
    }
    table = Table("side", "seconds (median)", "all", "against tlkit", "validation accuracy")
    for side, answers in found.items():
        each = " ".join(f"{answer['seconds']:.1f}" for answer in answers)
        ratio = f"{medians[side] / medians['tlkit']:.2f}×" if "tlkit" in medians else "–"
        accuracy = answers[-1]["accuracy"]
        shown = "–" if accuracy is None else f"{accuracy:.4f}"
        table.add_row(side, f"{medians[side]:.1f}", each, ratio, shown)
    Console(stderr=True).print(table)
    print(
        json.dumps({"data": arguments.data, "epochs": arguments.epochs, "medians": medians, "sides": found})
    )


def make_config(arguments: argparse.Namespace, **changes: Any) -> Any:
    from tlkit.config import load_config

    tree = {
        "data": {"source": arguments.data},
        "backbone": arguments.backbone,
        "plan": [{"name": "head", "train": "head", "epochs": arguments.epochs, "learning_rate": RATE}],
        "preprocessing": {"augment": "none"},
        "training": {"global_batch_size": BATCH_SIZE, "schedule": "constant", "warmup": 0.0},
        "cache": {"views": 1},
        **changes,
    }
    return load_config(tree).config


def run_tlkit(arguments: argparse.Namespace) -> Answer:
    from tlkit.training import feature_choice, train_stages
    from tlkit.workflows.prepare import prepare

    features = Path(os.environ["HEAD_STAGE_FEATURES"])
    feature_choice.features_folder = lambda: features
    started = time.perf_counter()
    prepared = prepare(make_config(arguments))
    with tempfile.TemporaryDirectory() as folder:
        trained = train_stages(prepared.trainable, prepared.stages, Path(folder))
    seconds = time.perf_counter() - started
    (record,) = trained.records
    return {
        "seconds": seconds,
        "stage_seconds": record.seconds,
        "accuracy": float(trained.history["val_accuracy"].iloc[-1]),
    }


def run_one_pass(arguments: argparse.Namespace) -> Answer:
    read = _read(arguments)
    started = time.perf_counter()
    _load(read)
    for name in ("train", "validation"):
        _features(read, name)
    return {"seconds": time.perf_counter() - started, "accuracy": None}


def run_by_hand(arguments: argparse.Namespace) -> Answer:
    import keras

    read = _read(arguments)
    started = time.perf_counter()
    _load(read)
    arrays = {name: _features(read, name) for name in ("train", "validation")}
    inputs = keras.Input(arrays["train"][0].shape[1:])
    model = keras.Model(inputs, _head(inputs, len(read["classes"])))
    accuracy = _fit(model, arrays["train"], arrays["validation"], arguments.epochs, BATCH_SIZE)
    return {"seconds": time.perf_counter() - started, "accuracy": accuracy}


def run_keras_guide(arguments: argparse.Namespace) -> Answer:
    import keras
    import tensorflow as tf

    read = _read(arguments)
    started = time.perf_counter()
    _load(read)
    backbone = read["backbone"]
    backbone.trainable = False
    inputs = keras.Input(backbone.input_shape[1:])
    x = keras.layers.GlobalAveragePooling2D()(backbone(inputs, training=False))
    model = keras.Model(inputs, _head(x, len(read["classes"])))

    def dataset(name: str, shuffle: bool) -> tf.data.Dataset:
        examples = read["splits"][name]
        files = tf.data.Dataset.from_tensor_slices((examples.paths, examples.targets))
        decoded = files.map(
            lambda path, label: (_decode(read, path), label), num_parallel_calls=tf.data.AUTOTUNE
        )
        decoded = decoded.cache()
        if shuffle:
            decoded = decoded.shuffle(len(examples.ids))
        scaled = decoded.batch(BATCH_SIZE).map(
            lambda pictures, labels: (read["preprocessing"].encode(pictures), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return scaled.prefetch(tf.data.AUTOTUNE)

    accuracy = _fit(model, (dataset("train", True),), (dataset("validation", False),), arguments.epochs, None)
    return {"seconds": time.perf_counter() - started, "accuracy": accuracy}


def _read(arguments: argparse.Namespace) -> dict[str, Any]:
    """Which files are in which split, and the preprocessing. Not timed: tlkit's own reading is."""
    import keras

    from tlkit.workflows.examples import load_examples
    from tlkit.workflows.objects import PythonObjects
    from tlkit.workflows.prepare import find_entry

    config = make_config(arguments)
    keras.utils.set_random_seed(config.seed)
    entry = find_entry(config)
    dataset, preprocessing = load_examples(config, entry, PythonObjects())
    return {
        "splits": dataset.splits,
        "classes": dataset.manifest.classes,
        "preprocessing": preprocessing,
        "entry": entry,
    }


def _load(read: dict[str, Any]) -> None:
    from tlkit.backbones import load

    read["backbone"] = load(read["entry"], image_size=read["preprocessing"].image_size).model


def _decode(read: dict[str, Any], path: Any) -> Any:
    import tensorflow as tf

    size = read["preprocessing"].image_size
    return tf.ensure_shape(read["preprocessing"].decode(tf.io.read_file(path)), (size, size, 3))


def _features(read: dict[str, Any], name: str) -> tuple[Any, Any]:
    """Pooled features of a split, float32 (n, C), and its labels: decode, encode, backbone, mean."""
    import keras
    import numpy as np
    import tensorflow as tf

    examples, backbone = read["splits"][name], read["backbone"]
    files = tf.data.Dataset.from_tensor_slices(examples.paths)
    pictures = files.map(lambda path: _decode(read, path), num_parallel_calls=tf.data.AUTOTUNE)
    batches = pictures.batch(BATCH_SIZE).map(read["preprocessing"].encode).prefetch(tf.data.AUTOTUNE)
    pooled = keras.layers.GlobalAveragePooling2D()
    compute = tf.function(lambda inputs: pooled(backbone(inputs, training=False)), reduce_retracing=True)
    return np.concatenate([compute(batch).numpy() for batch in batches]), examples.targets


def _head(x: Any, n_classes: int) -> Any:
    import keras

    return keras.layers.Dense(n_classes)(keras.layers.Dropout(0.2)(x))


def _fit(model: Any, train: Any, validation: Any, epochs: int, batch_size: int | None) -> float:
    import keras

    model.compile(
        keras.optimizers.AdamW(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    held_out = validation if len(validation) > 1 else validation[0]
    history = model.fit(*train, validation_data=held_out, epochs=epochs, batch_size=batch_size, verbose=0)
    return float(history.history["val_accuracy"][-1])


SIDES: dict[str, Callable[[argparse.Namespace], Answer]] = {
    "one pass": run_one_pass,
    "tlkit": run_tlkit,
    "tlkit, warm": run_tlkit,
    "by hand": run_by_hand,
    "Keras guide": run_keras_guide,
}


if __name__ == "__main__":
    main()
