"""Which files hold records, and which split each of them is."""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tlkit.data.rows import SPLIT_ALIASES, list_some
from tlkit.data.split_files import SPLIT_NAME
from tlkit.errors import DataError, StorageError

# x.tfrecord, x-00001-of-00010.tfrecord, x.tfrecord-00001-of-00010, x.tfrecord.gz, and x-00001-of-00010.
_RECORD_FILE = re.compile(
    r"(?P<stem>.+?)\.tfrec(?:ords?)?(?:-\d+-of-\d+)?(?:\.(?:gz|gzip|zlib))?|(?P<shard>[^.]+)-\d{5}-of-\d{5}",
    re.IGNORECASE,
)
_SHARD = re.compile(r"[-_.]\d+(?:[-_.]of[-_.]\d+)?$")
_GZIP, _CRC_POLYNOMIAL = b"\x1f\x8b", 0x82F63B78  # Castagnoli's


@dataclass(frozen=True)
class RecordFiles:
    """`splits`: split to files; the one split is "" where the files are not named after splits. `ignored` are
    files of records beside them that are."""

    splits: dict[str, tuple[Path, ...]]
    ignored: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(file for files in self.splits.values() for file in files)


def is_record_file(path: Path) -> bool:
    """Whether a file is one of records by its name."""
    return _RECORD_FILE.fullmatch(path.name) is not None


def is_pattern(place: Path) -> bool:
    """Whether `place` stands for several files: `photos/*.tfrecord`."""
    return glob.has_magic(str(place)) and not place.exists()


def pattern_in(folder: Path, pattern: str) -> Path:
    """A pattern for files in a folder, whatever the folder is called."""
    return Path(glob.escape(str(folder)), pattern)


def holds_records(folder: Path) -> bool:
    """Whether files of records lie in a folder."""
    return any(is_record_file(path) and path.is_file() for path in folder.iterdir())


def find_record_files(place: Path) -> RecordFiles:
    """The files of records that a file, a folder or a pattern means.

    In a folder, files that are named after splits (`train-00000-of-00002.tfrecord`, `photos-test.tfrecord-…`)
    are those splits where there is a `train`; else, and of a file or a pattern that has no second split, they
    are one set that has no splits yet.

    Raises DataError where there are none, or it cannot be told which belong together; StorageError.
    """
    try:
        if place.is_file():
            return RecordFiles({"": (place,)})
        files = _matching(place)
    except OSError as error:
        raise StorageError(f"Cannot read {place}: {error.strerror}.") from None
    if not files:
        raise DataError(f"{place}: no file is there.")
    found = _by_split(files, place)
    if is_pattern(place) and len(found.splits) == 1:
        return RecordFiles({"": tuple(files)})
    return found


def compression_of(path: Path) -> str:
    """How a file of records is compressed: "GZIP", "ZLIB" or "". Raises StorageError."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from None
    if len(head) < 12 or _checksum(head[:8]) == int.from_bytes(head[8:], "little"):
        return ""
    if head.startswith(_GZIP):
        return "GZIP"
    is_zlib = head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0  # RFC 1950
    return "ZLIB" if is_zlib else ""


def _matching(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(path for path in place.iterdir() if is_record_file(path) and path.is_file())
    found = map(Path, glob.glob(str(place), recursive=True))  # noqa: PTH207  Path.glob wants a folder to begin at
    return sorted(path for path in found if path.is_file())


def _by_split(files: list[Path], place: Path) -> RecordFiles:
    sets: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        match = SPLIT_NAME.fullmatch(_stem(path))
        if match is not None:
            own = sets[match["before"] or "", match["after"] or ""]
            own[SPLIT_ALIASES[match["split"].lower()]].append(path)
    whole = [splits for splits in sets.values() if "train" in splits]
    if len(whole) > 1:
        names = list_some([splits["train"][0].name for splits in whole])
        raise DataError(f"{place}: {len(whole)} sets of split files ({names}). Keep one in the folder.")
    if not whole:
        return RecordFiles({"": tuple(files)})
    chosen = {split: tuple(paths) for split, paths in whole[0].items()}
    kept = {path for paths in chosen.values() for path in paths}
    return RecordFiles(chosen, tuple(path for path in files if path not in kept))


def _stem(path: Path) -> str:
    """`photos-train` of `photos-train-00001-of-00010.tfrecord`."""
    match = _RECORD_FILE.fullmatch(path.name)
    stem = path.name.split(".")[0] if match is None else match["stem"] or match["shard"]
    return _SHARD.sub("", stem)


def _checksum(raw: bytes) -> int:
    """The masked CRC-32C that stands after the length of a record."""
    crc = 0xFFFFFFFF
    for byte in raw:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_CRC_POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    turned = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return (turned + 0xA282EAD8) & 0xFFFFFFFF
