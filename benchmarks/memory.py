"""How much memory a run takes for more pictures: hardly more, because they stay on the disk.

    python benchmarks/memory.py --counts 1000 50000

Pictures of 40 × 40 pixels are generated into a temporary folder, ten classes of coloured noise. For each
count a process of its own runs `tlkit finetune` (head plan, disk cache, decoded pictures on the disk) and is
watched from outside, ten times a second:

- `anonymous` is what the process itself took; `mapped` are pages of files that are in memory, too, which the
  system takes back when it needs room; `total` is the resident set, both together;
- `peak` is the largest value of the whole run, `steady` the median while the head was trained.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

SIDE = 40
CLASSES = 10
MB = 2**20
KINDS = ("total", "anonymous", "mapped")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=__doc__.split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 50000])
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    found = {count: measure(count, arguments) for count in arguments.counts}
    first = found[arguments.counts[0]]
    table = Table("pictures", *(f"{name}, MB" for name in first if name != "seconds"), "growth of the peak")
    for count, values in found.items():
        cells = [f"{value:.0f}" for name, value in values.items() if name != "seconds"]
        growth = values["peak total"] / first["peak total"] - 1
        table.add_row(f"{count:,}", *cells, f"{growth:+.1%}")
    Console(stderr=True, width=None if sys.stderr.isatty() else 140).print(table)
    print(json.dumps({"settings": vars(arguments), "counts": found}, indent=2))


def measure(count: int, arguments: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        generate(count, Path(scratch) / "pictures")
        return watch(make_command(Path(scratch), arguments), Path(scratch))


def generate(count: int, folder: Path) -> None:
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(count):
        label = number % CLASSES
        path = folder / f"class{label}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = draw.integers(0, 128, (4, 4, 3)) + 12 * label
        picture = Image.fromarray(colour.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(path, quality=85)


def make_command(scratch: Path, arguments: argparse.Namespace) -> list[str]:
    plan = f"[{{name: head, train: head, epochs: {arguments.epochs}, learning_rate: 0.001}}]"
    return [
        *(sys.executable, "-m", "tlkit", "finetune", "--data", str(scratch / "pictures")),
        *("--backbone", arguments.backbone, "--image-size", str(arguments.image_size)),
        *("--out", str(scratch / "run"), f"plan={plan}"),
        *("cache.mode=disk", "data.memory=0", "preprocessing.augment=none", "export=false"),
    ]


def watch(command: list[str], scratch: Path) -> dict[str, float]:
    """Run a command, with a feature cache of its own, and look at its memory while it runs."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    home = Path(environment.get("TLKIT_HOME", scratch / "nothing"))
    own = scratch / "home"
    own.mkdir()
    for part in home.glob("*"):
        if part.name not in ("features", "samples"):
            (own / part.name).symlink_to(part.resolve())
    environment["TLKIT_HOME"] = str(own)
    started = time.perf_counter()
    seen: list[tuple[bool, dict[str, float]]] = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            try:
                seen.append((is_training(scratch / "run"), memory_of(process)))
            except psutil.Error:
                break
            time.sleep(0.1)
    if running.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {running.returncode}")
    training = [values for is_on, values in seen if is_on]
    found: dict[str, float] = {"seconds": time.perf_counter() - started}
    for kind in KINDS:
        found[f"peak {kind}"] = max(values[kind] for _, values in seen)
        found[f"steady {kind}"] = statistics.median(values[kind] for values in training or [seen[-1][1]])
    return found


def is_training(run: Path) -> bool:
    """From the first epoch's line in the log to the saved model."""
    return any(run.glob("logs/*.csv")) and not (run / "model.keras").exists()


def memory_of(process: psutil.Process) -> dict[str, float]:
    info: Any = process.memory_info()
    mapped = getattr(info, "shared", 0)  # of Linux: pages of files
    return {"total": info.rss / MB, "anonymous": (info.rss - mapped) / MB, "mapped": mapped / MB}


if __name__ == "__main__":
    main()
