"""Open a SavedModel that may come from anywhere: hashed, looked through, and only then loaded."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from tlkit.backbones.saved_model_endpoint import Endpoint, make_endpoint
from tlkit.backbones.saved_model_scan import Findings, scan_saved_model
from tlkit.errors import ConfigError, FetchError, StorageError, TlkitError
from tlkit.zoo.hashing import hash_of_copy
from tlkit.zoo.saved_model_files import is_trusted, remember_trust

TF1_HUB_FILE = "tfhub_module.pb"


@dataclass(frozen=True, eq=False)
class OpenedSavedModel:
    """A loaded SavedModel.

    `folder` is a private copy of its files, which lives as long as this object: assets are read from it, and
    a run takes its own copy from there. `sha256` is theirs. `fine_tunes` is false where training cannot
    change anything in it: TensorFlow 1's format, or no trainable variables.
    """

    endpoint: Endpoint
    folder: Path
    sha256: str
    has_objects: bool

    @property
    def fine_tunes(self) -> bool:
        return self.has_objects and bool(self.endpoint.trainable)


def open_saved_model(folder: Path, sha256: str | None = None, *, trust: bool = False) -> OpenedSavedModel:
    """Load the SavedModel in `folder`, in the scope of the strategy that will train it.

    What is loaded is a copy that nobody else can change after it was hashed and looked through. `trust` lets
    a SavedModel load that holds operations which are not known to compute only, such as those that read files
    or run Python, and is remembered for its hash on this machine.

    Raises FetchError (another hash than `sha256`, damaged, or refused because of what it holds), ConfigError
    (it has nothing to call, or several replicas cannot hold it) and StorageError (no room for the copy).
    """
    copy, received = _copy(folder)
    try:
        if sha256 is not None and received != sha256:
            raise FetchError(
                f"The SavedModel {folder} has the sha256 {received}, expected {sha256}: it is another one, "
                "or was damaged"
            )
        findings = _scan(folder, copy)
        _require_harmless(folder, findings, received, trust)
        if not findings.has_objects and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ConfigError(
                f"The SavedModel {folder} is in the format of TensorFlow 1, which one device holds: use "
                "--strategy cpu or gpu"
            )
        endpoint = _load(folder, copy, findings)
    except BaseException:
        shutil.rmtree(copy.parent, ignore_errors=True)
        raise
    opened = OpenedSavedModel(endpoint, copy, received, findings.has_objects)
    weakref.finalize(opened, shutil.rmtree, copy.parent, ignore_errors=True)
    return opened


def _copy(folder: Path) -> tuple[Path, str]:
    try:
        copy = Path(tempfile.mkdtemp(prefix="tlkit-")) / "saved_model"  # only its owner may enter it
        return copy, hash_of_copy(folder, copy)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be copied to {tempfile.gettempdir()}, where it is used from: "
            f"{error.strerror or error}. Free some space or set TMPDIR to another folder"
        ) from error


def _scan(folder: Path, copy: Path) -> Findings:
    try:
        return scan_saved_model(copy)
    except FetchError as error:
        raise FetchError(f"{folder} holds a damaged SavedModel: {error}") from error


def _require_harmless(folder: Path, findings: Findings, sha256: str, trust: bool) -> None:
    if not findings.operations:
        return
    if trust:
        remember_trust(sha256)
    elif not is_trusted(sha256):
        raise FetchError(
            f"The SavedModel {folder} was refused: it holds {', '.join(findings.operations)}, which tlkit "
            "does not know as something that only computes; such can read or write files, run Python or use "
            "the network. If you trust whoever made it: --trust (trust=True)"
        )


def _load(folder: Path, copy: Path, findings: Findings) -> Endpoint:
    if findings.unknown_operations:
        importlib.import_module("tensorflow_text")  # registers its operations
    try:
        loaded = tf.saved_model.load(str(copy), tags=_tags(copy, findings))
        return make_endpoint(loaded, has_objects=findings.has_objects)
    except (TlkitError, MemoryError):
        raise
    except Exception as error:  # whatever a file that somebody else wrote can make TensorFlow stumble over
        missing = ", ".join(findings.unknown_operations)
        text = " ".join(str(error).replace(str(copy), str(folder)).split()) or type(error).__name__
        reason = "".join(letter for letter in text if letter.isprintable())[:300]
        hint = f" (it needs operations that TensorFlow lacks: {missing})" if missing else ""
        raise FetchError(f"The SavedModel {folder} cannot be loaded{hint}: {reason}") from error


def _tags(copy: Path, findings: Findings) -> list[str] | None:
    if findings.has_objects:
        return None
    if (copy / TF1_HUB_FILE).is_file():
        return []
    served = [tags for tags in findings.tag_sets if "serve" in tags]
    return list(sorted(served or findings.tag_sets, key=lambda tags: len(tags))[0])
