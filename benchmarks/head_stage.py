"""Training a head on a frozen backbone: tlkit against what people write, on the same pictures and weights.

    python benchmarks/head_stage.py --data elpv --epochs 10 --repeats 3
    python benchmarks/head_stage.py --data elpv --epochs 10 --repeats 3 --views 4

Each side is a process of its own, from file names to a trained head: reading and decoding, loading the
weights, tracing, training and validating are in its seconds, importing is not. All have the same splits,
batches of 32, epochs, rate and head (pooling, dropout 0.2, one dense layer), without early stopping, and
without augmentation unless there are several views: then pictures are flipped at random. Medians of the
repeats; on two cores and ELPV a repeat takes about ten minutes, most of it for the last side.

- `one pass`: `from_raw` and the backbone over training (once for each view) and validation. The least that
  can be done.
- `tlkit`: plan `head`, with an empty feature cache.
- `tlkit, warm`: the same afterwards, with the features of the first, and another rate and dropout.
- `by hand`: the same features as arrays, and a Keras model of the head on them.
- `Keras guide`: https://keras.io/guides/transfer_learning, frozen backbone called with `training=False`, the
  decoded pictures in `Dataset.cache()`.

No side reads the pictures of the test split, but `tlkit, warm`: its `to test` are the seconds from the start
of training to the metrics of the test split.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.table import Table
from sides import (
    Answer,
    Found,
    Side,
    make_parser,
    median,
    own_features,
    ratio,
    run_side,
    run_sides,
    slice_pictures,
)

BATCH_SIZE = 32
ALL, SEEN = "pictures.csv", "seen.csv"
RATE = 1e-3
DROPOUT = 0.2


def main() -> None:
    parser = make_parser(__doc__, SIDES, data="elpv")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--views", type=int, default=1, help="augmented versions of each training picture")
    run_sides(parser, SIDES, report, prepare)


def report(found: Found, arguments: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    table = Table("side", "seconds (median)", "all", "against tlkit", "to test", "validation accuracy")
    for side, answers in found.items():
        each = " ".join(f"{answer['seconds']:.1f}" for answer in answers)
        accuracy = answers[-1]["accuracy"]
        table.add_row(
            side,
            f"{median(answers):.1f}",
            each,
            ratio(found, side),
            f"{median(answers, 'to_test'):.1f}" if "to_test" in answers[0] else "–",
            "–" if accuracy is None else f"{accuracy:.4f}",
        )
    return table, {"medians": {side: median(answers) for side, answers in found.items()}}


def prepare(arguments: argparse.Namespace) -> Answer:
    """Write down which pictures are in which split: in one table all, in one those that every side reads."""
    import pandas as pd

    source = arguments.data
    if arguments.limit:
        source = slice_pictures(source, arguments.limit, arguments.scratch / "slice.csv")
    read = _read(arguments, source)
    rows = [
        {"path": path, "label": read["classes"][target], "split": name}
        for name, examples in read["splits"].items()
        for path, target in zip(examples.paths, examples.targets, strict=True)
    ]
    table = pd.DataFrame(rows)
    table.to_csv(arguments.scratch / ALL, index=False)
    table[table["split"] != "test"].to_csv(arguments.scratch / SEEN, index=False)
    return {}


def make_config(
    arguments: argparse.Namespace, source: str, rate: float = RATE, dropout: float = DROPOUT
) -> Any:
    from tlkit.config import load_config

    tree = {
        "data": {"source": source},
        "backbone": arguments.backbone,
        "plan": [{"name": "head", "train": "head", "epochs": arguments.epochs, "learning_rate": rate}],
        "head": {"dropout": dropout},
        "preprocessing": {"augment": "none" if arguments.views == 1 else "default"},
        "training": {"global_batch_size": BATCH_SIZE, "schedule": "constant", "warmup": 0.0},
        "cache": {"views": arguments.views},
    }
    return load_config(tree).config


def run_tlkit(arguments: argparse.Namespace) -> Answer:
    own_features(arguments)
    answer = _run_tlkit(make_config(arguments, str(arguments.scratch / SEEN)))
    # Not timed: a run of one's own measures on the test split, too, and leaves its features.
    whole = _run_tlkit(make_config(arguments, str(arguments.scratch / ALL)))
    return {**answer, "test_accuracy": whole["test_accuracy"]}


def run_warm(arguments: argparse.Namespace) -> Answer:
    if not own_features(arguments).exists():
        run_side("tlkit", arguments.repeat, arguments.scratch)
    source = str(arguments.scratch / ALL)
    return _run_tlkit(make_config(arguments, source, rate=2 * RATE, dropout=2 * DROPOUT))


def _run_tlkit(config: Any) -> Answer:
    from tlkit.training import features_of_split, train_stages
    from tlkit.workflows.outputs import evaluate_examples, model_function
    from tlkit.workflows.prepare import prepare

    started = time.perf_counter()
    prepared = prepare(config)
    run = prepared.trainable
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trained = train_stages(run, prepared.stages, Path(folder))
        answer = {
            "seconds": time.perf_counter() - started,
            "accuracy": float(trained.history["val_accuracy"].iloc[-1]),
        }
        if "test" not in prepared.dataset.splits:
            return answer
        features = features_of_split(run, trained.features, "test")
        outputs = evaluate_examples(
            model_function(run.model if features is None else features.parts.upper),
            prepared.preprocessing,
            prepared.dataset.splits["test"],
            "classify",
            prepared.dataset.manifest.classes,
            run.head.loss,
            run.global_batch_size,
            features,
        )
    return {
        **answer,
        "to_test": time.perf_counter() - began,
        "test_accuracy": outputs.metrics["accuracy"],
    }


def run_one_pass(arguments: argparse.Namespace) -> Answer:
    read = _read(arguments)
    started = time.perf_counter()
    _load(read)
    _all_features(read, arguments)
    return {"seconds": time.perf_counter() - started, "accuracy": None}


def run_by_hand(arguments: argparse.Namespace) -> Answer:
    import keras
    import numpy as np

    read = _read(arguments)
    started = time.perf_counter()
    _load(read)
    (views, labels), validation = _all_features(read, arguments)
    inputs = keras.Input(views.shape[2:])
    model = _compiled(inputs, inputs, len(read["classes"]))
    rng = np.random.default_rng(0)
    for _ in range(arguments.epochs):
        drawn = views[rng.integers(len(views), size=len(labels)), np.arange(len(labels))]
        history = model.fit(drawn, labels, validation_data=validation, batch_size=BATCH_SIZE, verbose=0)
    return {"seconds": time.perf_counter() - started, "accuracy": history.history["val_accuracy"][-1]}


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
    model = _compiled(inputs, x, len(read["classes"]))

    def dataset(name: str) -> tf.data.Dataset:
        examples = read["splits"][name]
        decoded = _decoded(read, name).cache()
        if name == "train":
            decoded = decoded.shuffle(len(examples.ids))

        def encode(pictures: Any, labels: Any) -> tuple[Any, Any]:
            if name == "train" and arguments.views > 1:
                pictures = tf.image.random_flip_up_down(tf.image.random_flip_left_right(pictures))
            return read["preprocessing"].encode(pictures), labels

        batches = decoded.batch(BATCH_SIZE).map(encode, num_parallel_calls=tf.data.AUTOTUNE)
        return batches.prefetch(tf.data.AUTOTUNE)

    history = model.fit(
        dataset("train"), validation_data=dataset("validation"), epochs=arguments.epochs, verbose=0
    )
    return {"seconds": time.perf_counter() - started, "accuracy": history.history["val_accuracy"][-1]}


def _read(arguments: argparse.Namespace, source: str = "") -> dict[str, Any]:
    """Which files are in which split, and the preprocessing. Not timed: tlkit's own reading is."""
    import keras

    from tlkit.workflows.examples import load_examples
    from tlkit.workflows.objects import PythonObjects
    from tlkit.workflows.prepare import find_entry

    config = make_config(arguments, source or str(arguments.scratch / SEEN))
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


