"""Batches: every example once per epoch, the same in every run, whatever the parallelism."""

import numpy as np
import pytest
import tensorflow as tf

from tlkit.config import PreprocessingConfig
from tlkit.data import Examples, Share, count_steps, make_pipeline, order_of_epoch
from tlkit.preprocessing import make_preprocessing
from tlkit.zoo.entry import ImageInput

SIZE = 16
COUNT = 23


@pytest.fixture(autouse=True)
def _seeded_keras():
    """Nothing here draws from Keras, and seeding it makes TensorFlow build the decoder again in each test."""


def make_small_preprocessing(augment):
    image_input = ImageInput(image_size=SIZE, min_image_size=8)
    return make_preprocessing(image_input, PreprocessingConfig(image_size=SIZE, augment=augment))


@pytest.fixture(scope="module")
def preprocessing():
    return make_small_preprocessing(["random_flip", "random_brightness"])


@pytest.fixture(scope="module")
def plain():
    return make_small_preprocessing("none")


def make_examples(count: int = COUNT) -> Examples:
    """Targets are the numbers of the examples."""
    samples = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)
    ids = np.array([f"example-{number}" for number in range(count)])
    return Examples(ids, None, samples, np.arange(count, dtype=np.int32))


def batches_of(dataset: tf.data.Dataset) -> list[tuple[np.ndarray, ...]]:
    return list(dataset.as_numpy_iterator())


def pictures_by_number(batches) -> dict[int, np.ndarray]:
    return {
        int(number): picture
        for inputs, targets, *_ in batches
        for picture, number in zip(inputs, targets, strict=True)
    }


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for values, others in zip(one, other, strict=True):
            np.testing.assert_array_equal(values, others)


def train(examples, preprocessing, **options):
    options = {"global_batch_size": 5, "seed": 7, **options}
    return make_pipeline(examples, preprocessing, training=True, **options)


def test_every_epoch_has_every_example_once_in_another_order(plain):
    batches = batches_of(train(make_examples(), plain, epochs=3))
    steps = count_steps(COUNT, 5)
    assert len(batches) == 3 * steps == 15
    orders = []
    for epoch in range(3):
        ours = batches[epoch * steps : (epoch + 1) * steps]
        assert [len(targets) for _, targets in ours] == [5, 5, 5, 5, 3]
        orders.append(np.concatenate([targets for _, targets in ours]).tolist())
        assert sorted(orders[-1]) == list(range(COUNT))
    assert orders[0] != orders[1] != orders[2]


def test_pictures_stay_with_their_targets(plain):
    examples = make_examples()
    found = pictures_by_number(batches_of(train(examples, plain)))
    for number, picture in found.items():
        np.testing.assert_array_equal(picture, plain.encode(examples.samples[number : number + 1])[0])


def test_two_runs_are_identical(preprocessing):
    examples = make_examples()
    assert_same(
        batches_of(train(examples, preprocessing, epochs=2)),
        batches_of(train(examples, preprocessing, epochs=2)),
    )


def test_parallelism_does_not_change_the_pictures(preprocessing):
    examples = make_examples()
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    alone = train(examples, preprocessing, epochs=2).with_options(options)
    assert_same(batches_of(alone), batches_of(train(examples, preprocessing, epochs=2)))


def test_batch_size_and_stage_change_the_batches_but_no_picture(preprocessing):
    examples = make_examples()
    expected = pictures_by_number(batches_of(train(examples, preprocessing)))
    for options in ({"global_batch_size": 4}, {"stage": 1}):
        found = pictures_by_number(batches_of(train(examples, preprocessing, **options)))
        assert list(found) != list(expected) or "global_batch_size" in options
        for number, picture in expected.items():
            np.testing.assert_array_equal(found[number], picture)


def test_augmentation_differs_between_epochs_seeds_and_examples(preprocessing):
    examples = make_examples()
    examples = Examples(examples.ids, None, np.repeat(examples.samples[:1], COUNT, axis=0), examples.targets)
    first = pictures_by_number(batches_of(train(examples, preprocessing)))
    assert len({picture.tobytes() for picture in first.values()}) > COUNT // 2
    for options in ({"first_epoch": 1}, {"seed": 8}):
        other = pictures_by_number(batches_of(train(examples, preprocessing, **options)))
        assert sum(not np.array_equal(other[number], first[number]) for number in first) > COUNT // 2


def test_a_later_epoch_can_be_started_without_the_ones_before(preprocessing):
    examples = make_examples()
    steps = count_steps(COUNT, 5)
    whole = batches_of(train(examples, preprocessing, epochs=3))
    assert_same(batches_of(train(examples, preprocessing, epochs=1, first_epoch=2)), whole[2 * steps :])


def test_order_is_a_function_of_seed_stage_and_epoch(plain):
    order = order_of_epoch(COUNT, 7, 1, 2).numpy()
    batches = batches_of(train(make_examples(), plain, stage=1, first_epoch=2))
    assert np.concatenate([targets for _, targets in batches]).tolist() == order.tolist()
    others = [
        order_of_epoch(COUNT, *key).numpy().tolist() for key in ((8, 1, 2), (7, 0, 2), (7, 1, 3), (1, 7, 2))
    ]
    assert order.tolist() not in others


