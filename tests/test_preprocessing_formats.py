"""Every accepted kind of file comes out as the picture that Pillow shows, composited on white, upright."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageChops, ImageOps

from tlkit.preprocessing.decoding import decode_picture

HEIGHT, WIDTH = 48, 64


def rgb_array() -> np.ndarray:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = [columns * 255 / WIDTH, rows * 255 / HEIGHT, 128 + 100 * np.sin(columns / 9 + rows / 7)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def rgb() -> Image.Image:
    return Image.fromarray(rgb_array())


def rgba() -> Image.Image:
    picture = rgb()
    picture.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))))
    return picture


def save(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def seen_by_pillow(raw: bytes) -> np.ndarray:
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(raw)))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("RGB"))


def decode(raw: bytes) -> np.ndarray:
    picture = decode_picture(tf.constant(raw))
    assert picture.dtype == tf.uint8
    return picture.numpy()


def difference(raw: bytes) -> int:
    ours, theirs = decode(raw), seen_by_pillow(raw)
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())


def png(samples: np.ndarray, colour_type: int, bits: int, extra: bytes = b"") -> bytes:
    """A PNG written by hand, for the depths that Pillow does not write. `samples` are big-endian rows."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    body = (
        png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    make = struct.pack(order + "HHI4s", 0x010F, 2, 4, b"abc\0")
    turn = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 2) + make + turn + bytes(4)


def ycck_jpeg() -> bytes:
    """A YCCK JPEG: a CMYK one whose first three channels are YCbCr, declared so in its Adobe segment."""
    ycc = np.asarray(rgb().convert("YCbCr"))
    key = np.full((HEIGHT, WIDTH, 1), 200, np.uint8)
    raw = save(Image.fromarray(255 - np.concatenate([ycc, key], axis=-1), "CMYK"), "JPEG", quality=95)
    at = raw.index(b"Adobe") + 11
    assert raw[at] == 0
    return raw[:at] + b"\x02" + raw[at + 1 :]


def bmp_32(compression: int, alpha_mask: int) -> bytes:
    pixels = np.asarray(rgba())[::-1, :, [2, 1, 0, 3]].tobytes()
    header_size = 108 if compression == 3 else 40
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, alpha_mask) if compression == 3 else b""
    info = struct.pack(
        "<IiiHHIIiiII", header_size, WIDTH, HEIGHT, 1, 32, compression, len(pixels), 0, 0, 0, 0
    )
    header = (info + masks).ljust(header_size, b"\0")
    offset = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + pixels


def palette_picture() -> Image.Image:
    return rgb().quantize(32)


def small_first_frame_gif() -> bytes:
    """A canvas of 64 × 48 whose first frame covers 20 × 10 of it at (5, 7)."""
    raw = save(palette_picture().crop((0, 0, 20, 10)), "GIF")
    at = raw.index(b"\x2c" + bytes(4))
    raw = raw[:6] + struct.pack("<HH", WIDTH, HEIGHT) + raw[10:]
    return raw[: at + 1] + struct.pack("<HH", 5, 7) + raw[at + 5 :]


def lossless() -> dict[str, bytes]:
    turned = rgb().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return {
        "png": save(rgb(), "PNG"),
        "png grey": save(rgb().convert("L"), "PNG"),
        "png 1 bit": save(rgb().convert("1"), "PNG"),
        "png palette": save(palette_picture(), "PNG"),
        "png palette of 4 bits": save(rgb().quantize(16), "PNG", bits=4),
        "png grey, one shade transparent": save(rgb().convert("L"), "PNG", transparency=100),
        "png rgb, one colour transparent": save(rgb(), "PNG", transparency=tuple(rgb_array()[5, 5].tolist())),
        "png animated": save(rgb(), "PNG", save_all=True, append_images=[turned]),
        "png with Exif": save(rgb(), "PNG", exif=exif(6)),
        "webp lossless": save(rgb(), "WEBP", lossless=True),
        "webp animated": save(rgb(), "WEBP", lossless=True, save_all=True, append_images=[turned]),
        "webp with Exif": save(rgb(), "WEBP", lossless=True, exif=exif(6)),
        "bmp": save(rgb(), "BMP"),
        "bmp 32 bits, alpha unused": bmp_32(compression=0, alpha_mask=0),
        "bmp 32 bits, masks without alpha": bmp_32(compression=3, alpha_mask=0),
        "gif": save(rgb(), "GIF"),
        "gif animated": save(rgb(), "GIF", save_all=True, append_images=[turned]),
        "gif with transparency": save(palette_picture(), "GIF", transparency=3),
        "gif animated, with transparency and comment": save(
            palette_picture(),
            "GIF",
            transparency=3,
            save_all=True,
            append_images=[turned],
            comment=b"x" * 700,
        ),
    }


def translucent() -> dict[str, bytes]:
    return {
        "png rgba": save(rgba(), "PNG"),
        "png grey and alpha": save(rgba().convert("LA"), "PNG"),
        "png palette with alphas": save(palette_picture(), "PNG", transparency=bytes([0, 90, 200] * 4)),
        "webp lossless with alpha": save(rgba(), "WEBP", lossless=True, exact=True),
        "webp lossy with alpha": save(rgba(), "WEBP", quality=90),
        "webp animated with alpha": save(
            rgba(), "WEBP", lossless=True, save_all=True, append_images=[rgba()]
        ),
        "bmp 32 bits with alpha": bmp_32(compression=3, alpha_mask=0xFF000000),
    }


