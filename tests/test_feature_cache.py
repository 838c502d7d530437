"""Training on stored features gives what training without them gives, and finds them again where it may."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from small_keras_hub import ARGUMENTS, SIZE, small_entry
from test_finetune_texts import animals, make_sentences, write_table

import tlkit
from tlkit.backbones import load
from tlkit.config import CacheConfig
from tlkit.config.augment import RandomFlip, RandomRotation
from tlkit.data import Manifest, Share
from tlkit.errors import StorageError
from tlkit.features import stored_tables
from tlkit.features import table as feature_table
from tlkit.freezing import group_layers
from tlkit.heads import make_head
from tlkit.model import build_model
from tlkit.plans import Stage
from tlkit.preprocessing import make_augment
from tlkit.preprocessing.views import all_flips, make_views, plain_view
from tlkit.training import train_stages
from tlkit.training.cache import choice as feature_choice
from tlkit.training.cache.boundary import divide
from tlkit.training.cache.features import Features
from tlkit.training.cache.stage import choose_stage_cache, divide_stage
from tlkit.training.freeze import apply_freeze
from tlkit.training.trainable import Trainable

from conftest import make_pictures
from small_models import small_backbone
from test_training import make_run

HEAD, TOP = Stage("head", "head", 3, 0.01), Stage("top", 1, 3, 0.01)
EXACT = CacheConfig(mode="disk", storage="float32")
OFF = CacheConfig(mode="off")
FLIPS = (RandomFlip(),)


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs["loss"])


def cached_run(cache=EXACT, **settings):
    """`make_run` with a manifest that knows each picture's hash."""
    run = make_run(**settings)
    ids = np.concatenate([examples.ids for examples in run.dataset.splits.values()])
    table = pd.DataFrame({"id": ids, "hash": [f"hash of {name}" for name in ids]})
    dataset = replace(run.dataset, manifest=Manifest(table, run.dataset.manifest.classes))
    augmentations = () if run.preprocessing.augmentation is None else FLIPS
    return replace(run, dataset=dataset, cache=cache, augmentations=augmentations, backbone="small")


def train(run, folder, *stages):
    losses = Losses()
    trained = train_stages(run, stages, folder, [losses])
    return np.array(losses.values), trained


@pytest.mark.parametrize("augment", ["none", "flips"])
def test_losses_are_those_of_a_run_without_stored_features(augment, tmp_path):
    with_cache, trained = train(cached_run(augment=augment, dropout=0.3), tmp_path / "a", HEAD, TOP)
    without, _ = train(cached_run(OFF, augment=augment, dropout=0.3), tmp_path / "b", HEAD, TOP)
    assert [record.cache["mode"] for record in trained.records] == ["disk", "disk"]
    np.testing.assert_allclose(with_cache, without, atol=1e-6)
    assert len(set(np.round(with_cache, 6))) > 10, "a loss that never moves would be equal, too"


def test_a_stage_of_float16_features_learns_the_same(tmp_path):
    half, _ = train(cached_run(EXACT.model_copy(update={"storage": "float16"})), tmp_path / "a", HEAD)
    bfloat, _ = train(cached_run(EXACT.model_copy(update={"storage": "bfloat16"})), tmp_path / "b", HEAD)
    exact, _ = train(cached_run(), tmp_path / "c", HEAD)
    np.testing.assert_allclose(half, exact, atol=2e-3)
    np.testing.assert_allclose(bfloat, exact, atol=2e-2)
    assert not np.array_equal(half, exact)


def test_features_that_float16_cannot_hold_become_bfloat16(tmp_path, monkeypatch):
    run = cached_run(CacheConfig(mode="disk"))
    scale = run.groups[-1].layers[-1]
    assert isinstance(scale, keras.layers.BatchNormalization)
    scale.gamma.assign(tf.fill(scale.gamma.shape, 1e9))
    run = replace(run, cache=CacheConfig(mode="disk", storage="float16"))
    with pytest.raises(Exception, match="do not fit into float16.*bfloat16"):
        train(run, tmp_path / "a", HEAD)
    monkeypatch.setattr(feature_choice, "FLOAT32_UP_TO", 0)
    _, trained = train(replace(run, cache=CacheConfig(mode="disk")), tmp_path / "b", HEAD)
    assert trained.records[0].cache["storage"] == "bfloat16"


