"""How an exported model takes pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tlkit.config.head import Objective
from tlkit.exporting.answers import name_answers
from tlkit.exporting.odd_pictures import add_odd_pictures
from tlkit.exporting.signatures import Batch, Interface, Signature, Tensors, make_batches
from tlkit.preprocessing import ImagePreprocessing
from tlkit.preprocessing.kinds import ACCEPTED, REFUSED

DECODED = 8

IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")
IMAGE = tf.TensorSpec([None, None, None, 3], tf.uint8, name="image")

RESIZE = {
    "stretch": "stretched to the square",
    "crop": "scaled to cover the square, and its middle cut out",
    "pad": "scaled to fit into the square, and padded",
}


def picture_interface(
    preprocessing: ImagePreprocessing,
    predict: Callable[[Any], tf.Tensor],
    objective: Objective,
    classes: Sequence[str],
    examples: Sequence[bytes],
) -> Interface:
    """`serving_default` takes `image_bytes`, strings (N,), the bytes of one image file each; `tensor` takes
    `image`, uint8 (N, h, w, 3), RGB. Both give what `name_answers` does.

    Both are compared on `examples`, image files, and on what `add_odd_pictures` makes of them.
    """

    def serve_bytes(image_bytes: tf.Tensor) -> Tensors:
        return name_answers(predict(preprocessing.from_raw(image_bytes)), objective, classes)

    def serve_tensor(image: tf.Tensor) -> Tensors:
        inputs = preprocessing.encode(preprocessing.resize_batch(image))
        return name_answers(predict(inputs), objective, classes)

    files = add_odd_pictures(examples)
    by_bytes = make_batches(files, lambda some: {"image_bytes": tf.constant(some, tf.string)})
    decoded = [_decode(file) for _, file in files[-DECODED:]]
    by_tensor = [Batch({"image": tf.constant(picture[None])}, ("decoded picture",)) for picture in decoded]
    none = Batch({"image": tf.zeros((0, 8, 8, 3), tf.uint8)}, ())
    return Interface(
        signatures={
            "serving_default": Signature((IMAGE_BYTES,), serve_bytes, by_bytes),
            "tensor": Signature((IMAGE,), serve_tensor, (*by_tensor, none)),
        },
        measured="serving_default",
        modules=(),
        trackables=(),
        description=_describe(preprocessing),
        requests={
            "serving_default": {"instances": [{"image_bytes": {"b64": "<the file's bytes in base64>"}}]},
            "tensor": {
                "signature_name": "tensor",
                "instances": [{"image": [[[255, 255, 255], [0, 0, 0]], [[255, 0, 0], [0, 0, 255]]]}],
            },
        },
    )


def _describe(preprocessing: ImagePreprocessing) -> dict[str, Any]:
    scaling = preprocessing.scaling
    return {
        "inputs": {
            "serving_default": {
                "image_bytes": {
                    "dtype": "string",
                    "shape": [None],
                    "meaning": "the bytes of one image file each; nothing is to be done to them first",
                    "accepted": list(ACCEPTED),
                    "refused": dict(REFUSED),
                    "notes": "Exif rotation is applied, transparency is composited on white, of an animation "
                    "the first frame is taken. One refused file refuses the whole batch.",
                }
            },
            "tensor": {
                "image": {
                    "dtype": "uint8",
                    "shape": [None, None, None, 3],
                    "meaning": "decoded RGB pictures of one size, 0 to 255",
                }
            },
        },
        "inside": {
            "image_size": preprocessing.image_size,
            "resize": f"{preprocessing.resize}: the picture is {RESIZE[preprocessing.resize]}",
            "scaling": {
                "formula": "(x - mean) / std per channel, x from 0 to 255",
                "mean": list(scaling.mean),
                "std": list(scaling.std),
                "order": scaling.order,
            },
        },
    }


def _decode(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as picture:
        return np.asarray(picture.convert("RGB"))
