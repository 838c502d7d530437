"""The cache folder: where fetched weights and sample data live."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """The cache folder: `TLKIT_HOME`, or the platform's user cache folder. It may not exist yet."""
    chosen = os.environ.get("TLKIT_HOME")
    return (
        Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("tlkit", appauthor=False))
    )


def offline() -> bool:
    """Whether `TLKIT_OFFLINE` forbids every download."""
    return os.environ.get("TLKIT_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")
