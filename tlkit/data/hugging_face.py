"""Data sets of Hugging Face's library `datasets`: written as records once, one example after the other."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlkit.data.content import watched
from tlkit.data.record_writer import write_records
from tlkit.data.rows import SPLIT_ALIASES, list_some, short_name
from tlkit.errors import ConfigError, DataError, FetchError
from tlkit.progress import make_console
from tlkit.zoo.cache import offline
from tlkit.zoo.datasets import keep_dataset

PREFIX = "datasets:"
_FORM = "datasets:OWNER/NAME, or datasets:OWNER/NAME#name=CONFIG&revision=COMMIT&splits=train,test"
_OPTIONS = ("name", "revision", "splits")
_VERSION = 1  # of what is written


def is_dataset(source: object) -> bool:
    """Whether `source` is an object of that library, which need not be there."""
    return any(kind.__module__.split(".")[0] == "datasets" for kind in type(source).__mro__)


def is_saved(folder: Path) -> bool:
    """Whether a folder is one that `save_to_disk` wrote."""
    if (folder / "dataset_dict.json").is_file():
        return True
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def rewrite_dataset(source: Any) -> Path:
    """The folder of records with the examples of `source`: a `Dataset`, a `DatasetDict`, a folder that
    `save_to_disk` wrote, or `datasets:OWNER/NAME`.

    They are written into the cache folder once, for as long as the library's fingerprint stays the same:
    pictures as they are, classes by their names. A split called `train`, `validation` or `test` is that
    split; a single one has no splits yet.

    Raises ConfigError where the library is not there or the address is wrong, DataError where there is no
    split to train on, FetchError where it cannot be loaded, StorageError.
    """
    library = _library()
    where, name, dataset = _open(source, library)
    splits = _splits(dataset, where, library)
    about = {split: [each._fingerprint, len(each), repr(each.features)] for split, each in splits.items()}

    def make(folder: Path) -> None:
        for split, each in splits.items():
            examples = watched(_examples(each, library), len(each), f"Writing {split or name}")
            write_records(examples, folder, split or "data")

    return keep_dataset(["datasets", _VERSION, about], name, {"source": where}, make)


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        datasets = None
    if not hasattr(datasets, "load_dataset"):  # a folder of that name is a module without anything in it
        raise ConfigError("Data sets of Hugging Face need the extra datasets: pip install 'tlkit[datasets]'")
    return datasets


def _open(source: Any, library: Any) -> tuple[str, str, Any]:
    """What it is called in messages, its short name, and the data set."""
    if not isinstance(source, str | Path):
        some = next(iter(source.values()), None) if isinstance(source, Mapping) else source
        name = getattr(getattr(some, "info", None), "dataset_name", None) or "dataset"
        return type(source).__name__, short_name(name), source
    text = str(source)
    if not text.startswith(PREFIX):
        path = Path(text).expanduser()
        try:
            return text, short_name(path.resolve().name), library.load_from_disk(str(path))
        except Exception as error:  # the library has no class of its own for what is wrong with a folder
            raise DataError(f"{text}: cannot be read as a saved data set: {_reason(error)}") from None
    name, dataset = _load(text)
    return text, name, dataset


@functools.lru_cache(maxsize=4)  # whoever asks again might be given another version
def _load(text: str) -> tuple[str, Any]:
    """The short name, and the data set at an address."""
    library = _library()
    address, options = _parse(text)
    chosen = options.pop("splits", "")
    try:
        with _offline_where_forbidden(library):
            dataset = library.load_dataset(address, **options)
    except Exception as error:  # nor for what can go wrong on the way to the hub
        why = " (TLKIT_OFFLINE forbids downloads)" if offline() else ""
        raise FetchError(f"{text} cannot be loaded{why}: {_reason(error)}") from None
    names = [split for split in chosen.split(",") if split]
    missing = [split for split in names if split not in dataset]
    if missing:
        raise DataError(
            f"{text}: there is no split {missing[0]!r}. Its splits: {list_some(list(dataset), 12)}."
        )
    if names:
        dataset = library.DatasetDict({split: dataset[split] for split in names})
    return short_name(address.split("/")[-1]), dataset


@contextmanager
def _offline_where_forbidden(library: Any) -> Iterator[None]:
    """No download where TLKIT_OFFLINE forbids it. No argument does that: `local_files_only` of its
    `DownloadConfig` is not looked at (datasets 5.2)."""
    before = library.config.HF_HUB_OFFLINE
    library.config.HF_HUB_OFFLINE = before or offline()
    try:
        yield
    finally:
        library.config.HF_HUB_OFFLINE = before


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    address, _, fragment = text.removeprefix(PREFIX).partition("#")
    options = dict(part.partition("=")[::2] for part in fragment.split("&") if part)
    wrong = [name for name in options if name not in _OPTIONS or not options[name]]
    if wrong or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", address):
        raise ConfigError(f"data.source: {text!r} is not of the form {_FORM}")
    return address, options


def _splits(dataset: Any, where: str, library: Any) -> dict[str, Any]:
    if isinstance(dataset, library.Dataset):
        return {"": dataset}
    if not isinstance(dataset, library.DatasetDict):
        raise DataError(
            f"{where} cannot be read as often as training needs. Expected a Dataset or a DatasetDict."
        )
    if len(dataset) == 1:
        return {"": next(iter(dataset.values()))}
    splits: dict[str, Any] = {}
    for name, each in dataset.items():
        splits.setdefault(SPLIT_ALIASES.get(name.lower(), ""), each)
    splits.pop("", None)
    if "train" not in splits:
        raise DataError(f"{where}: there is no split 'train', received: {list_some(list(dataset), 12)}.")
    used = {id(each) for each in splits.values()}
    others = [name for name, each in dataset.items() if id(each) not in used]
    if others:
        _say_once(f"{where}: not used: the splits {list_some(others, 12)}.")
    return splits


@functools.cache
def _say_once(line: str) -> None:
    make_console().print(line, highlight=False, soft_wrap=True)


def _examples(dataset: Any, library: Any) -> Iterator[dict[str, Any]]:
    """Examples as plain values: pictures as the bytes that they are, classes as names.

    Sound, video and the like are left out: to decode them may take libraries that are not here.
    """
    pictures = [name for name, feature in dataset.features.items() if isinstance(feature, library.Image)]
    decoded = [name for name, feature in dataset.features.items() if hasattr(feature, "decode_example")]
    if others := sorted(set(decoded) - set(pictures)):
        dataset = dataset.remove_columns(others)
    names = {name: _class_names(feature, library) for name, feature in dataset.features.items()}
    for name in pictures:
        dataset = dataset.cast_column(name, library.Image(decode=False))
    for example in dataset.with_format(None):
        values = {name: _named(value, names[name]) for name, value in example.items()}
        yield {**values, **{name: _bytes_of(values[name]) for name in pictures}}


def _class_names(feature: Any, library: Any) -> Sequence[str]:
    """Of a class or a list of classes."""
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    return inner.names if isinstance(inner, library.ClassLabel) else ()


def _named(value: Any, names: Sequence[str]) -> Any:
    if not names or value is None:
        return value
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if 0 <= value < len(names) else None  # -1 where nobody knows


def _bytes_of(picture: Any) -> bytes | None:
    if picture is None or picture["bytes"] is not None:
        return None if picture is None else picture["bytes"]
    try:
        return Path(picture["path"]).read_bytes()
    except OSError:
        return None  # a row without a picture, which the report names


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
