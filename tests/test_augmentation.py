"""Augmentation: Keras's pictures, drawn as a function of each example's seeds alone."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pydantic
import pytest
import tensorflow as tf

from tlkit.config import PreprocessingConfig
from tlkit.config.augment import AUGMENTATIONS, POLICIES, parse_augment, resolve_augment
from tlkit.errors import ConfigError
from tlkit.preprocessing import from_callable, make_augment, make_preprocessing
from tlkit.preprocessing.draws import fold_in, uniform
from tlkit.preprocessing.rand_augment import StatelessSeed, make_operations
from tlkit.zoo.entry import ImageInput

SIZE = 24


def samples(count: int = 6) -> tf.Tensor:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    smooth = np.stack([10 * rows, 10 * columns, 120 + 5 * rows - 5 * columns], axis=-1)
    noise = np.random.default_rng(0).integers(0, 20, (count, SIZE, SIZE, 3))
    return tf.constant((smooth + noise).clip(0, 255).astype(np.uint8))


def seeds(count: int = 6, epoch: int = 0) -> tf.Tensor:
    return tf.stack(
        [tf.fill((count,), tf.constant(epoch, tf.int64)), tf.range(count, dtype=tf.int64)], axis=1
    )


def augment(config: Any, pictures: tf.Tensor, with_seeds: tf.Tensor) -> np.ndarray:
    return make_augment(resolve_augment(parse_augment(config)))(pictures, with_seeds).numpy()


def fixed(config: dict[str, Any], pictures: tf.Tensor) -> np.ndarray:
    """With ranges of one point, where nothing is left to draw."""
    return augment([config], pictures, seeds(len(pictures))).astype(np.float64)


def by_keras(layer: Any, pictures: tf.Tensor, transformation: dict[str, Any]) -> np.ndarray:
    return np.asarray(layer.transform_images(tf.cast(pictures, tf.float32), transformation, training=True))


OF_PICTURES = [name for name, kind in AUGMENTATIONS.items() if kind.modality == "image"]
EVERYTHING = [*({name: {}} for name in OF_PICTURES)]


@pytest.mark.parametrize("config", [*OF_PICTURES, "default", EVERYTHING], ids=str)
def test_result_depends_on_nothing_but_sample_and_seeds(config: Any) -> None:
    change = make_augment(resolve_augment(parse_augment(config)))
    pictures, with_seeds = samples(6), seeds(6)
    together = change(pictures, with_seeds).numpy()
    assert together.dtype == np.uint8
    assert together.shape == pictures.shape
    assert (together != pictures.numpy()).any()
    order = [4, 0, 5]
    assert np.array_equal(change(tf.gather(pictures, order), tf.gather(with_seeds, order)), together[order])
    assert np.array_equal(change(pictures[3:4], with_seeds[3:4])[0], together[3])
    assert np.array_equal(tf.function(change)(pictures, with_seeds), together)
    other_epoch = change(pictures, seeds(6, epoch=1)).numpy()
    assert (other_epoch != together).any()


def test_parallel_pipelines_repeat_each_other_and_the_sequential_one() -> None:
    change = tf.function(
        make_augment(resolve_augment(parse_augment(EVERYTHING)))
    )  # so that it is traced once
    pictures, with_seeds = samples(8), seeds(8)

    def run(parallel: int) -> np.ndarray:
        dataset = tf.data.Dataset.from_tensor_slices((pictures, with_seeds)).batch(2)
        return np.concatenate(list(dataset.map(change, num_parallel_calls=parallel).as_numpy_iterator()))

    first = run(4)
    assert np.array_equal(run(4), first)
    assert np.array_equal(run(1), first)


def test_draws_are_pinned() -> None:
    # A change of these numbers changes every augmented run.
    reference = _reference_uniform(seed=(7, 2**40 + 3), count=3)
    ours = uniform(tf.constant([[7, 2**40 + 3]], tf.int64), 3)[0]
    assert ours.numpy().tolist() == reference
    traced = tf.function(lambda pair: uniform(pair, 3))
    assert traced(tf.constant([[7, 2**40 + 3]], tf.int64))[0].numpy().tolist() == reference
    assert uniform(tf.constant([[-1, -(2**63)]], tf.int64), 1).numpy()[0, 0] == pytest.approx(
        _reference_uniform((-1, -(2**63)), 1)[0], abs=0
    )


def _reference_uniform(seed: tuple[int, int], count: int) -> list[float]:
    """The draws once more, in Python's own integers."""
    golden, limit = 0x9E3779B97F4A7C15, 2**64

    def mix(value: int) -> int:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            value = (value ^ (value >> shift)) * factor % limit
        return value ^ (value >> 31)

    base = mix((seed[0] % limit + golden) % limit)
    base = mix(((base ^ seed[1] % limit) + golden) % limit)
    base = mix((base + golden) % limit)
    return [(mix((base + (place + 1) * golden) % limit) >> 11) * 2.0**-53 for place in range(count)]


