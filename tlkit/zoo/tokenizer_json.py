"""Vocabulary files out of a tokenizer.json, which is all that newer versions of transformers write."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tlkit.errors import FetchError, StorageError
from tlkit.zoo.cache import home
from tlkit.zoo.hashing import hash_of_file
from tlkit.zoo.safetensors_files import read_json

FILE = "tokenizer.json"


def vocabulary_folder(folder: Path, files: tuple[str, ...]) -> Path:
    """The folder that holds `files`: `folder`, or one made from its tokenizer.json in the cache folder.

    Raises FetchError where they cannot be made, StorageError where the cache folder cannot be written.
    """
    if all((folder / name).is_file() for name in files):
        return folder
    contents = make_files(folder, files)
    target = home() / "vocabularies" / hash_of_file(folder / FILE)[:16]
    if all((target / name).is_file() for name in files):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".make-", dir=target.parent) as scratch:
            for name, content in contents.items():
                (Path(scratch) / name).write_text(content, encoding="utf-8", newline="\n")
            shutil.copytree(scratch, target, dirs_exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The cache folder {home()} cannot be used: {error.strerror or error}. "
            "Free some space or set TLKIT_HOME to another folder"
        ) from error
    return target


def make_files(folder: Path, files: tuple[str, ...]) -> dict[str, str]:
    """The contents of vocabulary files by their names, from the tokenizer.json in `folder`.

    There are those of WordPiece and of byte pairs; a SentencePiece model cannot be made of it.
    Raises FetchError, which names what is missing.
    """
    missing = next(name for name in files if not (folder / name).is_file())
    if not (folder / FILE).is_file():
        raise FetchError(f"{folder} has no {missing}, the vocabulary of its family")
    content = read_json(folder / FILE)
    model = content.get("model")
    kind = model.get("type") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or _FILES.get(str(kind)) != files:
        raise FetchError(
            f"{folder} has no {missing}, and its {FILE} ({kind}) cannot stand in for it: "
            f"copy {missing} from the model that it was made from"
        )
    return _MAKERS[str(kind)](model, _numbers(content, folder), folder)


def _numbers(content: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Token → number, special ones included."""
    try:
        numbers = dict(content["model"]["vocab"])
        numbers |= {added["content"]: added["id"] for added in content.get("added_tokens") or ()}
    except (KeyError, TypeError, ValueError) as error:
        raise FetchError(f"{folder / FILE} has no readable vocabulary") from error
    if not numbers or not all(isinstance(number, int) and number >= 0 for number in numbers.values()):
        raise FetchError(f"{folder / FILE} has no readable vocabulary")
    return numbers


def _wordpiece(model: Mapping[str, Any], numbers: Mapping[str, int], folder: Path) -> dict[str, str]:
    if model.get("continuing_subword_prefix", "##") != "##":
        raise FetchError(f"{folder / FILE} marks the parts of words other than with ##")
    tokens = {number: token for token, number in numbers.items()}
    size = max(tokens) + 1
    if size > 2 * len(tokens) or any("\n" in token for token in numbers):
        raise FetchError(f"The vocabulary in {folder / FILE} cannot be written as a list of tokens")
    # A number without a token (the list had a token twice) gets one that no text can hold.
    lines = [tokens.get(number, f"[gap {number}]") for number in range(size)]
    return {"vocab.txt": "".join(f"{line}\n" for line in lines)}


def _byte_pairs(model: Mapping[str, Any], numbers: Mapping[str, int], folder: Path) -> dict[str, str]:
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges") or ()]
    lines = "".join(f"{pair}\n" for pair in merges)
    return {"vocab.json": json.dumps(numbers, ensure_ascii=False), "merges.txt": f"#version: 0.2\n{lines}"}


_FILES = {"WordPiece": ("vocab.txt",), "BPE": ("vocab.json", "merges.txt")}
_MAKERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, int], Path], dict[str, str]]] = {
    "WordPiece": _wordpiece,
    "BPE": _byte_pairs,
}
