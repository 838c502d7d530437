"""Layer groups for a model that no family of the zoo describes, or the family whose groups fit it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import keras

from tlkit import zoo
from tlkit.backbones.graph import Call, calls_of, layers_with_weights
from tlkit.zoo.entry import ZooEntry

MOST_GROUPS = 8  # a change of stage costs a new trace, so groups are few


def propose_groups(model: keras.Model) -> dict[str, str]:
    """Layer groups, input to output: name → regex over layer paths, as in a zoo entry.

    The model is divided where one tensor alone crosses its graph, and the pieces are joined to at most
    eight groups of about equally many layers.
    """
    pieces = _join_shared([_paths(piece) for piece in _pieces(model)])
    total = sum(len(piece) for piece in pieces)
    count = min(MOST_GROUPS, len(pieces))
    groups: dict[int, list[str]] = {}
    done = 0
    for piece in pieces:
        groups.setdefault(int((done + len(piece) / 2) / total * count), []).extend(piece)
        done += len(piece)
    names = ["stem", *(f"block{number}" for number in range(1, len(groups)))]
    everything = [path for piece in pieces for path in piece]
    return {
        name: _pattern(paths, [path for path in everything if path not in set(paths)])
        for name, paths in zip(names, groups.values(), strict=True)
    }


def entries_that_fit(model: keras.Model) -> tuple[ZooEntry, ...]:
    """The entries for pictures whose layer groups hold every layer of `model` once, and none is empty.

    Where some have as many parameters as the model, these alone.
    """
    paths = [path for path, _ in layers_with_weights(model)]
    fitting: dict[tuple[tuple[str, str], ...], bool] = {}
    found = []
    for entry in zoo.entries():
        groups = tuple(entry.layer_groups.items())
        if entry.modality != "image" or entry.kind == "scratch":
            continue
        if groups not in fitting:
            fitting[groups] = _fits(entry.layer_groups, paths)
        if fitting[groups]:
            found.append(entry)
    same = [entry for entry in found if entry.params == model.count_params()]
    return tuple(same or found)


def _pieces(model: keras.Model) -> list[list[Call]]:
    """Consecutive calls, divided wherever one computed tensor alone is needed further on."""
    calls = calls_of(model)
    last_use = {id(tensor): place for place, call in enumerate(calls) for tensor in call.inputs}
    last_use |= {id(tensor): len(calls) for tensor in model.outputs}
    at_hand = {id(tensor) for tensor in model.inputs}
    pieces: list[list[Call]] = [[]]
    needed: set[int] = set()
    for place, call in enumerate(calls):
        pieces[-1].append(call)
        needed |= {id(tensor) for tensor in call.outputs} - at_hand
        needed = {tensor for tensor in needed if last_use.get(tensor, -1) > place}
        if len(needed) == 1:
            pieces.append([])
    return pieces


def _paths(piece: Iterable[Call]) -> list[str]:
    """The layers with weights that a piece calls, each once."""
    found = []
    for call in piece:
        layer = call.operation
        if isinstance(layer, keras.Model):
            found += [path for path, _ in layers_with_weights(layer, f"{layer.name}/")]
        elif getattr(layer, "weights", None):
            found.append(layer.name)
    return list(dict.fromkeys(found))


def _join_shared(pieces: Sequence[list[str]]) -> list[list[str]]:
    """The pieces with layers, those between two calls of one layer joined: its weights are in one group."""
    joined: list[list[str]] = []
    for piece in pieces:
        shared = [place for place, earlier in enumerate(joined) if set(earlier) & set(piece)]
        if shared:
            together = [path for earlier in joined[shared[0] :] for path in earlier]
            joined[shared[0] :] = [list(dict.fromkeys([*together, *piece]))]
        elif piece:
            joined.append(piece)
    return joined


def _pattern(paths: Sequence[str], others: Sequence[str]) -> str:
    """A regex that matches all `paths` and none of `others`, by the shortest beginnings that tell."""
    parts = dict.fromkeys(_shortest(path, others) for path in paths)
    return "|".join(parts)


def _shortest(path: str, others: Sequence[str]) -> str:
    """The regex for one path: a beginning up to a `_` or `/` that no other group shares, else all of it."""
    for end in re.finditer(r"[_/]", path):
        beginning = path[: end.end()]
        if not any(other.startswith(beginning) for other in others):
            return f"{re.escape(beginning)}.*"
    return re.escape(path)


def _fits(groups: Mapping[str, str], paths: Sequence[str]) -> bool:
    patterns = [re.compile(pattern) for pattern in groups.values()]
    used = set()
    for path in paths:
        matching = [place for place, pattern in enumerate(patterns) if pattern.fullmatch(path)]
        if len(matching) != 1:
            return False
        used.add(matching[0])
    return len(used) == len(patterns)