def test_a_second_run_and_the_evaluation_find_what_the_first_computed(tmp_path):
    _, first = train(cached_run(), tmp_path / "a", HEAD)
    before = {table.key: table.size for table in stored_tables()}
    _, second = train(cached_run(learning_rate=0.5), tmp_path / "b", replace(HEAD, learning_rate=0.5))
    assert first.records[0].cache["missing"] == 52
    assert second.records[0].cache["missing"] == 0
    assert second.records[0].cache["key"] == first.records[0].cache["key"] == stored_tables()[0].key
    assert {table.key: table.size for table in stored_tables()} == before
    assert second.features.count_missing(cached_run().dataset.splits["validation"], plain_view()) == 0


@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_a_boundary_that_moves_up_starts_from_the_features_below(mode, tmp_path, monkeypatch):
    from_pictures = []
    make_raw = Features._make_raw

    def spy(self, examples, views):
        from_pictures.append(len(examples))
        return make_raw(self, examples, views)

    monkeypatch.setattr(Features, "_make_raw", spy)
    stages = [Stage(f"{train}", train, 3, 0.01) for train in (2, 1, 1, "head")]
    stages[2] = replace(stages[2], name="again")
    cache = CacheConfig(mode=mode, storage="float32")
    with_cache, trained = train(cached_run(cache, augment="flips"), tmp_path / "a", *stages)
    assert (from_pictures.count(40), from_pictures.count(12)) == (1, 1), "training and validation, once"
    assert [record.cache["mode"] for record in trained.records] == [mode] * 4
    without, _ = train(cached_run(OFF, augment="flips"), tmp_path / "b", *stages)
    np.testing.assert_allclose(with_cache, without, atol=1e-6)


@pytest.mark.parametrize(("storage", "is_same"), [("float32", True), ("float16", False)])
def test_features_from_rounded_ones_are_told_from_those_of_the_pictures(storage, is_same):
    run = cached_run(CacheConfig(mode="disk", storage=storage))
    apply_freeze(run.model, run.groups, TOP, run.batch_norm)
    _, below = choose_stage_cache(run, TOP, divide_stage(run))
    apply_freeze(run.model, run.groups, HEAD, run.batch_norm)
    parts = divide_stage(run, below)
    moved, _ = choose_stage_cache(run, HEAD, parts, below)
    straight, _ = choose_stage_cache(run, HEAD, parts)
    assert (moved.key == straight.key) == is_same


def key_of(run, stage=HEAD):
    apply_freeze(run.model, run.groups, stage, run.batch_norm)
    _, features = choose_stage_cache(run, stage, divide_stage(run))
    return features.table.folder.name


def change_weights(run):
    weight = run.groups[0].layers[0].weights[0]
    weight.assign(weight + 1e-6)
    return run


def change_scaling(run):
    scaling = run.preprocessing.scaling.model_copy(update={"std": (100.0, 100.0, 100.0)})
    return replace(run, preprocessing=replace(run.preprocessing, scaling=scaling))


@pytest.mark.parametrize(
    "change",
    [
        change_weights,
        change_scaling,
        lambda run: replace(run, preprocessing=replace(run.preprocessing, resize="crop")),
        lambda run: replace(run, cache=EXACT.model_copy(update={"storage": "float16"})),
    ],
    ids=["weights", "scaling", "resizing", "storage"],
)
def test_features_of_anything_else_are_not_reused(change):
    assert key_of(change(cached_run())) != key_of(cached_run())


