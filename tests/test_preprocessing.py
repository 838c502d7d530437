"""Refusals, resizing, scaling, arrays, and one result in every mode of TensorFlow."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_preprocessing_formats import HEIGHT, WIDTH, bmp_32, exif, rgb, rgb_array, rgba, save

from tlkit.config import PreprocessingConfig
from tlkit.errors import ConfigError, DataError
from tlkit.preprocessing import ImagePreprocessing, make_preprocessing, sniff, to_rgb, why_refused
from tlkit.preprocessing.decoding import decode_picture
from tlkit.zoo.entry import ImageInput, Scaling

CAFFE = Scaling(mean=(103.939, 116.779, 123.68), std=(1.0, 2.0, 4.0), order="bgr")


def preprocessing(
    size: int = 32, resize: str = "stretch", scaling: Scaling | None = None
) -> ImagePreprocessing:
    return ImagePreprocessing(size, resize, scaling or Scaling())


def bmp_header(bits: int, compression: int = 0, info_size: int = 40) -> bytes:
    info = struct.pack("<IiiHHIIiiII", info_size, 8, 8, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + info + bytes(1000)


def unusual_masks() -> bytes:
    raw = bmp_32(compression=3, alpha_mask=0)
    return raw[:54] + struct.pack("<III", 0xFF, 0xFF00, 0xFF0000) + raw[66:]


REFUSED = {
    "palette BMP": save(rgb().quantize(32), "BMP"),
    "palette BMP of grey": save(rgb().convert("L"), "BMP"),
    "palette BMP of 1 bit": save(rgb().convert("1"), "BMP"),
    "run-length BMP": bmp_header(8, compression=1),
    "run-length BMP of 4 bits": bmp_header(4, compression=2),
    "unusual BMP of 16 bits": bmp_header(16),
    "unusual BMP of OS/2": b"BM" + struct.pack("<IHHIIHHHH", 300, 0, 0, 26, 12, 8, 8, 1, 24) + bytes(300),
    "unusual BMP of other masks": unusual_masks(),
    "TIFF": save(rgb(), "TIFF"),
    "TIFF of the other byte order": b"MM\0*" + bytes(100),
    "HEIC or AVIF": b"\0\0\0\x18ftypheic" + bytes(100),
    "JPEG XL": b"\xff\x0a" + bytes(100),
    "JPEG 2000": save(rgb(), "JPEG2000"),
    "empty file": b"",
    "not an image": b"<html><body>404</body></html>",
    "not an image, but begins like a BMP": b"BMW is a maker of cars in Munich, and of motorcycles.",
    "not an image, but as short as a byte": b"\xff",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(name: str) -> None:
    raw, kind = REFUSED[name], name.split(" of ")[0].split(",")[0]
    assert sniff(raw) == kind
    reason = why_refused(raw)
    assert reason is not None
    assert "\n" not in reason
    assert kind in reason
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"is an? {kind}|is {kind}"):
        decode_picture(tf.constant(raw))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_accepted_kinds_are_not_refused(kind: str) -> None:
    raw = save(rgb(), kind)
    assert sniff(raw).upper() == kind
    assert why_refused(raw) is None


def whole_files() -> dict[str, bytes]:
    frames = {"save_all": True, "append_images": [rgb().rotate(90)]}
    return {
        "JPEG": save(rgb(), "JPEG"),
        "progressive JPEG": save(rgb(), "JPEG", progressive=True),
        "PNG": save(rgb(), "PNG"),
        "PNG with alpha": save(rgba(), "PNG"),
        "palette PNG": save(rgb().quantize(32), "PNG"),
        "WebP": save(rgb(), "WEBP"),
        "lossless WebP": save(rgb(), "WEBP", lossless=True),
        "animated WebP": save(rgb(), "WEBP", lossless=True, **frames),
        "BMP": save(rgb(), "BMP"),
        "GIF": save(rgb(), "GIF"),
    }


@pytest.mark.parametrize("name", whole_files())
def test_truncated_files_are_refused_wherever_they_end(name: str) -> None:
    raw, kind = whole_files()[name], name.split()[-1] if "with" not in name else "PNG"
    lost_bytes = [2, 3, 5, 9, 14, 40, len(raw) // 3, len(raw) // 2, len(raw) - 80, len(raw) - 20]
    for lost in lost_bytes:
        reason = why_refused(raw[:-lost])
        assert reason is not None, f"{lost} of {len(raw)} bytes lost"
        assert "\n" not in reason
    assert (
        why_refused(raw[: len(raw) // 2])
        == f"is a {kind} that is cut off ({len(raw) // 2:,} bytes): copy it again"
    )


def test_animated_gif_needs_no_more_than_its_first_frame() -> None:
    raw = save(rgb(), "GIF", save_all=True, append_images=[rgb().rotate(90)] * 3)
    cut = raw[: int(len(raw) * 0.8)]
    assert np.array_equal(decode_picture(tf.constant(cut)), decode_picture(tf.constant(raw)))


def test_broken_middle_is_refused() -> None:
    raw = bytearray(save(rgb(), "PNG"))
    raw[len(raw) // 2] ^= 0xFF
    reason = why_refused(bytes(raw))
    assert reason is not None
    assert reason.startswith("is a broken PNG: ")
    assert "node" not in reason


def test_checking_many_files_traces_once() -> None:
    from tlkit.preprocessing import checking

    for kind in ("JPEG", "PNG", "GIF"):
        why_refused(save(rgb(), kind))
    assert checking._traced_decode().experimental_get_tracing_count() == 1  # type: ignore[attr-defined]


def test_graph_eager_and_tf_data_give_the_identical_sample() -> None:
    ours = preprocessing(32, "crop")
    raw = tf.constant([save(rgb(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP")])
    eager = np.stack([ours.decode(one) for one in raw])
    assert eager.shape == (5, 32, 32, 3)
    assert eager.dtype == np.uint8
    assert np.array_equal(tf.function(ours.decode_batch)(raw), eager)
    dataset = tf.data.Dataset.from_tensor_slices(raw).map(ours.decode, num_parallel_calls=2)
    assert np.array_equal(np.stack(list(dataset)), eager)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_resizing_in_a_graph_is_resizing_eagerly(resize: str) -> None:
    ours, pictures = preprocessing(20, resize), tf.constant(rgb_array()[None])
    assert np.array_equal(tf.function(ours.resize_batch)(pictures), ours.resize_batch(pictures))


def test_saved_model_gives_the_identical_inputs(tmp_path: Path) -> None:
    ours = preprocessing(32, "crop", CAFFE)
    turned = save(rgb(), "JPEG", exif=b"Exif\0\0" + exif(6))
    raw = tf.constant([save(rgba(), "PNG"), turned, save(rgb(), "GIF")])
    module = tf.Module()
    module.serve = tf.function(ours.from_raw, input_signature=[tf.TensorSpec((None,), tf.string)])
    tf.saved_model.save(module, str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    assert np.array_equal(loaded.serve(raw), ours.from_raw(raw))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"palette BMP.*convert it to PNG"):
        loaded.serve(tf.constant([REFUSED["palette BMP"]]))
    assert loaded.serve(tf.zeros((0,), tf.string)).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_picture_that_has_the_size_is_not_touched(resize: str) -> None:
    square = rgb_array()[:32, :32]
    sample = preprocessing(32, resize).decode(tf.constant(save(Image.fromarray(square), "PNG")))
    assert np.array_equal(sample, square)


def test_stretch_equals_pillows_bilinear_reduction_within_one_level() -> None:
    # Pillow rounds after each of its two passes and keeps its weights in fixed point; ours rounds once.
    sample = preprocessing(32).decode(tf.constant(save(rgb(), "PNG"))).numpy().astype(int)
    pillow = np.asarray(rgb().resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(sample - pillow).max() <= 1


def test_crop_keeps_the_middle_square_in_proportion() -> None:
    sample = preprocessing(24, "crop").decode(tf.constant(save(rgb(), "PNG"))).numpy().astype(int)
    middle = rgb().crop((8, 0, 56, 48)).resize((24, 24), Image.Resampling.BILINEAR)
    assert np.abs(sample - np.asarray(middle).astype(int)).max() <= 1


def test_pad_keeps_everything_between_white_margins() -> None:
    sample = preprocessing(32, "pad").decode(tf.constant(save(rgb(), "PNG"))).numpy()
    assert (sample[:4] == 255).all()
    assert (sample[28:] == 255).all()
    whole = np.asarray(rgb().resize((32, 24), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(sample[4:28].astype(int) - whole).max() <= 1


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("sides", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_extreme_proportions_come_out_square(resize: str, sides: tuple[int, int]) -> None:
    grey = Image.new("RGB", sides, (90, 120, 150))
    sample = preprocessing(32, resize).decode(tf.constant(save(grey, "PNG"))).numpy()
    assert sample.shape == (32, 32, 3)
    assert (90, 120, 150) in {tuple(pixel) for pixel in sample.reshape(-1, 3).tolist()}


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_decoded_pictures_resize_as_encoded_ones_do(resize: str) -> None:
    ours, pictures = preprocessing(32, resize), np.stack([rgb_array(), rgb_array()[::-1]])
    raw = tf.constant([save(Image.fromarray(picture), "PNG") for picture in pictures])
    assert np.array_equal(ours.resize_batch(tf.constant(pictures)), ours.decode_batch(raw))


def test_encode_applies_mean_and_std_in_the_backbones_channel_order() -> None:
    samples = tf.constant(np.array([10, 20, 30], np.uint8).reshape(1, 1, 1, 3))
    assert preprocessing().encode(samples).numpy().ravel().tolist() == [10, 20, 30]
    expected = [(30 - 103.939) / 1, (20 - 116.779) / 2, (10 - 123.68) / 4]
    np.testing.assert_allclose(
        preprocessing(scaling=CAFFE).encode(samples).numpy().ravel(), expected, rtol=1e-6
    )


def test_from_raw_is_encode_after_decode() -> None:
    ours, raw = preprocessing(32, scaling=CAFFE), tf.constant([save(rgb(), "JPEG")])
    assert np.array_equal(ours.from_raw(raw), ours.encode(ours.decode(raw[0])[None]))


def test_image_size_comes_from_the_config_or_else_the_backbone() -> None:
    image_input = ImageInput(image_size=224, min_image_size=32)
    assert make_preprocessing(image_input, PreprocessingConfig()).image_size == 224
    chosen = make_preprocessing(image_input, PreprocessingConfig(image_size=96, resize="pad"))
    assert (chosen.image_size, chosen.resize) == (96, "pad")
    with pytest.raises(ConfigError, match=r"16 pixels is too small.* 32 or more"):
        make_preprocessing(image_input, PreprocessingConfig(image_size=16))


def test_arrays_of_every_layout_become_rgb() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    as_rgb = np.stack([grey] * 3, axis=-1)
    assert np.array_equal(to_rgb(grey), as_rgb)
    assert np.array_equal(to_rgb(grey[:, :, None]), as_rgb)
    assert np.array_equal(to_rgb(as_rgb), as_rgb)
    opaque = np.concatenate([as_rgb, np.full((3, 4, 1), 255, np.uint8)], axis=-1)
    assert np.array_equal(to_rgb(opaque), as_rgb)
    assert (to_rgb(opaque * np.array([1, 1, 1, 0], np.uint8)) == 255).all()
    assert np.array_equal(to_rgb(np.asarray(rgba())), decode_picture(tf.constant(save(rgba(), "PNG"))))


def test_arrays_of_floats_are_0_to_1_only_where_nothing_exceeds_1() -> None:
    assert to_rgb(np.array([[0.0, 0.5, 1.0]]))[0, :, 0].tolist() == [0, 128, 255]
    assert to_rgb(np.array([[0.0, 1.0, 254.6]]))[0, :, 0].tolist() == [0, 1, 255]
    assert to_rgb(np.array([[0, 1]], np.int64))[0, :, 0].tolist() == [0, 1]
    assert to_rgb(np.array([[True, False]]))[0, :, 0].tolist() == [255, 0]
    assert to_rgb(np.array([[0, 129, 65535]], np.uint16))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2)), r"received \(2, 2, 2\)"),
        (np.zeros((0, 4)), r"received \(0, 4\)"),
        (np.array([[np.nan]]), "NaN"),
        (np.array([[-1.0]]), "received -1 to -1"),
        (np.array([[300]]), "received 300 to 300"),
        (np.array([["a"]]), "dtype <U1"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_rgb(array)


def test_test_pictures_are_what_the_tests_say() -> None:
    assert rgb().size == (WIDTH, HEIGHT)
