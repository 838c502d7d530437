"""Which features of records hold the picture, the text and the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tlkit.config import Columns, DataConfig
from tlkit.data.record_scan import Feature
from tlkit.data.rows import list_some
from tlkit.errors import DataError

# What pictures and labels are called where nobody says; the first that is there counts.
PICTURES = ("image/encoded", "image", "img", "picture", "jpg", "jpeg", "png")
LABELS = ("label", "image/class/label", "labels", "fine_label")
DEFAULTS = Columns()

Features = Mapping[str, Feature]


def picture_feature(features: Features, spec: DataConfig, where: str) -> str:
    """The feature with the bytes of the picture: `spec.columns.path`, or else what looks like one.

    Raises DataError, with the features that there are, where there is none, or there are several.
    """
    named = spec.columns.path
    if named != DEFAULTS.path:
        return require_feature(features, named, "columns.path", where, kind="bytes")
    looking = [name for name, feature in features.items() if _looks_like_picture(feature)]
    if len(looking) == 1:
        return looking[0]
    usual = [name for name in PICTURES if name in (looking or features) and features[name].kind == "bytes"]
    if usual:
        return usual[0]
    which = (
        f"several features may be the picture ({list_some(looking)})" if looking else "there is no picture"
    )
    raise DataError(f"{where}: {which}: name its feature in data.columns.path. {_shown(features)}")


def label_features(features: Features, spec: DataConfig, where: str) -> tuple[str, ...]:
    """The features with the labels: `spec.columns.label`, or the usual names. Raises DataError."""
    named = spec.columns.label
    if named == DEFAULTS.label:
        usual = [name for name in LABELS if name in features]
        if usual:
            return (usual[0],)
    several = (named,) if isinstance(named, str) else named
    return tuple(require_feature(features, name, "columns.label", where) for name in several)


def kept_features(features: Features, spec: DataConfig, chosen: Sequence[str], where: str) -> tuple[str, ...]:
    """`chosen`, and what else of each record the config asks for: its weight, and what splits are made by.

    Raises DataError where one is not there.
    """
    others = {
        "columns.weight": spec.columns.weight,
        "split.group_by": spec.split.group_by,
        "split.stratify_by": spec.split.stratify_by,
    }
    more = [require_feature(features, name, key, where) for key, name in others.items() if name is not None]
    return tuple(dict.fromkeys((*chosen, *more)))


def require_feature(features: Features, name: str, key: str, where: str, kind: str | None = None) -> str:
    """`name`. Raises DataError, with the features that there are, where it is missing or of another kind."""
    if name not in features:
        raise DataError(f"{where}: there is no feature {name!r} (data.{key}). {_shown(features)}")
    if kind is not None and features[name].kind != kind:
        raise DataError(
            f"{where}: the feature {name!r} (data.{key}) should hold {kind}, received "
            f"{features[name].kind}. {_shown(features)}"
        )
    return name


def are_texts(features: Features, spec: DataConfig) -> bool:
    """Whether records hold texts: by the names that the config gives, or else by what is in them."""
    columns = spec.columns
    if columns.path != DEFAULTS.path:
        return False
    if any(getattr(columns, key) != getattr(DEFAULTS, key) for key in ("text", "text_b", "tokens")):
        return True
    if any(_looks_like_picture(feature) for feature in features.values()):
        return False
    return columns.text in features or columns.tokens in features


def _looks_like_picture(feature: Feature) -> bool:
    return feature.kind == "bytes" and _begins_like_picture(feature.values[0])


def _begins_like_picture(raw: bytes) -> bool:
    if raw.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8")):
        return True
    is_webp = raw[:4] == b"RIFF" and raw[8:12] == b"WEBP"
    is_bmp = raw[:2] == b"BM" and raw[6:10] == bytes(4)  # a text may begin with BM
    return is_webp or is_bmp


def _shown(features: Features) -> str:
    named = [f"{name} ({feature.kind})" for name, feature in features.items()]
    return f"Its features: {list_some(named, 12) or 'none'}."
