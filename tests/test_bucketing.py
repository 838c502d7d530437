"""Batches of texts of like length: nothing lost, nothing repeated, the same in every run."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tlkit.config import PreprocessingConfig
from tlkit.data import Examples, count_steps, make_pipeline, order_of_epoch, plan_batches, rows_of_batch
from tlkit.errors import DataError
from tlkit.preprocessing import TextPreprocessing, make_text_preprocessing
from tlkit.preprocessing.tokenizers import make_tokenizer
from tlkit.zoo.entry import TextInput, Tokenizer

COUNT = 203
LONGEST = 64


@pytest.fixture(autouse=True)
def _seeded_keras():
    """Nothing here draws from Keras."""


@pytest.fixture(scope="module")
def make_small_preprocessing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", ""]))
    facts = Tokenizer(kind="wordpiece", files=("vocab.txt",), lowercase=True)
    tokenizer = make_tokenizer(facts, folder)

    def make(task="classify", mask=True, **options) -> TextPreprocessing:
        text_input = TextInput(sequence_length=LONGEST, tokenizer=facts, mask=mask)
        return make_text_preprocessing(text_input, PreprocessingConfig(**options), tokenizer, task)

    return make


@pytest.fixture(scope="module")
def preprocessing(make_small_preprocessing):
    return make_small_preprocessing()


def make_examples(count=COUNT, **parts) -> Examples:
    """Texts of 3 to 64 tokens; targets are their numbers."""
    words = np.random.default_rng(0).integers(1, LONGEST - 1, count)
    samples = np.array([" ".join(["a"] * size) for size in words], dtype=object)
    parts = {"samples": samples, "targets": np.arange(count, dtype=np.int32), **parts}
    ids = np.array([f"text-{number}" for number in range(count)])
    return Examples(ids, None, lengths=(words + 2).astype(np.int32), **parts)


def batches_of(examples, preprocessing, **options):
    options = {"global_batch_size": 16, "training": True, "seed": 7, **options}
    return list(make_pipeline(examples, preprocessing, **options).as_numpy_iterator())


def plan_of(examples, preprocessing, **options):
    return plan_batches(examples, preprocessing, **{"global_batch_size": 16, "seed": 7, **options})


def numbers_of(batches) -> list[list[int]]:
    return [batch[1].tolist() for batch in batches]


@pytest.mark.parametrize(
    "options", [{}, {"global_batch_size": 7}, {"batch_tokens": 500}, {"batch_tokens": 500, "replicas": 4}]
)
def test_every_epoch_has_every_text_once(preprocessing, options):
    examples = make_examples()
    steps = plan_of(examples, preprocessing, **options).steps
    batches = numbers_of(batches_of(examples, preprocessing, epochs=3, **options))
    assert len(batches) == 3 * steps
    epochs = [batches[start : start + steps] for start in range(0, 3 * steps, steps)]
    for epoch in epochs:
        assert sorted(number for batch in epoch for number in batch) == list(range(COUNT))
    assert epochs[0] != epochs[1] != epochs[2]
    # Not only the order of the batches is drawn, but also who meets whom.
    assert {frozenset(batch) for batch in epochs[0]}.isdisjoint({frozenset(batch) for batch in epochs[1]})


def test_batches_hold_texts_of_like_length(preprocessing):
    examples = make_examples()
    widths, tokens = [], 0
    for inputs, targets in batches_of(examples, preprocessing):
        lengths = examples.lengths[targets]
        width = inputs["token_ids"].shape[1]
        assert width == min(bucket for bucket in preprocessing.buckets if bucket >= lengths.max())
        np.testing.assert_array_equal(inputs["padding_mask"].sum(axis=1), lengths)
        widths.append(width)
        tokens += inputs["token_ids"].size
    assert set(widths) == set(preprocessing.buckets) == {16, 32, 48, 64}
    assert widths != sorted(widths), "the order of the batches is drawn"
    assert tokens < 1.35 * examples.lengths.sum()


def test_a_batch_is_a_function_of_seed_stage_epoch_and_step(preprocessing):
    examples = make_examples()
    batches = numbers_of(batches_of(examples, preprocessing, stage=2, epochs=2, first_epoch=3))
    plan = plan_of(examples, preprocessing, stage=2)
    named = [rows_of_batch(plan, epoch, step).tolist() for epoch in (3, 4) for step in range(plan.steps)]
    assert batches == named
    assert numbers_of(batches_of(examples, preprocessing, stage=2, first_epoch=4)) == batches[plan.steps :]
    for other in ({"stage": 1}, {"stage": 2, "seed": 8}):
        assert (
            numbers_of(batches_of(examples, preprocessing, first_epoch=3, **other)) != batches[: plan.steps]
        )


def test_tokens_of_a_batch_are_counted_with_their_padding(preprocessing):
    examples = make_examples()
    batches = batches_of(examples, preprocessing, batch_tokens=512)
    sizes = {inputs["token_ids"].shape[1]: [] for inputs, _ in batches}
    for inputs, targets in batches:
        assert inputs["token_ids"].size <= 512
        sizes[inputs["token_ids"].shape[1]].append(len(targets))
    assert {width: max(counts) for width, counts in sizes.items()} == {16: 32, 32: 16, 48: 10, 64: 8}
    shared = batches_of(examples, preprocessing, batch_tokens=512, replicas=3)
    assert [len(targets) % 3 for _, targets in shared].count(0) >= len(shared) - 1
    assert all(len(targets) >= 3 for _, targets in shared)
    # A text that is longer than a batch may be has a batch of its own.
    assert max(len(targets) for _, targets in batches_of(examples, preprocessing, batch_tokens=16)) == 1


def test_the_last_batch_leaves_no_replica_without_a_text(preprocessing):
    examples = make_examples(33)
    for replicas, sizes in ((1, [1, 16, 16]), (2, [16, 17])):
        batches = batches_of(examples, preprocessing, replicas=replicas)
        assert sorted(len(targets) for _, targets in batches) == sizes
        assert count_steps(33, 16, replicas) == len(sizes)


def test_a_last_batch_may_be_filled_up(preprocessing):
    examples = make_examples()
    batches = numbers_of(batches_of(examples, preprocessing, fill_last=True))
    assert {len(batch) for batch in batches} == {16}
    assert {number for batch in batches for number in batch} == set(range(COUNT))
    plan = plan_of(examples, preprocessing, fill_last=True)
    assert [rows_of_batch(plan, 0, step).tolist() for step in range(13)] == batches


@pytest.mark.parametrize("options", [{"bucketing": False}, {"mask": False}, {"sequence_length": 16}])
def test_one_length_for_all_leaves_the_order_as_it_is(make_small_preprocessing, options):
    examples = make_examples()
    one = make_small_preprocessing(**options)
    batches = numbers_of(batches_of(examples, one, stage=1, first_epoch=2))
    expected = order_of_epoch(COUNT, 7, 1, 2).numpy().tolist()
    if options != {"sequence_length": 16}:
        assert [number for batch in batches for number in batch] == expected
    widths = {inputs["token_ids"].shape[1] for inputs, _ in batches_of(examples, one, batch_tokens=640)}
    assert max(widths) == (16 if "sequence_length" in options else LONGEST)
    if "mask" in options:
        assert {len(batch) for batch in numbers_of(batches_of(examples, one, batch_tokens=640))} == {10, 3}


def test_without_training_the_texts_come_in_order(preprocessing):
    examples = make_examples(40)
    batches = batches_of(examples, preprocessing, training=False)
    assert [number for batch in numbers_of(batches) for number in batch] == list(range(40))
    order = np.argsort(examples.lengths, kind="stable")
    sorted_batches = batches_of(examples.take(order), preprocessing, training=False)
    assert [number for batch in numbers_of(sorted_batches) for number in batch] == order.tolist()


def test_weights_stay_with_their_texts(preprocessing):
    examples = replace(make_examples(), weights=np.arange(COUNT, dtype=np.float32))
    for _, targets, weights in batches_of(examples, preprocessing):
        np.testing.assert_array_equal(weights, targets)


def test_pairs_to_embed_are_two_rows_with_one_score(make_small_preprocessing):
    texts = make_examples()
    pairs = np.stack([texts.samples, np.full(COUNT, "b", dtype=object)], axis=1)
    examples = replace(texts, samples=pairs, targets=np.arange(COUNT, dtype=np.float32))
    examples = replace(examples, weights=np.arange(COUNT, dtype=np.float32))
    embed = make_small_preprocessing("embed")
    seen = []
    for inputs, targets, weights in batches_of(examples, embed, batch_tokens=512):
        assert inputs["token_ids"].size <= 512
        assert inputs["token_ids"].shape[0] == len(targets)
        np.testing.assert_array_equal(targets, weights)
        np.testing.assert_array_equal(targets[::2], targets[1::2])
        np.testing.assert_array_equal(
            inputs["padding_mask"][::2].sum(axis=1), texts.lengths[targets[::2].astype(int)]
        )
        assert (inputs["padding_mask"][1::2].sum(axis=1) == 3).all()
        seen += targets[::2].tolist()
    assert sorted(seen) == list(range(COUNT))
    for training in (True, False):
        with pytest.raises(DataError, match="203 pairs in batches of 16: leave out 1 of them"):
            batches_of(examples, embed, replicas=2, training=training)
    assert len(batches_of(examples.take(range(200)), embed, replicas=2)) == 13


def test_tags_are_padded_as_their_words_are(make_small_preprocessing):
    words, tags = np.empty(30, dtype=object), np.empty(30, dtype=object)
    for row in range(30):
        words[row] = ["a", "bb", "x"] * (row % 5) + ["b"]
        tags[row] = np.arange(len(words[row]), dtype=np.int32) + 100 * row
    short = make_small_preprocessing("tokens", sequence_length=8)
    examples = make_examples(30, samples=words, targets=tags)
    examples = replace(examples, lengths=short.count_tokens(tf.ragged.constant(words.tolist())).numpy())
    seen = []
    for inputs, targets in batches_of(examples, short, global_batch_size=4):
        assert targets.shape == inputs["word_starts"].shape
        assert ((targets == -1) == (inputs["word_starts"] == -1)).all()
        for row, of_words in zip(targets, inputs["word_starts"], strict=True):
            number = row[0] // 100
            seen.append(number)
            # Six tokens have room: the tags of words that were cut off are not learned.
            kept = min(len(words[number]), 6)
            assert row[:kept].tolist() == tags[number][:kept].tolist()
            assert (row[kept:] == -1).all()
            assert of_words[:kept].tolist() == list(range(1, kept + 1))
    assert sorted(seen) == list(range(30))


def test_batches_have_one_signature_for_all_lengths(preprocessing):
    spec = make_pipeline(make_examples(), preprocessing, global_batch_size=16, training=True).element_spec
    assert spec[0]["token_ids"].shape.as_list() == [None, None]
    assert spec[0]["token_ids"].dtype == tf.int32