def test_another_boundary_has_features_of_its_own_and_the_same_one_the_same():
    run = cached_run()
    assert key_of(run, HEAD) != key_of(run, TOP)
    assert key_of(run, HEAD) == key_of(cached_run(seed=0, n=30), replace(HEAD, epochs=9))


def test_pictures_that_changed_are_computed_again(tmp_path):
    train(cached_run(), tmp_path / "a", HEAD)
    run = cached_run()
    table = run.dataset.manifest.table.copy()
    table.loc[3, "hash"] = "another picture"
    run = replace(run, dataset=replace(run.dataset, manifest=Manifest(table, ("a", "b", "c"))))
    _, trained = train(run, tmp_path / "b", HEAD)
    assert trained.records[0].cache["missing"] == 1


def test_a_damaged_file_is_computed_again_and_the_losses_are_the_same(tmp_path):
    first, _ = train(cached_run(), tmp_path / "a", HEAD)
    (file,) = stored_tables()[0].path.glob("0-*.bin")
    file.write_bytes(file.read_bytes()[:-7])
    again, trained = train(cached_run(), tmp_path / "b", HEAD)
    assert trained.records[0].cache["missing"] == 52
    np.testing.assert_array_equal(first, again)


def test_k_views_are_k_pictures_of_each_example_and_no_more():
    run = cached_run(augment="flips")
    options = (RandomRotation(factor=0.5),)
    views = make_views(make_augment(options), options, 3, seed=0)
    samples = tf.constant(run.dataset.splits["train"].samples[:4])
    hashes = tf.constant([1, 2, 3, 4], tf.int64)
    made = [views.make(samples, number, hashes).numpy() for number in range(3)]
    assert len({each.tobytes() for each in made}) == 3
    seeds = tf.stack([tf.range(400, dtype=tf.int64), tf.fill([400], tf.constant(7, tf.int64))], axis=1)
    counts = np.bincount(views.choose(seeds).numpy())
    assert len(counts) == 3
    assert counts.min() > 90


@pytest.mark.parametrize(("mode", "ways"), [("horizontal_and_vertical", 4), ("horizontal", 2)])
def test_as_many_views_as_there_are_flips_are_all_flips(mode, ways):
    options = (RandomFlip(mode=mode),)
    for count in (None, ways, ways + 3):
        views = make_views(make_augment(options), options, count, seed=0)
        assert views.names == all_flips(options[0]).names
        assert len(views) == ways
    two_kinds = (*options, RandomRotation())
    assert len(make_views(make_augment(two_kinds), two_kinds, ways, seed=0).names) == ways
    assert make_views(make_augment(two_kinds), two_kinds, ways, seed=0).by_id
    fewer = make_views(make_augment(options), options, 3, seed=0)
    assert fewer.by_id == (ways == 4), "three of four ways are drawn"


def test_the_views_of_flips_are_what_the_augmentation_makes():
    run = cached_run(augment="flips")
    views = all_flips(RandomFlip())
    samples = tf.constant(run.dataset.splits["train"].samples[:20])
    seeds = tf.stack([tf.fill([20], tf.constant(5, tf.int64)), tf.range(20, dtype=tf.int64)], axis=1)
    wanted = run.preprocessing.augment(samples, seeds).numpy()
    chosen = views.choose(seeds).numpy()
    assert set(chosen) == {0, 1, 2, 3}
    for number in range(4):
        made = views.make(samples, number, seeds[:, 1]).numpy()
        np.testing.assert_array_equal(made[chosen == number], wanted[chosen == number])


def reason(run, stage=HEAD):
    apply_freeze(run.model, run.groups, stage, run.batch_norm)
    choice, features = choose_stage_cache(run, stage, divide_stage(run))
    assert (features is None) == (choice.mode == "off")
    return choice.mode, choice.reason


