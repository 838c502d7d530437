"""What a resume needs, on the disk: numbered saves, each whole or not there, the last two of them kept.

A save is two files. `<number>.npz` holds arrays; `<number>.json`, written after it, holds everything else and
the hashes of both. What does not match its hashes is damaged, and the save before it is used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import ConfigError, StorageError
from tlkit.results.writing import write_text, writing

if TYPE_CHECKING:
    import numpy as np

VERSION = 1
KEPT = 2
SPARE = 2**20  # bytes, for the archive's own headers
_ARRAY, _SEQUENCE, _TABLE = "array", "sequence", "table"


@dataclass(frozen=True)
class Saves:
    """The saves in a folder, which may not exist yet."""

    folder: Path

    def write(self, tree: Any) -> None:
        """Add a save, and remove all but the last two.

        Args:
            tree: None, bool, int, float, str, NumPy arrays and scalars, in dicts by str, lists and tuples.

        Raises:
            StorageError: It cannot be written; the saves before are untouched.
        """
        import numpy as np

        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(_packed(tree, arrays))
        number = max(self._numbers("npz") + self._numbers("json"), default=0) + 1
        size = sum(array.nbytes for array in arrays.values()) + len(text) + SPARE
        with writing(self._file(number, "npz"), size) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
            hashes = {"arrays": _hash_file(temporary), "tree": _hash(text)}
        about = json.dumps({"version": VERSION, "sha256": hashes, "tree": text})
        try:
            write_text(self._file(number, "json"), about)
        except StorageError:
            self._remove(number)  # arrays alone are no save, and need the room that was missing
            raise
        self._keep_last()

    def read(self) -> tuple[Any, list[str]]:
        """The tree of the newest save that is whole (None: there is none), and why newer ones are not.

        Raises:
            StorageError: A file cannot be read now.
            ConfigError: Another version of tlkit wrote it.
        """
        damaged: list[str] = []
        for number in reversed(self._numbers("json")):
            try:
                return self._read(number), damaged
            except _Damaged as error:
                damaged.append(f"Save {number} in {self.folder} is damaged: {error}")
            except OSError as error:  # it may be whole, and readable tomorrow
                raise StorageError(f"Cannot read {self._file(number, 'json')}: {error.strerror}.") from None
        return None, damaged

    def remove_damaged(self) -> None:
        """Remove what is newer than the newest save that is whole: it would count as one of those that are
        kept. For whoever has read it, and goes on from there."""
        for number in reversed(self._numbers("json")):
            try:
                self._read_tree(number)
            except _Damaged:
                self._remove(number)
            except OSError:
                return
            else:
                return

    def clear(self) -> None:
        """Remove all of them."""
        for number in {*self._numbers("npz"), *self._numbers("json")}:
            self._remove(number)

    def _read(self, number: int) -> Any:
        import ml_dtypes  # noqa: F401  so that NumPy knows bfloat16 by its name
        import numpy as np

        tree = self._read_tree(number)
        with np.load(self._file(number, "npz"), allow_pickle=False) as arrays:
            return _unpacked(tree, arrays)

    def _read_tree(self, number: int) -> Any:
        """What stands beside the arrays of a save that is whole."""
        archive = self._file(number, "npz")
        try:
            about = json.loads(self._file(number, "json").read_bytes())
            version, tree = about["version"], str(about["tree"])
            of_tree, of_arrays = about["sha256"]["tree"], about["sha256"]["arrays"]
        except (ValueError, KeyError, TypeError):
            raise _Damaged(f"{number:06d}.json is not what a run writes") from None
        if version != VERSION:
            raise ConfigError(
                f"{self._file(number, 'json')} has the format {version}, and this version of tlkit reads "
                f"{VERSION}: go on with the version that wrote it, or start anew: --overwrite"
            )
        if not archive.exists():
            raise _Damaged(f"{archive.name} is not there")
        if _hash(tree) != of_tree:
            raise _Damaged(f"the hash of {number:06}.json is another")
        if _hash_file(archive) != of_arrays:
            raise _Damaged(f"the hash of {archive.name} is another")
        return json.loads(tree)

    def _keep_last(self) -> None:
        kept = self._numbers("json")[-KEPT:]
        for number in {*self._numbers("npz"), *self._numbers("json")} - {*kept}:
            self._remove(number)
        for cut_off in self.folder.glob(".*.partial*"):
            with suppress(OSError):
                cut_off.unlink()

    def _remove(self, number: int) -> None:
        for kind in ("json", "npz"):  # the file that makes it a save first
            with suppress(OSError):
                self._file(number, kind).unlink()

    def _numbers(self, kind: str) -> list[int]:
        """The numbers of the files of a kind; arrays without JSON are of a save that was never finished."""
        return sorted(int(file.stem) for file in self.folder.glob(f"*.{kind}") if file.stem.isdigit())

    def _file(self, number: int, kind: str) -> Path:
        return self.folder / f"{number:06d}.{kind}"


def is_plain(value: Any) -> bool:
    """Whether a save can hold a value."""
    try:
        _packed(value, {})
    except (TypeError, RecursionError):
        return False
    return True


def _packed(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """As JSON, with arrays by name."""
    import numpy as np

    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic | np.ndarray):
        array = np.asarray(value)
        if array.dtype.hasobject or array.dtype.names is not None:
            raise TypeError("an array of Python objects, or of records")
        name = str(len(arrays))
        # NumPy's format forgets what dtypes of other packages (bfloat16) are called.
        arrays[name] = array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array
        return {_ARRAY: name, "dtype": array.dtype.name, "scalar": isinstance(value, np.generic)}
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if type(value) in (list, tuple):
        return {
            _SEQUENCE: [_packed(item, arrays) for item in value],
            "of": "list" if isinstance(value, list) else "tuple",
        }
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {_TABLE: {key: _packed(item, arrays) for key, item in value.items()}}
    raise TypeError(f"{type(value).__name__} cannot be saved")


def _unpacked(value: Any, arrays: Mapping[str, Any]) -> Any:
    import numpy as np

    if not isinstance(value, dict):
        return value
    if _ARRAY in value:
        array = arrays[value[_ARRAY]]
        if array.dtype.name != value["dtype"] and not value["dtype"].startswith("str"):
            array = array.view(np.dtype(value["dtype"]))
        return array[()] if value["scalar"] else array
    if "float" in value:
        return float(value["float"])
    if _SEQUENCE in value:
        items = [_unpacked(item, arrays) for item in value[_SEQUENCE]]
        return items if value["of"] == "list" else tuple(items)
    return {key: _unpacked(item, arrays) for key, item in value[_TABLE].items()}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Damaged(Exception):
    """A save is not what was written."""
