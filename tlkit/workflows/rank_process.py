"""The process of its own in which a backbone gives its features, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.config import RunConfig, dump
from tlkit.config.text import Normalization
from tlkit.errors import DataError
from tlkit.preprocessing import default_image_size
from tlkit.workflows import rank_features
from tlkit.zoo import ImageInput, ZooEntry

START = "from tlkit.workflows.rank_features import main; main()"
# What the process gets are training examples, normalised already, and all of them count.
AS_THEY_ARE = Normalization(unicode="none", whitespace=False)
ALL_OF_THEM = {"source": None, "split": {"validation": 0.0, "test": 0.0}, "duplicates": "keep"}


def make_job(
    config: RunConfig, entry: ZooEntry, inputs: list[str], longest_side: int | None
) -> dict[str, Any]:
    """What the process is told: the run's config, for examples that were read, cleaned and drawn already.

    `inputs` are paths of pictures, whose `longest_side` is in pixels, or normalised texts.
    """
    tree = dump(config)
    preprocessing = {**tree["preprocessing"], "augment": "none", "nltk": []}
    preprocessing["normalize"] = AS_THEY_ARE.model_dump()
    if isinstance(entry.input, ImageInput) and config.preprocessing.image_size is None:
        preprocessing["image_size"] = default_image_size(entry.input, longest_side)
    # The targets of a process are row numbers.
    changes = {"task": "regress", "backbone": entry.name, "preprocessing": preprocessing, "python": []}
    tree = {**tree, **changes, "data": {**tree["data"], **ALL_OF_THEM}}
    return {"config": tree, "entry": entry.to_dict(), "inputs": inputs}


def features_from_process(
    job: dict[str, Any], folder: Path, advance: Callable[[int], None]
) -> tuple[np.ndarray, dict[str, Any]]:
    """What `rank_features.compute_features` gives, from a fresh Python process.

    `folder` is made, for what the two processes tell each other. `advance` is called with the number of
    examples that are done. Raises DataError with the process's reason where it did not come to its end.
    """
    folder.mkdir()
    (folder / rank_features.JOB).write_text(json.dumps(job), encoding="utf-8")
    _run(folder, advance)
    facts = json.loads((folder / rank_features.DONE).read_text(encoding="utf-8"))
    return np.load(folder / rank_features.FEATURES), facts


def _run(folder: Path, advance: Callable[[int], None]) -> None:
    """Run `rank_features` to its end. Raises DataError with what it said, where it failed."""
    # -P: a file of the working folder must not stand in for a module.
    command = [sys.executable, "-P", "-c", START, str(folder)]
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with (folder / "stderr").open("w+", encoding="utf-8", errors="replace") as said:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith(rank_features.PROGRESS):
                        advance(int(line.removeprefix(rank_features.PROGRESS)))
                code = process.wait()
            finally:
                process.kill()  # where this one was interrupted
        if code:
            said.seek(0)
            raise DataError(describe_failure(code, folder / rank_features.ERROR, said.read()))


def describe_failure(code: int, error: Path, said: str) -> str:
    """One line about a process that ended with `code`, out of what it left behind."""
    if error.exists():
        return error.read_text(encoding="utf-8")
    if code < 0:
        name = signal.Signals(-code).name
        return f"stopped by {name}{' (most likely out of memory)' if name == 'SIGKILL' else ''}"
    lines = said.strip().splitlines() or ["it said nothing"]
    return f"ended with exit code {code}: {lines[-1][:200]}"