def lossy() -> dict[str, bytes]:
    return {
        "jpeg": save(rgb(), "JPEG", quality=90),
        "jpeg full chroma": save(rgb(), "JPEG", quality=90, subsampling=0),
        "jpeg progressive": save(rgb(), "JPEG", quality=90, progressive=True),
        "jpeg grey": save(rgb().convert("L"), "JPEG"),
        "jpeg cmyk": save(rgb().convert("CMYK"), "JPEG", quality=95),
        "jpeg ycck": ycck_jpeg(),
        "webp lossy": save(rgb(), "WEBP", quality=90),
    }


@pytest.mark.parametrize("name", lossless())
def test_lossless_kinds_equal_pillow_exactly(name: str) -> None:
    assert difference(lossless()[name]) == 0


@pytest.mark.parametrize("name", translucent())
def test_translucent_kinds_equal_pillow_within_one_level(name: str) -> None:
    # Pillow's compositing works in integers and rounds twice; ours rounds once.
    assert difference(translucent()[name]) <= 1


@pytest.mark.parametrize("name", lossy())
def test_lossy_kinds_equal_pillow(name: str) -> None:
    # Both build on libjpeg-turbo and libwebp with the accurate transform and smooth chroma: no difference was
    # seen. CMYK is multiplied out by either side: one rounding each for ink and for black.
    assert difference(lossy()[name]) <= (2 if "cmyk" in name or "ycck" in name else 1)


def test_cmyk_jpeg_without_adobes_mark_is_not_inverted() -> None:
    marked = save(rgb().convert("CMYK"), "JPEG", quality=95)
    inverted = save(ImageChops.invert(rgb().convert("CMYK")), "JPEG", quality=95)
    start = inverted.index(b"\xff\xee")
    unmarked = inverted[:start] + inverted[start + 16 :]
    # The same ink, compressed once as it is and once as its negative.
    assert np.abs(decode(unmarked).astype(int) - decode(marked).astype(int)).mean() < 2


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_upright(orientation: int, order: str) -> None:
    raw = save(rgb(), "JPEG", quality=90, exif=b"Exif\0\0" + exif(orientation, order))
    assert difference(raw) == 0
    upright = decode(save(rgb(), "JPEG", quality=90))
    assert np.array_equal(decode(raw), upright) == (orientation == 1)


def test_exif_is_found_after_other_segments() -> None:
    raw = save(rgb(), "JPEG", exif=b"Exif\0\0" + exif(8), comment=b"\xff\xe1Exif\0\0" * 9)
    start = raw.index(b"\xff\xe1")
    profile = b"\xff\xe2" + struct.pack(">H", 40002) + bytes(40000)
    assert difference(raw[:start] + profile + b"\xff" + raw[start:]) == 0


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    raw = save(rgb(), "JPEG", exif=b"Exif\0\0" + exif(orientation))
    assert np.array_equal(decode(raw), decode(save(rgb(), "JPEG")))


@pytest.mark.parametrize("damage", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"XX*\0\x08\0\0\0", exif(6)[:20]])
def test_damaged_exif_is_ignored(damage: bytes) -> None:
    segment = b"\xff\xe1" + struct.pack(">H", 8 + len(damage)) + b"Exif\0\0" + damage
    raw = save(rgb(), "JPEG")
    assert np.array_equal(decode(raw[:2] + segment + raw[2:]), decode(raw))


def test_16_bit_grey_png_is_rounded_to_8_bits() -> None:
    wide = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 21).astype(">u2")
    expected = np.rint(wide / 257.0).astype(np.uint8)
    assert np.array_equal(decode(png(wide, colour_type=0, bits=16)), np.stack([expected] * 3, axis=-1))


def test_16_bit_rgb_and_rgba_png_are_rounded_to_8_bits() -> None:
    wide = (rgb_array().astype(np.uint32) * 251 + 77).astype(">u2")
    assert np.array_equal(decode(png(wide, colour_type=2, bits=16)), np.rint(wide / 257.0))
    alpha = np.full((HEIGHT, WIDTH, 1), 257 * 100, ">u2")
    blended = np.rint(wide / 257.0) * 100 / 255 + 155
    ours = decode(png(np.concatenate([wide, alpha], axis=-1).astype(">u2"), colour_type=6, bits=16))
    assert np.abs(ours - blended).max() <= 0.5 + 1e-6


def test_16_bit_png_with_a_transparent_colour_compares_all_16_bits() -> None:
    wide = np.array([[1000, 1001]], ">u2")
    raw = png(wide, colour_type=0, bits=16, extra=png_chunk(b"tRNS", struct.pack(">H", 1001)))
    assert decode(raw)[0, :, 0].tolist() == [4, 255]


def test_4_bit_grey_png_with_a_transparent_shade() -> None:
    raw = png(np.array([[0x37]], np.uint8), 0, 4, extra=png_chunk(b"tRNS", struct.pack(">H", 7)))
    raw = raw.replace(raw[16:29], struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0))
    raw = raw[:29] + struct.pack(">I", zlib.crc32(raw[12:29])) + raw[33:]
    assert decode(raw)[0, :, 0].tolist() == [3 * 17, 255]


def test_frame_smaller_than_its_gif_is_surrounded_by_white() -> None:
    raw = small_first_frame_gif()
    picture = decode(raw)
    frame = seen_by_pillow(save(palette_picture().crop((0, 0, 20, 10)), "GIF"))
    assert np.array_equal(picture[7:17, 5:25], frame)
    picture[7:17, 5:25] = 255
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert (picture == 255).all()


def test_upside_down_bmp() -> None:
    raw = save(rgb(), "BMP")
    flipped = raw[:22] + struct.pack("<i", -HEIGHT) + raw[26:]
    assert np.array_equal(decode(flipped), rgb_array()[::-1])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_bytes_after_the_picture_do_no_harm(kind: str) -> None:
    raw = save(rgb(), kind)
    assert np.array_equal(decode(raw + b"trailing bytes"), decode(raw))
