"""The README of an exported model: what a server needs, and how to ask it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

import tensorflow as tf

from tlkit.exporting.signatures import Interface
from tlkit.zoo import ZooEntry

SHOWN_LABELS = 20

GIVES = {
    "classify": "one label for each example",
    "multilabel": "any number of labels for each example",
    "regress": "numbers",
    "tokens": "a tag for every word",
    "embed": "vectors of texts",
}


def make_readme(interface: Interface, description: Mapping[str, Any], entry: ZooEntry) -> str:
    """The page, in Markdown. `description` is that of `input.json`."""
    parts = [
        f"# {escape(entry.name)}, fine-tuned to give {GIVES[description['task']]}",
        "This folder is a TensorFlow SavedModel with its preprocessing inside. It was made by tlkit, and "
        "needs nothing of tlkit. `assets/input.json` has all of this page for programs.",
        *_before_sending(description["client_steps"]),
        "## What a server needs",
        _needs(description["needs"]),
        "## TensorFlow Serving",
        "Put this folder where the version of a model is expected, for example `models/mine/1`, and serve "
        "`models/mine` under the name `mine`.",
        *(_request(name, body) for name, body in interface.requests.items()),
        "## Python",
        _python(interface),
        "## Inputs and outputs",
        *(_signature(name, description) for name in interface.signatures),
        *_words(description["inside"]),
        *_labels(description["labels"]),
    ]
    return "\n\n".join(parts) + "\n"


def _before_sending(steps: list[str]) -> list[str]:
    if not steps:
        return []
    return [
        "## Before a text is sent",
        "This model was trained on texts that were changed by steps that a SavedModel cannot hold. **Whoever "
        "calls it must do the same first**, in this order, or its answers are wrong:",
        "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1)),
    ]


def _needs(needs: Mapping[str, Any]) -> str:
    version = ".".join(tf.__version__.split(".")[:2])
    if not needs["ops"]:
        return f"TensorFlow {version} or later, and nothing else."
    ops = ", ".join(f"`{op}`" for op in needs["ops"])
    return (
        f"TensorFlow {version} or later, and of tensorflow-text the operations {ops}. TensorFlow Serving "
        "ships them. Where a server says `Op type not registered`, its release has an older tensorflow-text: "
        f"take a newer one. A Python process installs `tensorflow-text=={version}.*` and imports "
        "`tensorflow_text` before it opens the model."
    )


def _request(name: str, body: Mapping[str, Any]) -> str:
    data = json.dumps(body, ensure_ascii=False)
    return f"`{name}`:\n\n```sh\ncurl http://localhost:8501/v1/models/mine:predict -d '{data}'\n```"


def _python(interface: Interface) -> str:
    signature = interface.signatures["serving_default"]
    values = {"image_bytes": 'open("picture.jpg", "rb").read()', "text": '"A text of mine."'}
    arguments = ", ".join(
        f"{spec.name}=tf.constant([{values.get(spec.name, repr('One to compare it with.'))}])"
        for spec in signature.inputs
    )
    imports = ["import tensorflow as tf"]
    imports += [
        f"import {module}  # its operations, before the model is opened" for module in interface.modules
    ]
    lines = [
        *imports,
        "",
        'model = tf.saved_model.load("models/mine/1")',
        f'answers = model.signatures["serving_default"]({arguments})',
    ]
    return "```python\n" + "\n".join(lines) + "\n```"


def _signature(name: str, description: Mapping[str, Any]) -> str:
    rows = [
        (f"`{key}`", f"input, {facts['dtype']} {_shape(facts['shape'])}", facts["meaning"])
        for key, facts in description["inputs"][name].items()
    ]
    rows += [(f"`{key}`", "output", meaning) for key, meaning in description["outputs"][name].items()]
    lines = [f"### `{name}`", "", "| name | what | meaning |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)]
    )


def _shape(shape: list[int | None]) -> str:
    return "(" + ", ".join("any" if side is None else str(side) for side in shape) + ")"


def _words(inside: Mapping[str, Any]) -> list[str]:
    return ["## Words", inside["words"]] if "words" in inside else []


def _labels(labels: list[str]) -> list[str]:
    if not labels:
        return []
    names = ", ".join(_code(name) for name in labels[:SHOWN_LABELS])
    more = (
        f" and {len(labels) - SHOWN_LABELS} more, in `assets/labels.txt`"
        if len(labels) > SHOWN_LABELS
        else ""
    )
    return ["## Labels", f"In the order of the scores: {names}{more}."]


def _code(name: str) -> str:
    """A name as it is, whatever is in it: its marks must be longer than any in the name."""
    marks = "`" * (1 + max((len(run) for run in re.findall("`+", name)), default=0))
    space = " " if "`" in name else ""
    return f"{marks}{space}{' '.join(name.split())}{space}{marks}"
