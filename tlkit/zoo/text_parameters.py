"""How many parameters a KerasHub text encoder has, from its constructor's arguments; nothing is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Arguments = Mapping[str, Any]


def count_parameters(family: str, arguments: Arguments, *, pooler: bool) -> int:
    """Embeddings, transformer blocks (shared ones once) and, with `pooler`, the dense layer of the pooler."""

    def number(name: str, default: int = 0) -> int:
        return int(arguments.get(name, default))

    width, inner = number("hidden_dim"), number("intermediate_dim")
    embedded = number("embedding_dim", width)
    rows = number("vocabulary_size")
    if family == "deberta_v3":  # positions are relative: a table of its own, with its own normalisation
        rows += 2 * number("bucket_size") + 2
    else:
        rows += number("max_sequence_length")
    rows += number("num_segments")
    total = rows * embedded + 2 * embedded
    if family in ("albert", "f_net") or embedded != width:
        total += _dense(embedded, width)
    blocks = number("num_layers")
    if family == "albert":
        blocks = number("num_groups", 1) * number("num_inner_repetitions", 1)
    attention = 0 if family == "f_net" else 4 * _dense(width, width)
    total += blocks * (attention + _dense(width, inner) + _dense(inner, width) + 4 * width)
    return total + (_dense(width, width) if pooler else 0)


def _dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs
