"""Examples in the formats that people have and tests forget: grey, transparent, rotated, CMYK …"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

ROTATED_RIGHT = 6
LARGEST_SIDE = 512  # encoding a large picture in eight formats would take longer than the check itself


def add_odd_pictures(examples: Sequence[bytes], at_least: int = 32) -> list[tuple[str, bytes]]:
    """The examples, and copies of them in other formats: each format once, and more up to `at_least`.

    Returns:
        Pairs of a format's name (`as given` for the examples themselves, which come first) and a file.
    """
    given = [("as given", example) for example in examples]
    pictures = [_load(example) for example in examples] or [_make_picture(seed) for seed in range(4)]
    odd: list[tuple[str, bytes]] = []
    for turn in range(len(pictures)):
        for place, (name, encode) in enumerate(FORMATS.items()):
            if turn > 0 and len(given) + len(odd) >= at_least:
                return [*given, *odd]
            odd.append((name, encode(pictures[(turn + place) % len(pictures)])))
    return [*given, *odd]


def _grey_png(picture: Image.Image) -> bytes:
    return _save(picture.convert("L"), "PNG")


def _transparent_png(picture: Image.Image) -> bytes:
    width, height = picture.size
    alpha = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8), (height, width))
    with_alpha = picture.copy()
    with_alpha.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    return _save(with_alpha, "PNG")


def _cmyk_jpeg(picture: Image.Image) -> bytes:
    return _save(picture.convert("CMYK"), "JPEG")


def _rotated_jpeg(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = ROTATED_RIGHT
    return _save(picture, "JPEG", exif=exif)


def _webp(picture: Image.Image) -> bytes:
    return _save(picture, "WEBP")


def _gif(picture: Image.Image) -> bytes:
    return _save(picture, "GIF")


def _bmp(picture: Image.Image) -> bytes:
    return _save(picture, "BMP")


FORMATS: dict[str, Callable[[Image.Image], bytes]] = {
    "grey PNG": _grey_png,
    "transparent PNG": _transparent_png,
    "CMYK JPEG": _cmyk_jpeg,
    "rotated JPEG": _rotated_jpeg,
    "WebP": _webp,
    "GIF": _gif,
    "24-bit BMP": _bmp,
}


def _save(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _load(example: bytes) -> Image.Image:
    with Image.open(io.BytesIO(example)) as file:
        picture = file.convert("RGB")
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return picture


def _make_picture(seed: int) -> Image.Image:
    """Soft noise: where a run's own pictures are gone, the export can still be checked."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((120, 80), Image.Resampling.BICUBIC)