def test_a_stage_that_cannot_or_need_not_store_features_says_why():
    assert reason(cached_run(OFF)) == ("off", "cache.mode is off")
    assert reason(cached_run(), Stage("all", "all", 1, 0.01)) == ("off", "nothing is frozen")
    drawn = replace(cached_run(augment=["random_rotation"]), augmentations=(RandomRotation(),))
    mode, why = reason(drawn)
    assert mode == "off"
    assert "draws anew every epoch; cache.views=4" in why
    assert reason(replace(drawn, cache=EXACT.model_copy(update={"views": 2})))[0] == "disk"
    mode, why = reason(cached_run(CacheConfig()), replace(HEAD, epochs=1))
    assert mode == "off"
    assert "would not pay" in why


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("workers", "mode"), [(1, "memory"), (3, "off")])
def test_what_workers_would_share_is_compared_with_what_each_of_them_stores(
    workers, mode, deterministic, monkeypatch
):
    def measured(self, examples, views, below=None):
        self.seconds = 1.0
        return 1.0

    monkeypatch.setattr(Features, "measure", measured)
    monkeypatch.setattr(Trainable, "share", Share(0, 1, workers))
    run = replace(cached_run(CacheConfig(views=1)), deterministic=deterministic)
    assert reason(run)[0] == ("memory" if deterministic else "disk"), "how often an example is augmented"
    run = replace(run, cache=CacheConfig())
    found, why = reason(run)
    assert found.replace("disk", "memory") == mode
    without = HEAD.epochs * 52 / workers
    assert (
        f"computed once in about 52 s and read in 0 s, where 3 epochs without would take {without:.0f} s"
        in why
    )


def test_a_number_of_views_does_not_depend_on_how_long_something_takes(monkeypatch):
    def slow(self, examples, views, below=None):
        self.seconds = 1e-3
        return 1e3

    monkeypatch.setattr(Features, "measure", slow)
    flips = cached_run(CacheConfig(), augment="flips")
    mode, why = reason(flips)
    assert mode == "off"
    assert why.startswith("it would not pay")
    for views in (1, 3):
        asked = replace(flips, cache=CacheConfig(views=views))
        assert reason(asked)[0] == "disk"
        assert reason(replace(asked, deterministic=True), replace(HEAD, epochs=1))[0] == "memory"


def test_views_that_do_not_fit_are_not_left_out_silently(monkeypatch):
    monkeypatch.setattr(feature_choice, "USABLE_MEMORY", 0.0)
    run = cached_run(CacheConfig(views=3, limit=0), augment="flips")
    mode, why = reason(run)
    assert mode == "off"
    assert why.endswith("; so every epoch augments anew, in place of cache.views=3")
    assert "augments anew" not in reason(replace(run, cache=CacheConfig(limit=0)))[1]


def test_a_disk_without_room_stops_before_training_or_gives_way_to_memory(tmp_path):
    none = CacheConfig(mode="disk", limit=0)
    with pytest.raises(StorageError, match="limit of 0"):
        train(cached_run(none), tmp_path / "a", HEAD)
    _, trained = train(cached_run(CacheConfig(limit=0)), tmp_path / "b", replace(HEAD, epochs=9))
    assert trained.records[0].cache["mode"] == "memory"
    assert "in memory: " in trained.records[0].cache["reason"]
    assert stored_tables() == []


def test_features_in_memory_are_written_once_into_one_place(tmp_path, monkeypatch):
    sizes, make = [], feature_table._aligned_empty

    def spy(size, dtype):
        sizes.append(size)
        return make(size, dtype)

    monkeypatch.setattr(feature_table, "_aligned_empty", spy)
    cache = CacheConfig(mode="memory", storage="float32")
    _, trained = train(cached_run(cache, augment="flips"), tmp_path, HEAD)
    assert trained.records[0].cache["mode"] == "memory"
    assert [size for size in sizes if size] == [(4 * 40 + 12) * 8], "training in four ways, and validation"