def _decoded(read: dict[str, Any], name: str) -> Any:
    """Pictures of a split, uint8, and their labels, one by one."""
    import tensorflow as tf

    examples, preprocessing = read["splits"][name], read["preprocessing"]
    shape = (preprocessing.image_size, preprocessing.image_size, 3)

    def decode(path: Any, label: Any) -> tuple[Any, Any]:
        return tf.ensure_shape(preprocessing.decode(tf.io.read_file(path)), shape), label

    files = tf.data.Dataset.from_tensor_slices((examples.paths, examples.targets))
    return files.map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _all_features(read: dict[str, Any], arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Of training: pooled features of each view, float32 (views, n, C), and labels; of validation: (n, C)."""
    import keras
    import numpy as np
    import tensorflow as tf

    backbone, preprocessing = read["backbone"], read["preprocessing"]
    pooled = keras.layers.GlobalAveragePooling2D()
    compute = tf.function(lambda inputs: pooled(backbone(inputs, training=False)), reduce_retracing=True)

    def features(name: str, view: int) -> Any:
        def encode(pictures: Any, number: Any) -> Any:
            if name == "train":
                pictures = preprocessing.augment(
                    pictures,
                    tf.stack([tf.fill(tf.shape(number), tf.constant(view, tf.int64)), number], axis=1),
                )
            return preprocessing.encode(pictures)

        numbered = _decoded(read, name).enumerate().map(lambda number, example: (example[0], number))
        batches = numbered.batch(BATCH_SIZE).map(encode).prefetch(tf.data.AUTOTUNE)
        return np.concatenate([compute(batch).numpy() for batch in batches])

    views = np.stack([features("train", view) for view in range(arguments.views)])
    splits = read["splits"]
    return (views, splits["train"].targets), (features("validation", 0), splits["validation"].targets)


def _compiled(inputs: Any, x: Any, n_classes: int) -> Any:
    """The head on top of `x`, a tensor that `inputs` lead to."""
    import keras

    model = keras.Model(inputs, keras.layers.Dense(n_classes)(keras.layers.Dropout(DROPOUT)(x)))
    model.compile(
        keras.optimizers.AdamW(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


SIDES = {
    "one pass": Side(run_one_pass),
    "tlkit": Side(run_tlkit),
    "tlkit, warm": Side(run_warm),
    "by hand": Side(run_by_hand),
    "Keras guide": Side(run_keras_guide),
}


if __name__ == "__main__":
    main()
