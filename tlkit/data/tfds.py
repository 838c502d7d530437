"""Data sets of TensorFlow Datasets, whose files are records: nothing is copied."""

from __future__ import annotations

import hashlib
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tlkit.errors import ConfigError, FetchError, TlkitError
from tlkit.places import require_local
from tlkit.zoo.cache import offline
from tlkit.zoo.datasets import one_at_a_time

PREFIX = "tfds:"
_FORMAT = "tfrecord"


def prepare_tfds(text: str) -> Path:
    """The folder of records of `tfds:NAME`, `tfds:NAME:VERSION` or `tfds:NAME/CONFIG:VERSION`.

    It is where TFDS keeps its data (`TFDS_DATA_DIR`); what is not there is downloaded and prepared, by one
    process at a time.

    Raises ConfigError where the library is not there, the data was prepared in another format, or is kept on
    an object store; FetchError where there is no such data set, or it cannot be had; StorageError.
    """
    library, name = _library(), text.removeprefix(PREFIX)
    try:
        builder = library.builder(name, file_format=_FORMAT)
        require_local(builder.data_dir, "What TFDS prepares (TFDS_DATA_DIR)")
        folder = Path(builder.data_dir)
        if not (folder / "dataset_info.json").is_file():
            if offline():
                raise FetchError(f"{text} is not in {folder.parent} and TLKIT_OFFLINE forbids downloads")
            builder = _prepared(library, name, folder)
        written = builder.info.file_format
    except TlkitError:
        raise
    except Exception as error:  # every data set has code of its own, which raises what it likes
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise FetchError(f"{text} cannot be had: {reason}") from None
    if written is not None and written.value != _FORMAT:
        raise ConfigError(
            f"{text} was prepared as {written.value} in {folder}, and tlkit reads {_FORMAT}: "
            f"tfds build {name} --file_format={_FORMAT} --data_dir=ANOTHER, and set TFDS_DATA_DIR to it"
        )
    return folder


def _prepared(library: Any, name: str, folder: Path) -> Any:
    """The builder, once its data is there. What TFDS prints on the way does not go among results."""
    key = f"tfds-{hashlib.sha256(str(folder).encode()).hexdigest()[:24]}"
    with one_at_a_time(key, f"{PREFIX}{name}"), redirect_stdout(sys.stderr):
        builder = library.builder(name, file_format=_FORMAT)  # it looks whether somebody was faster
        builder.download_and_prepare()
    return builder


def _library() -> Any:
    try:
        import tensorflow_datasets
    except ImportError:
        raise ConfigError("Data sets of TFDS need the extra tfds: pip install 'tlkit[tfds]'") from None
    return tensorflow_datasets
