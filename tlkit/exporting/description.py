"""The text files that travel with an exported model, for people and programs that do not have tlkit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tlkit.config.head import Objective
from tlkit.exporting.answers import LABEL_SEPARATOR, LABEL_THRESHOLD, OUTSIDE
from tlkit.exporting.signatures import Interface
from tlkit.zoo import ZooEntry


def describe(
    interface: Interface,
    objective: Objective,
    classes: Sequence[str],
    *,
    ops: Sequence[str] = (),
    client_steps: Sequence[str] = (),
) -> dict[str, Any]:
    """What the exported model takes, needs and gives.

    `ops` are the operations that TensorFlow lacks; `client_steps` what is to be done to a text before it is
    sent.
    """
    return {
        "task": objective,
        "labels": list(classes),
        "client_steps": list(client_steps),
        **interface.description,
        "outputs": {name: describe_outputs(objective, name, classes) for name in interface.signatures},
        "needs": {"modules": list(interface.modules), "ops": list(ops)},
    }


def write_assets(folder: Path, description: dict[str, Any], entry: ZooEntry) -> list[Path]:
    """Write `labels.txt`, `input.json` and `zoo_entry.yaml` into `folder`; return their paths."""
    texts = {
        "labels.txt": "".join(f"{name}\n" for name in description["labels"]),
        "input.json": json.dumps(description, indent=2, ensure_ascii=False) + "\n",
        "zoo_entry.yaml": yaml.safe_dump(entry.to_dict(), sort_keys=False, allow_unicode=True),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in texts]


def describe_outputs(objective: Objective, signature: str, classes: Sequence[str]) -> dict[str, str]:
    """What each output of a signature means."""
    if objective == "regress":
        return {"value": "the predicted value (N,), or values (N, k) in the order of the labels"}
    if objective == "embed":
        return {"vector": "one vector (N, d) for each text, of length 1: their dot product is their cosine"}
    if objective == "tokens":
        unseen = (
            f"the tag {OUTSIDE!r} and the score 0" if OUTSIDE in classes else "the tag '' and the score 0"
        )
        tags = {
            "tags": "the tag of each word (N, W), '' after the last word of a text; a word for which there "
            f"was no room in the model's length has {unseen}",
            "scores": "the probability of that tag (N, W)",
        }
        offsets = {
            "words": "the words that were found in the text (N, W), '' after the last one",
            "starts": "where each word starts (N, W), in Unicode code points of the text as sent; -1: none",
            "ends": "where each word ends: the code point after its last one; -1: none",
        }
        return tags if signature == "words" else tags | offsets
    label = {
        "classify": "the name of the class with the highest score",
        "multilabel": f"the names whose score is above {LABEL_THRESHOLD}, joined by '{LABEL_SEPARATOR}'",
    }[objective]
    return {
        "scores": "probabilities (N, labels) in the order of the labels",
        "label": label,
        "top_k_labels": "the names of the highest scores, the highest first",
        "top_k_scores": "their scores",
    }
