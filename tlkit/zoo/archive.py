"""Unpack an archive that came from outside: nothing is written elsewhere, and nothing grows without end."""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from tlkit.errors import FetchError, StorageError

MAX_FILES = 100_000
FREE_BYTES = 100_000_000  # that any archive may unpack to, however small it is
_CHUNK = 1 << 20
_LARGEST_READ = 1 << 24  # a tar header that asks for more at once wants the memory
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
    RuntimeError, ValueError, OverflowError, KeyError,
)  # fmt: skip


def unpack(archive: Path, to: Path, *, max_bytes: int, max_files: int, member: str = "") -> None:
    """Unpack a `.zip` (a wheel is one), `.tar` or `.tar.gz` into the new folder `to`: whole or not at all.

    The whole archive is refused where a file in it would leave `to`, is there twice, or is neither a file nor
    a folder (a link, a device), and where there are more than `max_files` files or more than `max_bytes`
    bytes: those are counted as they are written, whatever the archive says. Permissions and owners are not
    taken over. `member` is the one file, or with a trailing "/" the folder, that is written.

    Raises FetchError (refused, damaged, no such member) and StorageError (`to` cannot be written).
    """
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=to.parent) as scratch:
            inside = Path(scratch) / "unpacked"
            inside.mkdir()
            _Unpacking(archive, inside, max_bytes, max_files, member).run()
            inside.replace(to)
    except _BROKEN as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        raise StorageError(
            f"{archive.name} cannot be unpacked: {error.strerror or error}. Free some space, or set "
            "TLKIT_HOME to another folder"
        ) from error


def check_archive(archive: Path, *, max_bytes: int, max_files: int) -> None:
    """Raise what `unpack` would raise for what is in the archive. Nothing is written."""
    try:
        _Unpacking(archive, None, max_bytes, max_files, "").run()
    except _BROKEN as error:
        raise _damaged(archive, error) from error


def limit_for(archive: Path) -> int:
    """How many bytes an archive of this size may unpack to: files of weights and texts are far below."""
    return FREE_BYTES + 30 * archive.stat().st_size


class _Item(NamedTuple):
    """What an archive says about one of its members."""

    name: str
    kind: str  # "file", "folder", or what it is instead
    opened: Any  # gives the content of a file


class _Unpacking:
    def __init__(self, archive: Path, to: Path | None, max_bytes: int, max_files: int, member: str) -> None:
        self.archive, self.to, self.member = archive, to, "" if member == "/" else member
        self.max_bytes, self.max_files = max_bytes, max_files
        self.left = max_bytes

    def run(self) -> None:
        files: set[PurePosixPath] = set()
        folders: set[PurePosixPath] = set()
        written = 0
        for number, item in enumerate(self._items(), start=1):
            if number > self.max_files:
                raise self.refused(f"more than {self.max_files} files")
            path = self._checked(item)
            folders |= {path, *path.parents} if item.kind == "folder" else set(path.parents)
            if item.kind == "file":
                if path in files:
                    raise self.refused(f"{item.name!r} twice")
                files.add(path)
            if both := {path, *path.parents} & files & folders:
                raise self.refused(f"{str(both.pop())!r} both as a file and as a folder")
            if item.kind == "file" and self._wanted(str(path)):
                self._read(item, path)
                written += 1
        if self.member and not written:
            raise FetchError(f"{self.member!r} cannot be taken out of {self.archive.name}: it is not in it")

    def _items(self) -> Iterator[_Item]:
        with self.archive.open("rb") as file:
            if zipfile.is_zipfile(file):
                yield from _zip_items(file)
                return
            file.seek(0)
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream: Any = gzip.GzipFile(fileobj=file) if packed else file
            yield from _tar_items(_Bounded(stream, self))

    def _checked(self, item: _Item) -> PurePosixPath:
        path = PurePosixPath(item.name)
        drive = item.name[1:2] == ":"
        if path.is_absolute() or drive or ".." in path.parts or "\\" in item.name:
            raise self.refused(f"a file that would leave its folder: {item.name!r}")
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in item.name):
            raise self.refused(f"a name with control characters: {item.name!r}")
        if item.kind not in ("file", "folder"):
            raise self.refused(f"{item.kind}: {item.name!r}")
        if item.kind == "file" and not path.parts:
            raise self.refused(f"a file without a name: {item.name!r}")
        return path

    def _wanted(self, name: str) -> bool:
        return name.startswith(self.member) if self.member.endswith("/") else self.member in ("", name)

    def _read(self, item: _Item, path: PurePosixPath) -> None:
        """Write the item's content to its place; without a folder, only count it."""
        with item.opened() as packed:
            content: Any = _Counted(packed, self)
            if self.to is None:
                while content.read(_CHUNK):
                    pass
                return
            target = self.to / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                shutil.copyfileobj(content, file, _CHUNK)

    def count(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise self.refused(f"more than the {self.max_bytes:,} bytes that are allowed")

    def refused(self, what: str) -> FetchError:
        return FetchError(f"{self.archive.name} was refused: it holds {what}")


def _zip_items(file: IO[bytes]) -> Iterator[_Item]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
            kind = "folder" if info.is_dir() else _KINDS.get(mode, "a special file")
            # zipfile cuts a name at its first zero byte: what was meant stays visible
            yield _Item(info.orig_filename, kind, lambda info=info: archive.open(info))


def _tar_items(stream: Any) -> Iterator[_Item]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            kind = "a special file"
            if info.isreg():
                kind = "file"
            elif info.isdir():
                kind = "folder"
            elif info.issym() or info.islnk():
                kind = f"a link to {info.linkname!r}"
            elif info.isdev():
                kind = "a device"

            def opened(info: tarfile.TarInfo = info) -> AbstractContextManager[Any]:
                content = archive.extractfile(info)
                if content is None:
                    raise tarfile.TarError(f"{info.name!r} has no content")
                return content

            yield _Item(info.name, kind, opened)


_KINDS = {
    0: "file",  # written on a system without such kinds
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _Counted:
    """The content of one member, counted before it is written."""

    def __init__(self, packed: Any, unpacking: _Unpacking) -> None:
        self._packed, self._unpacking = packed, unpacking

    def read(self, size: int, /) -> bytes:
        chunk: bytes = self._packed.read(size)
        self._unpacking.count(len(chunk))
        return chunk


class _Bounded:
    """A tar stream that may not be much longer than what is allowed to be written, also where its files are
    skipped, and whose headers cannot ask for much memory."""

    def __init__(self, stream: Any, unpacking: _Unpacking) -> None:
        self._stream, self._unpacking = stream, unpacking
        self._limit = unpacking.max_bytes + 2048 * unpacking.max_files  # with headers and padding

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            raise self._unpacking.refused(f"a header of {size:,} bytes")
        content: bytes = self._stream.read(size)
        self._check(self.tell())
        return content

    def seek(self, position: int) -> int:
        self._check(position)
        return int(self._stream.seek(position))

    def tell(self) -> int:
        return int(self._stream.tell())

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise self._unpacking.refused(
                f"more than the {self._unpacking.max_bytes:,} bytes that are allowed"
            )


def _damaged(archive: Path, error: Exception) -> FetchError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return FetchError(f"{archive.name} is damaged, or no archive that tlkit reads: {reason}")