def test_draws_are_even_and_independent() -> None:
    count = 4000
    for first in (seeds(count), tf.reverse(seeds(count), [1]), fold_in(seeds(count), 1)):
        draws = uniform(first, 3).numpy()
        assert draws.min() >= 0
        assert draws.max() < 1
        # Five standard deviations of a mean of uniform numbers, and of a correlation of independent ones.
        assert np.abs(draws.mean(axis=0) - 0.5).max() < 5 * math.sqrt(1 / 12 / count)
        neighbours = [np.corrcoef(draws[1:, 0], draws[:-1, 0]), np.corrcoef(draws.T)]
        assert max(np.abs(matrix - np.eye(len(matrix))).max() for matrix in neighbours) < 5 / math.sqrt(count)


def test_flips_come_half_of_the_time_each_way_on_its_own() -> None:
    count = 2000
    picture = tf.constant(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3))
    corner = augment("flips", tf.repeat(picture, count, axis=0), seeds(count))[:, 0, 0, 0]
    shares = np.bincount(corner // 3, minlength=4) / count
    # Four outcomes of equal chance; five standard deviations of a share.
    assert np.abs(shares - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / count)


@pytest.mark.parametrize("mode", ["horizontal", "vertical"])
def test_flip_is_kerass(mode: str) -> None:
    pictures = samples(40)
    ours = augment([{"random_flip": {"mode": mode}}], pictures, seeds(40))
    flipped = np.array([not np.array_equal(one, other) for one, other in zip(ours, pictures, strict=True)])
    assert 0 < flipped.sum() < 40
    transformation = {"flips": tf.reshape(flipped, (40, 1, 1, 1)), "input_shape": (40, SIZE, SIZE, 3)}
    assert np.array_equal(ours, by_keras(keras.layers.RandomFlip(mode), pictures, transformation))


@pytest.mark.parametrize("fill_mode", ["reflect", "constant", "wrap", "nearest"])
@pytest.mark.parametrize("factor", [0.23, 0.04, -0.11])
def test_rotation_is_kerass(factor: float, fill_mode: str) -> None:
    pictures = samples(2)
    config = {"factor": (factor, factor), "fill_mode": fill_mode, "fill_value": 90.0}
    layer = keras.layers.RandomRotation(**config)
    theirs = by_keras(layer, pictures, layer.get_random_transformation(pictures, training=True))
    assert _levels_apart(fixed({"random_rotation": config}, pictures), theirs) <= 1


@pytest.mark.parametrize(("height", "width"), [(0.3, None), (-0.3, None), (0.2, -0.4)])
def test_zoom_is_kerass(height: float, width: float | None) -> None:
    pictures = samples(2)
    widths = None if width is None else (width, width)
    layer = keras.layers.RandomZoom((height, height), widths)
    theirs = by_keras(layer, pictures, layer.get_random_transformation(pictures, training=True))
    config = {"height_factor": (height, height), "width_factor": widths}
    assert _levels_apart(fixed({"random_zoom": config}, pictures), theirs) <= 1


def test_translation_is_kerass() -> None:
    pictures = samples(2)
    config = {"height_factor": (0.13, 0.13), "width_factor": (-0.3, -0.3), "fill_mode": "constant"}
    layer = keras.layers.RandomTranslation(**config)
    theirs = by_keras(layer, pictures, layer.get_random_transformation(pictures, training=True))
    assert _levels_apart(fixed({"random_translation": config}, pictures), theirs) <= 1


def test_contrast_is_kerass() -> None:
    pictures = samples(2)
    layer = keras.layers.RandomContrast((0.0, 0.0))
    theirs = by_keras(layer, pictures, {"contrast_factor": tf.constant(1.0)})
    assert _levels_apart(fixed({"random_contrast": {"factor": (0, 0)}}, pictures), theirs) == 0
    ours = augment([{"random_contrast": {"factor": (0.8, 0.6)}}], pictures, seeds(2)).astype(np.float64)
    for picture, changed, pair in zip(pictures, ours, seeds(2), strict=True):
        factor = 0.2 + 1.4 * uniform(fold_in(pair[None], 0), 1)[0, 0]
        theirs = by_keras(layer, picture[None], {"contrast_factor": tf.cast(factor, tf.float32)})
        assert _levels_apart(changed[None], theirs) <= 1


def test_brightness_is_kerass() -> None:
    pictures, layer = samples(2), keras.layers.RandomBrightness(0.4)
    theirs = by_keras(layer, pictures, {"rgb_delta": tf.constant(-0.3 * 255)})
    assert _levels_apart(fixed({"random_brightness": {"factor": (-0.3, -0.3)}}, pictures), theirs) <= 1


def test_crop_keeps_a_square_of_the_given_area() -> None:
    count = 200
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    ramp = np.stack([10 * rows, 10 * columns, 0 * rows], axis=-1).astype(np.uint8)
    cropped = augment(
        [{"random_crop": {"scale": (0.25, 0.25)}}], tf.constant(np.stack([ramp] * count)), seeds(count)
    ).astype(float)
    down, right = cropped[:, :, 0, 0], cropped[:, 0, :, 1]
    # Half the side: neighbours are half a pixel apart, so 5 levels. A square at the very edge begins a
    # quarter of a pixel before the middle of the first, where the picture is flat: 2.5 levels less, and one
    # for the rounding at both ends.
    for ends in (down, right):
        assert np.abs(ends[:, -1] - ends[:, 0] - 5 * (SIZE - 1)).max() <= 2.5 + 1
    assert down[:, 0].min() < 10 < 100 < down[:, 0].max()
    assert abs(np.corrcoef(down[:, 0], right[:, 0])[0, 1]) < 5 / math.sqrt(count)


def test_noise_has_the_standard_deviation_that_is_asked_for() -> None:
    grey = tf.fill((20, SIZE, SIZE, 3), tf.constant(128, tf.uint8))
    noise = augment([{"gaussian_noise": {"stddev": 8.0}}], grey, seeds(20)).astype(float) - 128
    count = noise.size
    # Rounding adds a variance of 1/12. Five standard deviations of a standard deviation and of a mean.
    assert abs(noise.std() - math.sqrt(64 + 1 / 12)) < 5 * 8 / math.sqrt(2 * count)
    assert abs(noise.mean()) < 5 * 8 / math.sqrt(count)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 5 / math.sqrt(noise[0].size)


def test_rand_augment_draws_each_of_kerass_operations_about_equally_often() -> None:
    operations = make_operations(0.5)
    names = [type(operation).__name__ for operation in operations]
    assert len(set(names)) == 11
    count = 4000
    places = np.floor(uniform(seeds(count), 1).numpy() * len(names)).astype(int)
    shares = np.bincount(places[:, 0], minlength=len(names)) / count
    assert np.abs(shares - 1 / 11).max() < 5 * math.sqrt(1 / 11 * 10 / 11 / count)


def test_rand_augment_applies_the_operation_that_it_drew() -> None:
    pictures, with_seeds = samples(12), seeds(12)
    ours = augment([{"rand_augment": {"num_ops": 1, "factor": 0.3}}], pictures, with_seeds)
    operations, own_seeds = make_operations(0.3), fold_in(with_seeds, 0)
    choices = np.floor(uniform(own_seeds, 1).numpy() * len(operations)).astype(int)[:, 0]
    assert len(set(choices)) > 3
    for row, choice in enumerate(choices):
        picture = tf.cast(pictures[row : row + 1], tf.float32)
        operation_seed = fold_in(own_seeds[row : row + 1], 0)[0]
        drawn = operations[choice].get_random_transformation(
            picture, training=True, seed=StatelessSeed(operation_seed)
        )
        theirs = operations[choice].transform_images(picture, drawn, training=True)
        assert _levels_apart(ours[row : row + 1].astype(float), np.asarray(theirs)) <= 1


def test_same_augmentation_twice_draws_twice() -> None:
    pictures = samples(40)
    once = augment([{"random_flip": {"mode": "horizontal"}}], pictures, seeds(40))
    twice = augment([{"random_flip": {"mode": "horizontal"}}] * 2, pictures, seeds(40))
    # The same draw twice would undo itself in all of them.
    assert 0 < sum((one == other).all() for one, other in zip(twice, pictures.numpy(), strict=True)) < 40
    assert (once != twice).any()


def test_neighbouring_movements_are_interpolated_once() -> None:
    pictures = samples(1)
    there_and_back = [{"random_rotation": {"factor": (turn, turn)}} for turn in (0.1, -0.1)]
    assert _levels_apart(augment(there_and_back, pictures, seeds(1)).astype(float), pictures.numpy()) <= 1
    between = [there_and_back[0], {"random_brightness": {"factor": 0.0}}, there_and_back[1]]
    assert _levels_apart(augment(between, pictures, seeds(1)).astype(float), pictures.numpy()) > 1


def test_movements_apply_in_the_order_given() -> None:
    pictures = samples(1)
    turn = {"random_rotation": {"factor": (0.25, 0.25), "fill_mode": "constant"}}
    shift = {
        "random_translation": {"height_factor": (0, 0), "width_factor": (0.25, 0.25), "fill_mode": "constant"}
    }
    apart = fixed(shift, tf.cast(fixed(turn, pictures), tf.uint8))
    assert _levels_apart(augment([turn, shift], pictures, seeds(1)).astype(float), apart) <= 1
    assert _levels_apart(augment([shift, turn], pictures, seeds(1)).astype(float), apart) > 1


def test_no_augmentation_leaves_samples_as_they_are() -> None:
    assert np.array_equal(augment("none", samples(), seeds()), samples())


@pytest.mark.parametrize("policy", POLICIES)
def test_preprocessing_carries_the_policy(policy: str) -> None:
    ours = make_preprocessing(
        ImageInput(image_size=SIZE, min_image_size=16), PreprocessingConfig(augment=policy)
    )
    changed = ours.augment(samples(), seeds()).numpy()
    assert np.array_equal(changed, augment(policy, samples(), seeds()))
    assert np.array_equal(changed, samples()) == (policy == "none")


def test_functions_and_keras_layers_become_augmentations() -> None:
    double = from_callable(lambda pictures: tf.cast(pictures, tf.float32) * 2 - 20.4)
    expected = np.clip(np.rint(samples().numpy().astype(np.float32) * 2 - 20.4), 0, 255)
    assert np.array_equal(double(samples(), seeds()), expected)
    layer = from_callable(keras.layers.RandomFlip("horizontal", seed=1))
    dataset = tf.data.Dataset.from_tensors((samples(), seeds())).map(layer)
    assert next(iter(dataset)).dtype == tf.uint8
    with pytest.raises(ConfigError, match=r"must keep the shape \(6, 24, 24, 3\), received \(6, 12, 24, 3\)"):
        from_callable(lambda pictures: pictures[:, ::2])(samples(), seeds())


def test_config_takes_policies_names_and_lists() -> None:
    assert PreprocessingConfig(augment=None).augment == "none"
    config = PreprocessingConfig(augment=["random_flip", {"random_zoom": {"height_factor": [-0.2, 0.1]}}])
    dumped = config.model_dump(mode="json")
    assert dumped["augment"][1]["random_zoom"]["height_factor"] == [-0.2, 0.1]
    assert PreprocessingConfig.model_validate(dumped) == config
    assert parse_augment("random_flip") == parse_augment([{"random_flip": None}]) == POLICIES["flips"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("flps", "unknown policy 'flps'. Did you mean 'flips'?"),
        ("random_flp", "Did you mean 'random_flip'?"),
        ([{"random_rotaton": {}}], "unknown augmentation 'random_rotaton'. Did you mean 'random_rotation'?"),
        ([{"random_flip": {"mod": "vertical"}}], "random_flip.mod: unknown option. Did you mean 'mode'?"),
        (
            [{"random_zoom": {"height_factor": 3}}],
            "random_zoom.height_factor: input should be less than or equal",
        ),
        ([{"random_crop": {"scale": [0.9, 0.2]}}], "scale must go from low to high, received [0.9, 0.2]"),
        ([{"random_crop": [1, 2]}], "random_crop: its options must be a mapping, received [1, 2]"),
        ([5], "item 0 must be a name, or a name with its options, received 5"),
        (7, "must be a policy's name, none, or a list of augmentations, received 7"),
    ],
)
def test_config_mistakes_are_named(value: Any, message: str) -> None:
    with pytest.raises(pydantic.ValidationError) as raised:
        PreprocessingConfig(augment=value)
    assert message in str(raised.value)


def test_config_names_all_mistakes_together() -> None:
    with pytest.raises(ValueError, match=r"'random_rotaton'.*; random_flip\.mode: .*received 'up'"):
        parse_augment([{"random_rotaton": {}}, {"random_flip": {"mode": "up"}}])


def _levels_apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max())
