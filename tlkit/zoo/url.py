"""Files on the web, with a pinned hash; where it is an archive, one member of it or all."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tlkit.errors import FetchError
from tlkit.zoo.archive import MAX_FILES, limit_for, unpack
from tlkit.zoo.cache import Progress, announced, forbidden, home, keep, offline
from tlkit.zoo.download import download, shown
from tlkit.zoo.hashing import hash_of
from tlkit.zoo.source import UrlSource


def fetch_url(source: UrlSource, progress: Progress | None = None) -> Path:
    """The file of `source`, or its member, downloaded into the cache folder at first use.

    Raises FetchError and StorageError.
    """
    return keep(url_path(source), url_pin(source), lambda scratch: _make(source, scratch, progress))


def url_path(source: UrlSource) -> Path:
    """Where the file or folder of `source` is, or will be, in the cache folder."""
    slot = source.sha256[:16]
    name = PurePosixPath(unquote(urlsplit(source.url).path)).name
    if source.member is not None:
        member = PurePosixPath(source.member)
        if (member.is_absolute() and source.member != "/") or ".." in member.parts or not member.parts:
            raise FetchError(f"A member of an archive must be a path inside it, received {source.member!r}")
        slot += f"-{hashlib.sha256(source.member.encode()).hexdigest()[:8]}"
        name = member.name or name.partition(".")[0]
    # Readers go by the ending; the rest of the name is the server's.
    return home() / "urls" / slot / (re.sub(r"[^\w.+-]+", "_", name).lstrip(".")[-100:] or "file")


def url_pin(source: UrlSource) -> str | None:
    """The hash that the zoo names for what is kept."""
    return source.sha256 if source.member is None else source.member_sha256


def _make(source: UrlSource, scratch: Path, progress: Progress | None) -> Path:
    """What is to be kept, in `scratch`."""
    where = shown(source.url)
    if offline():
        raise forbidden(where, url_path(source))
    file = scratch / "download"
    _download(source, file, where, progress)
    if source.member is None:
        return file
    with announced(progress, f"Unpacking {source.member} from {where}"):
        folder = scratch / "unpacked"
        unpack(file, folder, max_bytes=limit_for(file), max_files=MAX_FILES, member=source.member)
        member = folder if source.member == "/" else folder / source.member
        received = hash_of(member)
    if source.member_sha256 not in (None, received):
        raise FetchError(
            f"{source.member} in {where} has sha256 {received}, the zoo names {source.member_sha256}"
        )
    return member


def _download(source: UrlSource, file: Path, where: str, progress: Progress | None) -> None:
    line = f"Downloading {where}" + (f" ({source.size / 1e6:.0f} MB)" if source.size else "")
    if progress is not None:
        progress(line)
        download(source.url, file, sha256=source.sha256, size=source.size)
        return
    from tlkit.progress import byte_bar  # rich costs a tenth of a second, and listing the zoo needs none

    print(line, file=sys.stderr, flush=True)
    with byte_bar(f"Downloading {PurePosixPath(where).name}", source.size) as report:
        download(source.url, file, sha256=source.sha256, size=source.size, report=report)
