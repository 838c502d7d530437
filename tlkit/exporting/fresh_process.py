"""Reload an exported model and write down its answers. Run as a script, in a process of its own.

It imports TensorFlow and nothing of tlkit: what it can answer, a serving stack can.

Usage: python fresh_process.py SAVED_MODEL FOLDER

FOLDER holds `encoded/` (image files, in the order of their names) and `pictures.npz` (uint8 arrays
(h, w, 3)). The answers go to FOLDER as `bytes.npz`, `tensor.npz` (one array per output), `one.npz` (the
first file alone) and `none.npz` (no file at all).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

BATCH = 8


def main(saved_model: Path, folder: Path) -> None:
    signatures = tf.saved_model.load(str(saved_model)).signatures
    files = [path.read_bytes() for path in sorted((folder / "encoded").iterdir())]
    by_bytes = signatures["serving_default"]
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    write(folder / "bytes.npz", [answer(by_bytes, image_bytes=tf.constant(batch)) for batch in batches])
    write(folder / "one.npz", [answer(by_bytes, image_bytes=tf.constant(files[:1]))])
    write(folder / "none.npz", [answer(by_bytes, image_bytes=tf.constant([], tf.string))])
    with np.load(folder / "pictures.npz") as pictures:
        by_tensor = signatures["tensor"]
        answers = [answer(by_tensor, image=tf.constant(pictures[name][None])) for name in sorted(pictures)]
    write(folder / "tensor.npz", answers)
    if "tlkit" in sys.modules:
        sys.exit("The check loaded tlkit, so it would prove nothing.")


def answer(signature: Any, **inputs: Any) -> dict[str, np.ndarray]:
    outputs = {name: value.numpy() for name, value in signature(**inputs).items()}
    # Text as text: NumPy would pickle TensorFlow's byte objects.
    return {
        name: np.char.decode(value.astype(bytes), "utf-8") if value.dtype == object else value
        for name, value in outputs.items()
    }


def write(path: Path, answers: list[dict[str, np.ndarray]]) -> None:
    names = answers[0]
    np.savez(
        path, allow_pickle=False, **{name: np.concatenate([one[name] for one in answers]) for name in names}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
