"""Whether pictures arrive in time: decoding against bare libjpeg-turbo, and steps that wait for nothing.

    python benchmarks/input_pipeline.py --repeats 3

Decoding: JPEGs of 500 × 375 and 1920 × 1080 pixels, made of scikit-image's photographs (quality 90), from
bytes in memory, on all cores. tlkit decodes, turns, resizes to 224 pixels and rounds, in its pipeline; the
others only decode, and leave all else to be done:

- `simplejpeg`: libjpeg-turbo, called as directly as Python can (extra `bench`);
- `Pillow`: its libjpeg-turbo, without `draft`.

Steps: the milliseconds of a training step (batches of 32, EfficientNet-Lite0 at 224 pixels) with tlkit's
pipeline, and with one batch that lies there as tensors. Both run in one process in turns, so that what else
the machine does hits both; means over the steps, of which the first ones of every turn are left out, and
medians of the repeats.

- `head`: what is frozen is stored as features; `all`: everything is trained, pictures are flipped;
- `all, on disk`: the same, with the decoded pictures in a file; `all, decoding`: decoded again every epoch.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.table import Table
from sides import Answer, Found, Side, make_parser, median, own_features, run_sides

SIZES = {"small": (500, 375), "large": (1920, 1080)}
IMAGE_SIZE = 224
BATCH_SIZE = 32
QUALITY = 90
TURNS = 3
SKIPPED = 3  # steps of every turn: tracing, and filling the pipeline


def main() -> None:
    parser = make_parser(__doc__, SIDES, data="photographs")
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12, help="of a turn that trains everything")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    run_sides(parser, SIDES, report, prepare)


def report(found: Found, arguments: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    table = Table("side", "pictures per second", "ms of a step", "ms on ready tensors", "ratio")
    document: dict[str, Any] = {}
    for side, answers in found.items():
        cells = ["–"] * 4
        if "pictures_per_second" in answers[0]:
            document[side] = median(answers, "pictures_per_second")
            cells[0] = f"{document[side]:.0f}"
        else:
            document[side] = median(answers, "ratio")
            cells[1:3] = [f"{median(answers, name):.1f}" for name in ("step_ms", "ready_ms")]
            cells[3] = f"{document[side]:.3f}×"
        table.add_row(side, *cells)
    return table, {"medians": document}


def prepare(arguments: argparse.Namespace) -> Answer:
    """Write the JPEGs: a folder of each size, with two classes."""
    import numpy as np
    import skimage.data
    from PIL import Image

    photographs = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    draw = np.random.default_rng(0)
    for size, sides in SIZES.items():
        for number in range(arguments.limit or arguments.pictures):
            picture = Image.fromarray(photographs[number % len(photographs)])
            left, top = (int(draw.integers(0, side // 8)) for side in picture.size)
            cut = picture.crop((left, top, picture.width - left, picture.height - top))
            path = arguments.scratch / size / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cut.resize(sides, Image.Resampling.LANCZOS).save(path, "JPEG", quality=QUALITY)
    return {}


def _files(arguments: argparse.Namespace, size: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((arguments.scratch / size).rglob("*.jpg"))]


def decode_by_tlkit(size: str) -> Callable[[argparse.Namespace], Answer]:
    def run(arguments: argparse.Namespace) -> Answer:
        import tensorflow as tf

        from tlkit.data.pipeline import pipeline_options
        from tlkit.preprocessing import ImagePreprocessing
        from tlkit.zoo.entry import Scaling

        preprocessing = ImagePreprocessing(IMAGE_SIZE, "stretch", Scaling())
        files = _files(arguments, size)
        batches = tf.data.Dataset.from_tensor_slices(files).batch(BATCH_SIZE).repeat()
        batches = batches.map(
            preprocessing.decode_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        endless = iter(batches.with_options(pipeline_options()))
        steps = -(-len(files) // BATCH_SIZE)
        return _speed(lambda: sum(len(next(endless)) for _ in range(steps)))

    return run


def decode_by_simplejpeg(size: str) -> Callable[[argparse.Namespace], Answer]:
    def run(arguments: argparse.Namespace) -> Answer:
        import simplejpeg

        return _in_threads(simplejpeg.decode_jpeg, _files(arguments, size))

    return run


def decode_by_pillow(size: str) -> Callable[[argparse.Namespace], Answer]:
    def decode(raw: bytes) -> None:
        from PIL import Image

        with Image.open(io.BytesIO(raw)) as picture:
            picture.load()

    return lambda arguments: _in_threads(decode, _files(arguments, size))


def _in_threads(decode: Callable[[bytes], Any], files: list[bytes]) -> Answer:
    def drop(raw: bytes) -> int:
        decode(raw)
        return 1

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _speed(lambda: sum(pool.map(drop, files)))


def _speed(decode_all: Callable[[], int]) -> Answer:
    """Of the second pass: the first one traces, and wakes the threads."""
    decode_all()
    started = time.perf_counter()
    count = decode_all()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "pictures_per_second": count / seconds}


def train(what: str, **limits: float) -> Callable[[argparse.Namespace], Answer]:
    """A stage that trains `what`, with the decoded pictures wherever `limits` leave them."""

    def run(arguments: argparse.Namespace) -> Answer:
        import tensorflow as tf

        from tlkit.config import load_config
        from tlkit.training.cache.stage import divide_stage, store_features
        from tlkit.training.compiling import compile_stage
        from tlkit.training.freeze import apply_freeze
        from tlkit.training.pipelines import training_pipeline
        from tlkit.training.trainable import Place
        from tlkit.workflows.prepare import prepare as prepare_run

        started = time.perf_counter()
        own_features(arguments)
        tree = {
            "data": {"source": str(arguments.scratch / "small"), **limits},
            "backbone": arguments.backbone,
            "plan": [{"name": what, "train": what, "epochs": 1000, "learning_rate": 1e-5}],
            "training": {"global_batch_size": BATCH_SIZE},
            "preprocessing": {"image_size": IMAGE_SIZE},
        }
        prepared = prepare_run(load_config(tree).config)
        training, stage = prepared.trainable, prepared.stages[0]
        apply_freeze(training.model, training.groups, stage, training.batch_norm)
        parts = divide_stage(training)
        features = store_features(training, stage, parts)[1]
        model = compile_stage(training, stage, parts)
        pipeline = training_pipeline(training, stage, Place(0, 1, 0), features)
        batch = next(iter(pipeline))

        def unknown(*parts: Any) -> Any:  # the same trace as with the pipeline, whose last batch is smaller
            return tf.nest.map_structure(
                lambda part, spec: tf.raw_ops.PlaceholderWithDefault(input=part, shape=spec.shape),
                parts,
                pipeline.element_spec,
            )

        ready = tf.data.Dataset.from_tensors(batch).repeat().map(unknown)
        steps = SKIPPED + arguments.steps * (1 if what == "all" else 10)
        found: dict[str, list[float]] = {"ready": [], "pipeline": []}
        for turn in range(TURNS + 1):
            for name, batches in (("ready", ready), ("pipeline", pipeline)):
                seconds = list(_step_seconds(model, batches, steps))
                found[name] += seconds[SKIPPED:] if turn else []
        step_ms, ready_ms = (1000 * statistics.mean(found[name]) for name in ("pipeline", "ready"))
        return {
            "seconds": time.perf_counter() - started,
            "step_ms": step_ms,
            "ready_ms": ready_ms,
            "ratio": step_ms / ready_ms,
        }

    return run


def _step_seconds(model: Any, batches: Any, steps: int) -> Iterator[float]:
    import keras

    ends = [time.perf_counter()]

    def watch(batch: int, logs: Any) -> None:
        ends.append(time.perf_counter())

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=watch)
    model.fit(batches, steps_per_epoch=steps, epochs=1, callbacks=[callback], shuffle=False, verbose=0)
    return (end - begin for begin, end in itertools.pairwise(ends))


SIDES: dict[str, Side] = {
    **{f"{size}, tlkit": Side(decode_by_tlkit(size)) for size in SIZES},
    **{f"{size}, simplejpeg": Side(decode_by_simplejpeg(size), ("simplejpeg",)) for size in SIZES},
    **{f"{size}, Pillow": Side(decode_by_pillow(size)) for size in SIZES},
    "head": Side(train("head")),
    "all": Side(train("all")),
    "all, on disk": Side(train("all", memory=0.0)),
    "all, decoding": Side(train("all", memory=0.0, disk=0.0)),
}


if __name__ == "__main__":
    main()
