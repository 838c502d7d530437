"""The text files that travel with an exported model, for people and programs that do not have tlkit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tlkit.config import Task
from tlkit.exporting.signatures import LABEL_SEPARATOR, LABEL_THRESHOLD
from tlkit.preprocessing import ImagePreprocessing
from tlkit.preprocessing.kinds import ACCEPTED, REFUSED
from tlkit.zoo import ZooEntry

RESIZE = {
    "stretch": "stretched to the square",
    "crop": "scaled to cover the square, and its middle cut out",
    "pad": "scaled to fit into the square, and padded",
}


def write_descriptions(
    folder: Path, preprocessing: ImagePreprocessing, task: Task, classes: Sequence[str], entry: ZooEntry
) -> list[Path]:
    """Write `labels.txt`, `input.json` and `zoo_entry.yaml` into `folder`; return their paths."""
    texts = {
        "labels.txt": "".join(f"{name}\n" for name in classes),
        "input.json": json.dumps(describe(preprocessing, task, classes), indent=2, ensure_ascii=False) + "\n",
        "zoo_entry.yaml": yaml.safe_dump(entry.to_dict(), sort_keys=False, allow_unicode=True),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in texts]


def describe(preprocessing: ImagePreprocessing, task: Task, classes: Sequence[str]) -> dict[str, Any]:
    """What the exported model takes and gives."""
    scaling = preprocessing.scaling
    return {
        "task": task,
        "labels": list(classes),
        "inputs": {
            "serving_default": {
                "name": "image_bytes",
                "dtype": "string",
                "shape": [None],
                "meaning": "the bytes of one image file each; nothing is to be done to them first",
                "accepted": list(ACCEPTED),
                "refused": dict(REFUSED),
                "notes": "Exif rotation is applied, transparency is composited on white, of an animation the "
                "first frame is taken. One refused file refuses the whole batch.",
            },
            "tensor": {
                "name": "image",
                "dtype": "uint8",
                "shape": [None, None, None, 3],
                "meaning": "decoded RGB pictures of one size, 0 to 255",
            },
        },
        "inside": {
            "image_size": preprocessing.image_size,
            "resize": f"{preprocessing.resize}: the picture is {RESIZE[preprocessing.resize]}",
            "scaling": {
                "formula": "(x - mean) / std per channel, x from 0 to 255",
                "mean": list(scaling.mean),
                "std": list(scaling.std),
                "order": scaling.order,
            },
        },
        "outputs": _outputs(task),
    }


def _outputs(task: Task) -> dict[str, str]:
    if task == "regress":
        return {"value": "the predicted value (N,), or values (N, k) in the order of the labels"}
    label = {
        "classify": "the name of the class with the highest score",
        "multilabel": f"the names whose score is above {LABEL_THRESHOLD}, joined by '{LABEL_SEPARATOR}'",
    }[task]
    return {
        "scores": "probabilities (N, labels) in the order of the labels",
        "label": label,
        "top_k_labels": "the names of the highest scores, the highest first",
        "top_k_scores": "their scores",
    }