def test_a_layer_that_somebody_wrote_is_not_stored_beyond_the_process(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    run = cached_run()
    with run.strategy.scope():
        inputs = keras.Input((16, 16, 3))
        x = keras.layers.Conv2D(4, 3, name="stem_conv")(inputs)
        x = Twice(name="twice")(x)
        backbone = replace(small_backbone(), model=keras.Model(inputs, x), features={"map": x})
        entry = backbone.entry.model_copy(update={"layer_groups": {"stem": "stem_.*"}})
        backbone = replace(backbone, entry=entry)
        model = build_model(backbone, run.head)
    _, trained = train(replace(run, model=model, groups=group_layers(backbone)), tmp_path, HEAD)
    assert trained.records[0].cache["mode"] == "memory"
    assert "does not say what it does" in trained.records[0].cache["reason"]


def test_the_saved_model_knows_nothing_of_the_cache(tmp_path):
    run = cached_run()
    train(run, tmp_path, HEAD)
    run.model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.input_shape == (None, 16, 16, 3)
    assert "features" not in json.dumps(again.get_config())


def test_callbacks_may_use_the_model_on_pictures_while_it_reads_features(tmp_path):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(self.model.predict(np.zeros((2, 16, 16, 3), "float32"), verbose=0).shape)

    train_stages(cached_run(), [HEAD], tmp_path, [Look()])
    assert seen == [(2, 3)] * 3


def test_a_head_may_name_its_layers_as_the_backbone_does():
    run = cached_run()
    pool = keras.layers.GlobalAveragePooling2D(name="stem_relu")
    with run.strategy.scope():
        backbone = small_backbone()
        head = make_head(n_outputs=3, layer=lambda x: keras.layers.Dense(3, name="block2_conv")(pool(x)))
        model = build_model(backbone, head)
    groups = group_layers(backbone)
    apply_freeze(model, groups, TOP)
    names = [layer.name for layer in model._flatten_layers()]
    parts = divide(model, groups)
    pictures = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(parts.upper(parts.lower(pictures)), model(pictures), atol=1e-6)
    assert [layer.name for layer in model._flatten_layers()] == names


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_every_backbone_of_keras_hub_is_divided_above_each_of_its_groups(name):
    backbone = load(small_entry(name), weights=False, image_size=SIZE)
    head = make_head(n_outputs=3)
    backbone = backbone.for_head(head.uses_pooler)
    model, groups = build_model(backbone, head), group_layers(backbone)
    pictures = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    wanted = model(pictures, training=False)
    sizes = []
    for trained in ["head", *range(1, len(groups))]:
        apply_freeze(model, groups, Stage("x", trained, 1, 0.1))
        parts = divide(model, groups)
        np.testing.assert_allclose(parts.upper(parts.lower(pictures, training=False)), wanted, atol=1e-6)
        sizes.append(parts.upper.count_params())
        below = len(groups) - (0 if trained == "head" else trained)
        for group in groups[:below]:
            paths = {weight.path for weight in parts.upper.weights}
            assert not paths & set(group.weights), f"{group.name} is frozen and above the boundary"
    assert sizes == sorted(sizes)


def test_losses_of_texts_are_the_same_for_every_task(tmp_path, text_tables):
    for task, data in text_tables.items():
        found = {}
        for name, cache in (("with", EXACT), ("without", OFF)):
            losses = Losses()
            run = tlkit.finetune(
                data,
                str(Path(__file__).parent / "fixtures" / "text" / "bert"),
                config={"data": {"split": {"validation": 0.2, "test": 0.2}}},
                task=task,
                sequence_length=16,
                batch_size=8,
                plan=[{"train": 2 if task == "embed" else "head", "epochs": 2}, {"train": 1, "epochs": 2}],
                learning_rate=0.01,
                cache=cache.model_dump(),
                callbacks=losses,
                export=False,
                out=tmp_path / f"{task}-{name}",
            )
            found[name] = np.array(losses.values), run.metrics
        np.testing.assert_allclose(found["with"][0], found["without"][0], atol=1e-5, err_msg=task)
        assert found["with"][1].keys() == found["without"][1].keys()
        for metric, value in found["with"][1].items():
            if isinstance(value, float):
                assert found["without"][1][metric] == pytest.approx(value, abs=1e-4), (task, metric)
        stages = json.loads((tmp_path / f"{task}-with" / "result.json").read_text())["stages"]
        assert [stage["cache"]["mode"] for stage in stages] == ["disk", "disk"]


@pytest.fixture
def text_tables(tmp_path) -> dict[str, Any]:
    texts, others = make_sentences(40), make_sentences(40, seed=1)
    tags = [["O", f"B-{row[1].upper()}", *["O"] * (len(row) - 2)] for row in map(str.split, texts)]
    scores = [round(len(text) / 60, 2) for text in texts]
    return {
        "classify": write_table(tmp_path / "classify.csv", text=texts, label=animals(texts)),
        "pair": write_table(tmp_path / "pair.csv", text=texts, text_b=others, label=animals(texts)),
        "embed": write_table(tmp_path / "embed.csv", text=texts, text_b=others, label=scores),
        "tokens": write_table(
            tmp_path / "tokens.csv",
            tokens=[json.dumps(text.split()) for text in texts],
            label=[" ".join(row) for row in tags],
        ),
    }


def test_two_replicas_read_the_same_features_as_one_device(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import json
from pathlib import Path
from tlkit.devices import make_strategy
from test_feature_cache import EXACT, HEAD, OFF, TOP, cached_run, train
found = {{}}
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name, cache, strategy in (("one", EXACT, None), ("two", EXACT, mirrored), ("plain", OFF, mirrored)):
    losses, trained = train(cached_run(cache, strategy=strategy), Path({str(tmp_path)!r}) / name, HEAD, TOP)
    found[name] = losses.tolist()
    found[name + " mode"] = [record.cache["mode"] for record in trained.records]
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["two mode"] == ["disk", "disk"]
    np.testing.assert_allclose(found["two"], found["plain"], atol=1e-6)
    np.testing.assert_allclose(found["two"], found["one"], atol=1e-4)


def test_a_finished_run_holds_no_features(tmp_path):
    tlkit.finetune(
        make_pictures(tmp_path / "photos"),
        "image_cnn",
        image_size=32,
        plan=[{"train": "head", "epochs": 3}, {"train": 1, "epochs": 3}],
        cache={"mode": "disk"},
        config={"weights": "none"},
        export=False,
        out=tmp_path / "run",
    )
    stages = json.loads((tmp_path / "run" / "result.json").read_text())["stages"]
    assert {stage["cache"]["key"] for stage in stages} == {table.key for table in stored_tables()}
    assert not any(table.in_use for table in stored_tables())


@pytest.mark.parametrize("train", ["head", 1])
def test_evaluating_a_run_later_reads_what_it_stored(train, tmp_path, monkeypatch):
    run = tlkit.finetune(
        make_pictures(tmp_path / "photos"),
        "image_cnn",
        image_size=32,
        plan=[{"train": train, "epochs": 2}],
        cache={"mode": "disk"},
        config={"weights": "none"},
        export=False,
        out=tmp_path / "run",
    )
    read, reader = [], Features.reader

    def note(self, examples, views):
        read.append(len(examples))
        return reader(self, examples, views)

    monkeypatch.setattr(Features, "reader", note)
    again = tlkit.load(run.path).evaluate()
    assert len(read) == 1
    assert again["accuracy"] == run.metrics["accuracy"]
    assert again["loss"] == pytest.approx(run.metrics["loss"], rel=1e-5)
    assert not any(table.in_use for table in stored_tables())
    changed = tlkit.load(run.path)
    changed.backbone_model.weights[0].assign(changed.backbone_model.weights[0] + 0.5)
    assert changed.evaluate()["loss"] != pytest.approx(run.metrics["loss"], rel=1e-5)
    assert len(read) == 1, "another model has no features"
