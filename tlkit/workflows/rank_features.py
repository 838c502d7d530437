"""The features that one backbone gives for some examples, computed in a process of its own.

A process of its own has a peak of memory that is the backbone's alone, and takes nothing down with it when it
runs out of memory. `main` is that process. Its argument is a folder with `job.json`: the config, the zoo
entry, and the texts or the paths of the pictures. What comes out lies beside it: `features.npy`, float32
(n, d), and `done.json`, or `error.txt`. On standard output there is a line `examples N` after every batch.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tlkit.backbones import Backbone
from tlkit.config import RunConfig
from tlkit.config.load import validate
from tlkit.data import Examples, make_pipeline
from tlkit.errors import TlkitError
from tlkit.heads.pooling import pool
from tlkit.preprocessing import TextPreprocessing, make_preprocessing
from tlkit.workflows.backbone import load_backbone
from tlkit.workflows.examples import Preprocessing, load_examples
from tlkit.workflows.objects import PythonObjects
from tlkit.workflows.outputs import model_function
from tlkit.zoo import ImageInput, ZooEntry

JOB, FEATURES, DONE, ERROR = "job.json", "features.npy", "done.json", "error.txt"
PROGRESS = "examples "
BATCH_SIZE = 32


def main() -> None:
    folder = Path(sys.argv[1])
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        features, facts = compute_features(
            validate(job["config"]), ZooEntry.model_validate(job["entry"]), job["inputs"]
        )
        np.save(folder / FEATURES, features)
        (folder / DONE).write_text(json.dumps(facts), encoding="utf-8")
    except TlkitError as error:
        (folder / ERROR).write_text(str(error), encoding="utf-8")
        sys.exit(error.exit_code)


def compute_features(
    config: RunConfig, entry: ZooEntry, inputs: list[str]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Pooled features float32 (n, d) as the head of a run with this config would see them before training.

    `inputs` are paths of pictures, or texts as the run has them once they are normalised. Beside the features
    come `size` (pixels or tokens), `load_seconds`, `seconds` (decoding, tokenising and the forward pass of
    all examples, tracing included) and `peak_memory` (bytes of this process so far; None where the operating
    system does not tell).
    """
    started = time.perf_counter()
    examples, preprocessing = _read(config, entry, inputs)
    backbone = load_backbone(config, entry, preprocessing, weights=config.weights == "pretrained")
    answer = model_function(pooled_model(backbone, config.head.pooling))
    loaded = time.perf_counter()
    features: Any = None
    batches = make_pipeline(
        examples.take(examples.by_length), preprocessing, global_batch_size=BATCH_SIZE, training=False
    )
    done = 0
    for batch, numbers, *_ in batches:
        vectors = answer(batch).numpy()
        rows = numbers.numpy().astype(np.intp)
        features = np.zeros((len(inputs), vectors.shape[-1]), np.float32) if features is None else features
        features[rows] = vectors
        done += len(rows)
        print(f"{PROGRESS}{done}", flush=True)
    if isinstance(preprocessing, TextPreprocessing):
        size = preprocessing.sequence_length
    else:
        size = preprocessing.image_size
    return features, {
        "size": size,
        "load_seconds": loaded - started,
        "seconds": time.perf_counter() - loaded,
        "peak_memory": peak_memory(),
    }


def pooled_model(backbone: Backbone, pooling: str) -> keras.Model:
    """A model from the backbone's inputs to vectors (N, C): what a head without hidden layers looks at."""
    features, inputs = dict(backbone.features), backbone.model.input
    if isinstance(inputs, dict) and "token_ids" in inputs:
        inputs = dict(inputs)
        # The mask is there also for a backbone that does not look at it: the pooling does.
        inputs.setdefault("padding_mask", keras.Input((None,), dtype="int32", name="padding_mask"))
        features["mask"] = inputs["padding_mask"]
    return keras.Model(inputs, pool(features, pooling))


def peak_memory() -> int | None:
    """The most bytes that this process had in memory so far; None where the operating system does not tell.

    Not `ru_maxrss` on Linux: what the parent process had is part of it (the kernel hands it on at `exec`).
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = (line.split() for line in status.read_text(encoding="ascii").splitlines())
        found = [int(line[1]) * 1024 for line in lines if line[0] == "VmHWM:"]
        return found[0] if found else None
    if sys.platform == "darwin":
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return None


def _read(config: RunConfig, entry: ZooEntry, inputs: list[str]) -> tuple[Examples, Preprocessing]:
    """The examples, with their row numbers as targets."""
    numbers = np.arange(len(inputs), dtype=np.float32)
    if isinstance(entry.input, ImageInput):
        preprocessing = make_preprocessing(entry.input, config.preprocessing)
        ids, paths = np.array([str(row) for row in range(len(inputs))]), np.array(inputs, dtype=np.str_)
        return Examples(ids, paths, None, numbers), preprocessing
    dataset, text_preprocessing = load_examples(config, entry, PythonObjects(data=(inputs, numbers)))
    return dataset.splits["train"], text_preprocessing
