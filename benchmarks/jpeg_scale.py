"""JPEG at a half or a quarter of its sides: how far from the whole picture, and what a model makes of it.

    python benchmarks/jpeg_scale.py --data images/ --image-size 48

Pixels: eight photographs of scikit-image and scikit-learn as JPEG (quality 90), at sizes for which they are
exactly so many times too large. The whole picture and the reduced one go through the same resizing; numbers
are grey levels of 0–255.

Accuracy: logistic regression on frozen features of a folder of class folders, each picture blown up 4 times
and written as JPEG again where `--blow-up 4` is given. Three drawn halves; the regression learns and answers
on pictures that were decoded alike.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from rich.console import Console
from rich.table import Table

QUALITY = 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder of class folders of JPEGs")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--blow-up", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    pixels = compare_pixels()
    accuracy = compare_accuracy(arguments) if arguments.data else {}
    report(pixels, accuracy)


def report(pixels: list[dict[str, float]], accuracy: dict[str, list[float]]) -> None:
    console = Console(stderr=True)
    table = Table("scale", "times too large after it", "mean difference", "99 % below", "most")
    for row in pixels:
        cells = [f"{row['mean']:.2f}", f"{row['percentile_99']:.1f}", f"{row['max']:.0f}"]
        table.add_row(f"1/{row['scale']:.0f}", f"{row['margin']:.2f}", *cells)
    console.print(table)
    if accuracy:
        table = Table("decoded", "accuracy (mean)", "all")
        for name, values in accuracy.items():
            table.add_row(name, f"{np.mean(values):.4f}", " ".join(f"{value:.4f}" for value in values))
        console.print(table)
    print(json.dumps({"pixels": pixels, "accuracy": accuracy}))


def compare_pixels() -> list[dict[str, float]]:
    rows = []
    for scale in (2, 4, 8):
        for margin in (1.0, 1.5, 2.0, 3.0):
            differences = []
            for photograph in photographs():
                size = int(min(photograph.size) / scale / margin)
                raw = tf.constant(encode(photograph))
                whole, reduced = (resize(decode(raw, ratio), size) for ratio in (1, scale))
                differences.append(np.abs(whole - reduced).ravel())
            rows.append(
                {
                    "scale": scale,
                    "margin": margin,
                    "mean": float(np.mean([each.mean() for each in differences])),
                    "percentile_99": float(np.mean([np.percentile(each, 99) for each in differences])),
                    "max": float(max(each.max() for each in differences)),
                }
            )
    return rows


def compare_accuracy(arguments: argparse.Namespace) -> dict[str, list[float]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    files = sorted(path for path in Path(arguments.data).glob("*/*") if path.is_file())
    labels = [path.parent.name for path in files]
    raws = [enlarge(path, arguments.blow_up) for path in files]
    found: dict[str, list[float]] = {}
    for scale in (1, 2, 4, 8):
        features = frozen_features(raws, scale, arguments)
        name = "whole" if scale == 1 else f"at 1/{scale}"
        found[name] = []
        for seed in range(arguments.repeats):
            parts = train_test_split(features, labels, test_size=0.5, random_state=seed, stratify=labels)
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
            found[name].append(float(model.fit(parts[0], parts[2]).score(parts[1], parts[3])))
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def frozen_features(raws: list[bytes], scale: int, arguments: argparse.Namespace) -> Any:
    from tlkit import zoo
    from tlkit.backbones import load
    from tlkit.config import PreprocessingConfig
    from tlkit.preprocessing import make_preprocessing

    entry = zoo.get(arguments.backbone)
    size = arguments.image_size
    preprocessing = make_preprocessing(entry.input, PreprocessingConfig(image_size=size))
    backbone = load(entry, image_size=size).model
    compute = tf.function(
        lambda pictures: tf.reduce_mean(
            backbone(preprocessing.encode(tf.cast(pictures, tf.uint8)), training=False), axis=(1, 2)
        ),
        reduce_retracing=True,
    )
    samples = [resize(decode(tf.constant(raw), scale), size) for raw in raws]
    return np.concatenate([compute(np.stack(samples[at : at + 64])) for at in range(0, len(samples), 64)])


def photographs() -> list[Image.Image]:
    import skimage.data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")
    arrays = [getattr(skimage.data, name)() for name in names] + list(load_sample_images().images)
    return [Image.fromarray(array) for array in arrays]


def encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def enlarge(path: Path, times: int) -> bytes:
    if times == 1:
        return path.read_bytes()
    with Image.open(path) as picture:
        sides = (picture.width * times, picture.height * times)
        return encode(picture.convert("RGB").resize(sides, Image.Resampling.LANCZOS))


def decode(raw: tf.Tensor, scale: int) -> tf.Tensor:
    return tf.io.decode_jpeg(raw, 3, ratio=scale, fancy_upscaling=True, dct_method="INTEGER_ACCURATE")


def resize(picture: tf.Tensor, size: int) -> Any:
    resized = tf.image.resize(picture, (size, size), antialias=True)
    return np.clip(np.round(resized.numpy()), 0, 255)


if __name__ == "__main__":
    main()
