"""Choose entries of the zoo by what they are, and by what is on this machine."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from tlkit.errors import ConfigError
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.presence import kept_at, works_offline

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def select(
    chosen: Iterable[ZooEntry],
    *,
    modalities: Collection[str] | None = None,
    min_params: int | None = None,
    max_params: int | None = None,
    license: str | None = None,  # noqa: A002 - the field's own name
    source: str | None = None,
    offline: bool = False,
    cached: bool = False,
) -> tuple[ZooEntry, ...]:
    """The entries that fit everything that is given.

    Args:
        modalities: `image`, `text` and `other`, those that are wanted.
        min_params: Least number of parameters.
        max_params: Most.
        license: A part of the licence's name, in capitals or not.
        source: The kind of the source or of a mirror.
        offline: It can be loaded now without a network; reads what is in the cache folder.
        cached: Its weights are on this machine, intact or not.
    """
    return tuple(
        entry
        for entry in chosen
        if (modalities is None or entry.modality in modalities)
        and (min_params is None or entry.params >= min_params)
        and (max_params is None or entry.params <= max_params)
        and (license is None or license.lower() in entry.license.lower())
        and (source is None or source in {each.kind for each in (entry.source, *entry.mirrors)})
        and (not offline or works_offline(entry))
        and (not cached or kept_at(entry) is not None)
    )


def parse_bytes(text: str) -> int:
    """A number of bytes: `500MB`, `2 GB`, `1.5GiB` or plain. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower().replace(",", ""))
    if match is None:
        raise ConfigError(f"{text!r} is not a size: write 500MB or 2GB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " "))


def parse_count(text: str) -> int:
    """A number of parameters: `5000000`, `5,000,000`, `5M`, `1.5b`, `300k`. Raises ConfigError."""
    match = re.fullmatch(
        r"(\d+(?:\.\d+)?)\s*([kmb]?)", text.strip().lower().replace(",", "").replace("_", "")
    )
    if match is None:
        raise ConfigError(f"{text!r} is not a number of parameters: write 5000000 or 5M")
    return int(float(match[1]) * _UNITS[match[2]])
