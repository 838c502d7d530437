"""How far a YAML text may grow when it is read: a few lines of anchors can stand for billions of values."""

from __future__ import annotations

import yaml

MAX_CHARACTERS = 20_000_000
MAX_VALUES = 200_000
MAX_DEPTH = 100


def check_yaml(text: str) -> None:
    """Refuse a YAML text whose aliases grow without measure or lead back to themselves, or that is very deep.

    What is counted is every value, those behind an alias once for each time it is named. Nothing is built.
    Raises yaml.YAMLError, also for what is not YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    sizes: dict[str, int] = {}  # how many values each anchor stands for
    unfinished: list[tuple[str | None, int]] = []
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times faster
    for event in yaml.parse(text, Loader=loader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(unfinished) >= MAX_DEPTH:
                raise yaml.YAMLError(f"it is more than {MAX_DEPTH} levels deep")
            sizes.pop(anchor or "", None)
            unfinished.append((anchor, 1))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = unfinished.pop()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise yaml.YAMLError(f"the alias *{event.anchor} names nothing, or what it is itself part of")
            size = sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        if unfinished:
            name, inside = unfinished.pop()
            size += inside
            unfinished.append((name, size))
        if size > MAX_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values")
