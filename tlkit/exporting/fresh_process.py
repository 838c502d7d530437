"""Reload an exported model and write down its answers. Run as a script, in a process of its own.

It imports TensorFlow, the modules that it is told to, and nothing of tlkit: what it can answer, a serving
stack can.

Usage: python fresh_process.py SAVED_MODEL FOLDER [MODULE ...]

FOLDER holds a folder for each signature, with a file for each batch (`000.npz`): one array per input, the
bytes of `tf.io.serialize_tensor` (NumPy's own strings would lose a NUL at their end). The answers go beside
it (`000.answers.npz`) in the same way. MODULEs bring the operations that TensorFlow lacks.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf


def main(saved_model: Path, folder: Path, modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    signatures = tf.saved_model.load(str(saved_model)).signatures
    for questions in sorted(folder.glob("*/*.npz")):
        signature = signatures[questions.parent.name]
        specs = signature.structured_input_signature[1]
        with np.load(questions) as arrays:
            inputs = {
                name: tf.io.parse_tensor(arrays[name].tobytes(), specs[name].dtype) for name in arrays.files
            }
        answers: dict[str, Any] = {
            name: np.frombuffer(tf.io.serialize_tensor(value).numpy(), np.uint8)
            for name, value in signature(**inputs).items()
        }
        np.savez(questions.with_suffix(".answers.npz"), **answers)
    if "tlkit" in sys.modules or "keras_hub" in sys.modules:
        sys.exit("The check loaded more than a server has, so it would prove nothing.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
