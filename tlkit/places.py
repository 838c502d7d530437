"""Addresses of object stores: data is read from there, and everything else is a path of this machine."""

from __future__ import annotations

import re
from pathlib import Path

from tlkit.errors import ConfigError

# A letter alone is a drive of Windows. pathlib leaves one of the two slashes.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)


def address_of(place: str | Path) -> str | None:
    """`place` as an address, such as `gs://bucket/folder`; None for a path."""
    match = _ADDRESS.match(str(place))
    return f"{match[1].lower()}://{str(place)[match.end() :]}" if match else None


def require_local(place: str | Path, what: str) -> None:
    """Raises ConfigError where `place` is an address; `what` is meant to be there."""
    address = address_of(place)
    if address is not None:
        raise ConfigError(
            f"{what} cannot be at {address}: an object store is read as data.source, and for nothing else. "
            "Mount it (gcsfuse, mountpoint-s3) and give the path that it is mounted at"
        )
