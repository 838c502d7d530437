"""Files that are named after a split: `train.csv`, `dev.csv`, `test.csv`, or `en_train.csv` and so on."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from tlkit.data.rows import SPLIT_ALIASES, list_some
from tlkit.errors import DataError

SPLIT_NAME = re.compile(
    rf"(?:(?P<before>.+)[_-])?(?P<split>{'|'.join(SPLIT_ALIASES)})(?:[_-](?P<after>.+))?", re.IGNORECASE
)
_PLAIN = ("", "")


def find_split_files(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Split to file; empty where there is no set of such files with a `train`.

    A set shares what stands before and after the split's name ("en_" in `en_train.csv`). Files named after
    nothing but the split win; a set of other names has two splits or more.

    Raises DataError where two files mean one split, and where there are several sets.
    """
    sets: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for path in sorted(folder.iterdir()):
        match = SPLIT_NAME.fullmatch(path.name.split(".")[0])
        if match is None or not path.name.lower().endswith(endings):
            continue
        files = sets[match["before"] or "", match["after"] or ""]
        split = SPLIT_ALIASES[match["split"].lower()]
        if split in files:
            raise DataError(
                f"{folder}: {files[split].name!r} and {path.name!r} both mean the {split} split: keep one."
            )
        files[split] = path
    if "train" in sets[_PLAIN]:
        return sets[_PLAIN]
    whole = [files for files in sets.values() if "train" in files and len(files) > 1]
    if len(whole) > 1:
        names = list_some([files["train"].name for files in whole])
        raise DataError(f"{folder}: {len(whole)} sets of split files ({names}). Keep one in the folder.")
    return whole[0] if whole else {}
