"""Write an entry into the user's own zoo file: as text, so that comments and everything else stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tlkit.errors import ConfigError, StorageError
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.registry import parse_zoo

NEW_FILE = (
    "# Backbones of one's own, over those that tlkit brings. The fields: tlkit zoo info NAME\n\nentries:\n"
)


def write_entry(path: Path, entry: ZooEntry, *, overwrite: bool = False) -> None:
    """Add `entry` to the zoo file `path`, which is made where there is none.

    The file is written whole, and read first as if it were there: what was in it stays as it was. Two
    processes that add at once wait for each other. Raises ConfigError when an entry of that name is there
    (unless `overwrite`), when the file is no valid zoo, or cannot be added to without changing the rest;
    StorageError when it cannot be written.
    """
    from tlkit.results import write_text  # here: it loads more than listing the zoo needs

    path = path.resolve()
    with _alone_in(path.parent):
        text = _read(path)
        there = {known.name: known for known in parse_zoo(text, path)}
        if entry.name in there and not overwrite:
            raise ConfigError(
                f"{path} has an entry {entry.name!r} already: choose another name, or --overwrite"
            )
        new = _insert(text, entry, path)
        wanted = {**there, entry.name: entry}
        try:
            same = {known.name: known for known in parse_zoo(new, path)} == wanted
        except ConfigError:
            same = False
        if not same:
            raise _by_hand(path, entry)
        mode = path.stat().st_mode if path.exists() else None
        write_text(path, new)
        if mode is not None:
            with suppress(OSError):
                path.chmod(mode)


def entry_text(entry: ZooEntry) -> str:
    """The entry as it stands in a zoo file, without indentation."""
    fields = {key: value for key, value in entry.to_dict().items() if key != "name" and value not in ([], {})}
    dumped: str = yaml.dump(
        {entry.name: fields}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000
    )
    return dumped


class _Dumper(yaml.SafeDumper):
    """Lists on one line, as in tlkit's own zoo file."""

    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process adds to a zoo file in `folder`. The folder itself is locked: a file for it
    would be left in the user's working folder."""
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StorageError(f"The folder {folder} cannot be used: {error.strerror}") from error
    try:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    if not path.exists():
        return ""
    try:
        return path.read_bytes().decode("utf-8")  # as it is: the ends of its lines, too
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})") from error


def _insert(text: str, entry: ZooEntry, path: Path) -> str:
    """The text with the entry in it: in the place of one with its name, else after the last."""
    if not text.strip():
        return NEW_FILE + _indented(entry, 2)
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = text.splitlines(keepends=True)
    if not lines[-1].endswith(("\n", "\r")):
        lines[-1] += "\n"
    key, entries = _find(root, "entries")
    if root is None or key is None:
        if root is not None and root.flow_style:
            raise _by_hand(path, entry)
        return "".join(lines) + "\nentries:\n" + _indented(entry, 2)
    if isinstance(entries, yaml.ScalarNode):  # nothing yet
        if entries.tag != "tag:yaml.org,2002:null":
            raise _by_hand(path, entry)
        if not entries.value:
            return _spliced(lines, key.end_mark.line + 1, key.end_mark.line + 1, _indented(entry, 2))
    if isinstance(entries, yaml.ScalarNode) or entries.flow_style:
        is_empty = isinstance(entries, yaml.ScalarNode) or not entries.value
        if not is_empty or entries.start_mark.line != entries.end_mark.line:
            raise _by_hand(path, entry)
        line = lines[key.end_mark.line]
        kept = line[: entries.start_mark.column].rstrip() + line[entries.end_mark.column :]
        return _spliced(lines, key.end_mark.line, key.end_mark.line + 1, kept + _indented(entry, 2))
    block = _indented(entry, entries.value[0][0].start_mark.column)
    own_key, own = _find(entries, entry.name)
    if own_key is not None:
        return _spliced(lines, own_key.start_mark.line, _last_line(own_key, own) + 1, block)
    after = _last_line(*entries.value[-1]) + 1
    return _spliced(lines, after, after, block)


def _find(mapping: Any, name: str) -> tuple[Any, Any]:
    pairs = mapping.value if isinstance(mapping, yaml.MappingNode) else ()
    return next(((key, value) for key, value in pairs if key.value == name), (None, None))


def _last_line(key: Any, node: Any) -> int:
    """The number of the last line of a value. An alias stands on its key's line, whatever it stands for."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        inside = _last_line(*last) if isinstance(node, yaml.MappingNode) else _last_line(last, last)
    else:
        # The end of a block scalar is where the next line begins.
        inside = node.end_mark.line - (
            getattr(node, "style", None) in ("|", ">") and node.end_mark.column == 0
        )
    return max(int(key.end_mark.line), int(inside)) if key is not node else int(inside)


def _spliced(lines: list[str], start: int, end: int, block: str) -> str:
    newline = "\r\n" if any(line.endswith("\r\n") for line in lines) else "\n"
    return "".join([*lines[:start], block.replace("\n", newline), *lines[end:]])


def _indented(entry: ZooEntry, columns: int) -> str:
    return "".join(" " * columns + line for line in entry_text(entry).splitlines(keepends=True))


def _by_hand(path: Path, entry: ZooEntry) -> ConfigError:
    return ConfigError(
        f"{path} is written in a way that {entry.name!r} cannot be added to without changing the rest. Add "
        "the entry by hand (tlkit zoo add … --dry-run prints it)"
    )