def test_without_training_the_examples_come_in_order_and_as_they_are(preprocessing):
    examples = make_examples()
    batches = batches_of(
        make_pipeline(examples, preprocessing, global_batch_size=10, training=False, epochs=4)
    )
    assert np.concatenate([targets for _, targets in batches]).tolist() == list(range(COUNT))
    np.testing.assert_array_equal(
        np.concatenate([inputs for inputs, _ in batches]), preprocessing.encode(examples.samples).numpy()
    )


def test_decoding_in_each_epoch_gives_the_pictures_that_the_cache_holds(preprocessing, tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (9, 30, 41, 3)).astype(np.uint8)
    paths, samples = [], []
    for number, picture in enumerate(pictures):
        raw = (tf.io.encode_jpeg if number % 2 else tf.io.encode_png)(picture)
        tf.io.write_file(str(tmp_path / str(number)), raw)
        paths.append(str(tmp_path / str(number)))
        samples.append(preprocessing.decode(raw).numpy())
    ids, targets = np.array([f"{number}" for number in range(9)]), np.arange(9, dtype=np.int32)
    cached = Examples(ids, np.array(paths), np.stack(samples), targets)
    decoded = Examples(ids, np.array(paths), None, targets)
    options = {"global_batch_size": 4, "epochs": 2}
    assert_same(
        batches_of(train(cached, preprocessing, **options)),
        batches_of(train(decoded, preprocessing, **options)),
    )


def test_weights_are_those_of_the_examples_times_the_given_ones(plain):
    examples = make_examples()
    own = np.arange(COUNT, dtype=np.float32)
    weighted = Examples(examples.ids, None, examples.samples, examples.targets, weights=own)
    for given, expected in ((None, own), (own + 1, own * (own + 1))):
        for _, targets, weights in batches_of(train(weighted, plain, sample_weights=given)):
            np.testing.assert_allclose(weights, expected[targets])


def test_shapes_are_static_but_for_the_batch(plain):
    dataset = train(make_examples(), plain, epochs=2)
    assert dataset.element_spec[0].shape == (None, SIZE, SIZE, 3)
    assert dataset.element_spec[0].dtype == tf.float32
    assert dataset.element_spec[1].shape == (None,)
    assert dataset.cardinality() == 10


@pytest.mark.parametrize(
    ("count", "replicas", "sizes"), [(21, 1, [5, 5, 5, 5, 1]), (21, 2, [5, 5, 5, 6]), (1, 2, [1])]
)
def test_no_replica_is_left_without_an_example(plain, count, replicas, sizes):
    batches = batches_of(train(make_examples(count), plain, replicas=replicas))
    assert [len(targets) for _, targets in batches] == sizes
    assert sorted(np.concatenate([targets for _, targets in batches]).tolist()) == list(range(count))
    assert count_steps(count, 5, replicas) == len(sizes)


def test_a_last_batch_that_is_filled_up_begins_with_the_first_ones_again(plain):
    filled = train(make_examples(), plain, epochs=2, fill_last=True)
    assert filled.element_spec[0].shape == (5, SIZE, SIZE, 3)
    assert filled.element_spec[1].shape == (5,)
    orders = np.reshape([targets for _, targets in batches_of(filled)], (2, 25))
    usual = batches_of(train(make_examples(), plain, epochs=2))
    for order, start in zip(orders, (0, 5), strict=True):
        once = np.concatenate([targets for _, targets in usual[start : start + 5]])
        assert order.tolist() == [*once, *once[:2]]
    held_out = make_pipeline(make_examples(), plain, global_batch_size=10, training=False, fill_last=True)
    in_order = np.concatenate([targets for _, targets in batches_of(held_out)])
    assert in_order.tolist() == [*range(COUNT), *range(7)]


def joined_parts(make, total, count):
    """Each batch, put together from what the replicas of all processes read, and the sizes of its parts."""
    processes = [batches_of(make(Share(first, count, total))) for first in range(0, total, count)]
    batches, sizes = [], []
    for step in range(len(processes[0]) // count):
        parts = [part for read in processes for part in read[step * count : (step + 1) * count]]
        batches.append(tuple(np.concatenate(values) for values in zip(*parts, strict=True)))
        sizes.append([len(part[1]) for part in parts])
    return batches, sizes


@pytest.mark.parametrize(("total", "count"), [(2, 1), (3, 1), (4, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_what_several_processes_read_is_the_whole(preprocessing, total, count, training):
    own = np.arange(COUNT, dtype=np.float32)

    def make(share):
        return make_pipeline(
            make_examples(),
            preprocessing,
            global_batch_size=8,
            training=training,
            epochs=2,
            sample_weights=own,
            replicas=total,
            share=share,
        )

    whole = batches_of(make(Share()))
    joined, sizes = joined_parts(make, total, count)
    assert len(joined) == len(whole) == (6 if training else 3)
    for one, other in zip(joined, whole, strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=1e-3)  # of 255
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[2], other[2])
    for of_batch in sizes:
        assert sorted(of_batch, reverse=True) == of_batch, "the first ones are the larger ones"
        assert min(of_batch) >= max(max(of_batch) - 1, 1)
    dataset = make(Share(0, count, total))
    assert dataset.cardinality() == count * len(whole)


def test_nothing_tunes_a_pipeline_that_is_waited_for_when_it_is_deleted(plain):
    assert train(make_examples(), plain).options().autotune.enabled is False
