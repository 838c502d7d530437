"""Mixup and CutMix: what is drawn, what it makes of pictures, targets and weights, and what a run does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tlkit.config import CacheConfig, HeadConfig, MixConfig, validate
from tlkit.data import Mixing, Share, make_pipeline
from tlkit.data.mixing import mix_pictures, symmetric_beta
from tlkit.errors import ConfigError
from tlkit.heads import make_head
from tlkit.plans import Stage
from tlkit.training import train_stages
from tlkit.training.cache.stage import choose_stage_cache
from tlkit.workflows.fits import require_fit, require_mixable

from small_models import small_entry
from test_training import make_examples, make_run

N = 200
SEEDS = tf.stack([tf.zeros(N, tf.int64), tf.range(N, dtype=tf.int64)], axis=1)
# Each picture is one number everywhere, so that it tells how much of it there is.
PICTURES = np.broadcast_to(np.arange(N, dtype="float32")[:, None, None, None], (N, 8, 6, 3)).copy()
PARTNERS = np.roll(PICTURES, -1, axis=0)


@pytest.mark.parametrize("strength", [0.1, 0.2, 0.5, 1.0, 3.0])
def test_shares_are_of_the_beta_distribution(strength):
    draws = np.random.default_rng(0).random((2, 20_000))
    shares = symmetric_beta(tf.constant(strength, tf.float64), *draws).numpy()
    assert shares.min() >= 0
    assert shares.max() <= 1
    # The 1-in-1000 point of the statistic: 1.95 / sqrt(n).
    assert scipy.stats.kstest(shares, scipy.stats.beta(strength, strength).cdf).statistic < 1.95 / 20_000**0.5


def test_mixup_averages_each_picture_with_the_next():
    mixed, share = (each.numpy() for each in mix_pictures(PICTURES, MixConfig(mixup=1.0), SEEDS))
    expected = share[:, None, None, None] * PICTURES + (1 - share[:, None, None, None]) * PARTNERS
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)
    assert share.std() > 0.2


def test_cutmix_replaces_one_rectangle_and_counts_its_pixels():
    mixed, share = (each.numpy() for each in mix_pictures(PICTURES, MixConfig(cutmix=1.0), SEEDS))
    replaced = (mixed == PARTNERS).all(axis=-1)
    assert ((mixed == PICTURES) | (mixed == PARTNERS)).all()
    np.testing.assert_allclose(share, 1 - replaced.mean(axis=(1, 2)), atol=1e-6)
    for picture in replaced:
        rows, columns = picture.any(axis=1), picture.any(axis=0)
        np.testing.assert_array_equal(picture, rows[:, None] & columns[None, :])
        for line in (rows, columns):
            assert np.abs(np.diff(np.pad(line, 1).astype(int))).sum() in (0, 2)  # without a gap
    assert 0.1 < replaced.mean() < 0.5


def test_both_take_turns_and_some_pictures_stay_as_they_are():
    options = MixConfig(mixup=1.0, cutmix=1.0, probability=0.5)
    mixed = mix_pictures(PICTURES, options, SEEDS)[0].numpy()
    same = (mixed == PICTURES).all(axis=(1, 2, 3))
    blended = ~same & ((mixed != PICTURES) & (mixed != PARTNERS)).all(axis=(1, 2, 3))
    cut = ~same & ~blended
    assert 0.4 < same.mean() < 0.7  # some rectangles have no pixels
    assert 0.15 < blended.mean() < 0.35
    assert 0.1 < cut.mean() < 0.35


def test_draws_depend_on_the_seed_and_the_example_alone():
    options = MixConfig(mixup=0.4, cutmix=1.0)
    whole = mix_pictures(PICTURES, options, SEEDS)[0].numpy()
    part = mix_pictures(PICTURES[10:20], options, SEEDS[10:20])[0].numpy()
    np.testing.assert_array_equal(whole[10:19], part[:9])  # the last one's partner is another
    other = mix_pictures(PICTURES, options, tf.add(SEEDS, [[1, 0]]))[0].numpy()
    assert (whole != other).any(axis=(1, 2, 3)).mean() > 0.7


@pytest.mark.parametrize(
    ("task", "loss"), [("classify", "auto"), ("classify", "focal"), ("multilabel", "focal")]
)
def test_the_loss_of_a_mixed_example_is_the_mix_of_the_losses_of_its_parts(task, loss):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, N) if task == "classify" else rng.integers(0, 2, (N, 3)).astype("float32")
    weights = rng.random(N).astype("float32") * (rng.random(N) < 0.8)
    weights = weights.astype("float32")
    logits = rng.normal(size=(N, 3)).astype("float32")
    head = make_head(HeadConfig(loss=loss, label_smoothing=0.1), task, n_outputs=3)

    def each(values):
        return np.array([float(head.loss(values[row : row + 1], logits[row : row + 1])) for row in range(N)])

    mixing = Mixing(MixConfig(mixup=1.0), task, 3)
    _, mixed, mixed_weights = mixing(PICTURES, targets, tf.constant(weights), SEEDS)
    share = mix_pictures(PICTURES, MixConfig(mixup=1.0), SEEDS)[1].numpy()
    expected = share * weights * each(targets)
    expected += (1 - share) * np.roll(weights, -1) * each(np.roll(targets, -1, axis=0))
    np.testing.assert_allclose(mixed_weights * each(mixed.numpy()), expected, rtol=1e-4, atol=1e-5)
    assert mixed.shape == (N, 3)


def test_values_are_averaged():
    targets = np.arange(N, dtype="float32")
    _, mixed, weights = Mixing(MixConfig(mixup=1.0), "regress", 1)(PICTURES, targets, None, SEEDS)
    share = mix_pictures(PICTURES, MixConfig(mixup=1.0), SEEDS)[1].numpy()
    np.testing.assert_allclose(mixed, share * targets + (1 - share) * np.roll(targets, -1), rtol=1e-5)
    assert weights is None


def pipeline(run, epoch=0, **options):
    settings = {"global_batch_size": 8, "training": True, "seed": 3, "mixing": run.mixing, **options}
    batches = make_pipeline(run.dataset.splits["train"], run.preprocessing, first_epoch=epoch, **settings)
    return [(x.numpy(), y.numpy()) for x, y in batches]


def test_an_epoch_mixes_the_same_way_again_and_another_one_does_not():
    run = make_run(n=20, mix={"mixup": 0.4, "cutmix": 1.0})
    first, again, second = pipeline(run), pipeline(run), pipeline(run, epoch=1)
    for (x, y), (other_x, other_y) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)
        assert y.shape == (len(x), 3)
        np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)
    assert not np.array_equal(first[0][0], second[0][0])


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}], ids=["plain", "accumulated"])
def test_a_mixed_run_learns_and_its_validation_is_unmixed(options, tmp_path):
    run = make_run(
        n=120, batch_norm="train", mix={"mixup": 0.2, "cutmix": 1.0, "probability": 0.5}, **options
    )
    history = train_stages(run, [Stage("all", "all", 8, 0.03)], tmp_path).history
    assert history["val_accuracy"].iloc[-1] > 0.9
    assert history["accuracy"].iloc[-1] > 0.6  # by the label with the larger part
    plain = replace(run, training=run.training.model_copy(update={"mix": None}))
    assert plain.mixing is None
    examples = make_examples(12, seed=1)
    logits = run.model.predict(
        make_pipeline(examples, run.preprocessing, global_batch_size=8, training=False).map(lambda x, _: x),
        verbose=0,
    )
    assert history["val_loss"].iloc[-1] == pytest.approx(
        float(run.head.loss(examples.targets, logits)), rel=1e-4
    )


def test_features_are_not_stored_where_pictures_are_mixed():
    run = replace(make_run(mix={"mixup": 0.2}), cache=CacheConfig(mode="memory"))
    choice, features = choose_stage_cache(run, Stage("head", "head", 1, 0.1), object())
    assert features is None
    assert choice.reason == "training.mix mixes pictures anew every epoch"


def test_what_cannot_be_mixed_is_refused_before_training():
    texts = small_entry().model_copy(update={"modality": "text"})
    for task in ("classify", "tokens", "embed"):
        config = validate({"task": task, "backbone": "small", "training": {"mix": {"mixup": 0.2}}})
        with pytest.raises(ConfigError, match=r"training.mix: for pictures, but 'small' takes texts"):
            require_fit(config, texts, is_run=False)
    with pytest.raises(ConfigError, match="task 'regress' takes mixup"):
        validate({"task": "regress", "training": {"mix": {"cutmix": 1.0}}})
    with pytest.raises(ConfigError, match="needs mixup, cutmix or both"):
        validate({"training": {"mix": {"probability": 0.5}}})
    mixed = validate({"training": {"mix": {"cutmix": 1.0}}})
    with pytest.raises(ConfigError, match="loss= is one of your own"):
        require_mixable(mixed, own_loss=True)
    require_mixable(mixed, own_loss=False)


@pytest.mark.parametrize("weights", [None, np.arange(1, 12, dtype="float32")])
def test_two_workers_mix_what_one_process_would(weights):
    """11 pictures in batches of 4: the last of a part has the first of the next part as its partner."""
    run = make_run()
    mixing = Mixing(MixConfig(mixup=1.0, cutmix=1.0), "classify", 3)

    def read(share):
        pipeline = make_pipeline(
            make_examples(11),
            run.preprocessing,
            global_batch_size=4,
            training=True,
            sample_weights=weights,
            mixing=mixing,
            share=share,
        )
        return list(pipeline.as_numpy_iterator())

    whole, first, second = read(Share()), read(Share(0, 1, 2)), read(Share(1, 1, 2))
    assert [len(batch[1]) for batch in second] == [2, 2, 1]
    for batch, *parts in zip(whole, first, second, strict=True):
        for values, *of_parts in zip(batch, *parts, strict=True):
            np.testing.assert_allclose(np.concatenate(of_parts), values, atol=1e-5)
