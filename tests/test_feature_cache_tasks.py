"""Stored features of every task and of texts of many lengths: training on them is training without them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from test_feature_cache import EXACT, HEAD, OFF, TOP, Losses, cached_run, reason, train
from test_finetune_texts import write_table, write_task_tables

from tlkit.config import HeadConfig, load_config
from tlkit.freezing import group_layers
from tlkit.heads import make_head
from tlkit.model import build_model
from tlkit.training import require_room_for, train_stages
from tlkit.training.cache.boundary import Parts
from tlkit.training.cache.columns import column_specs
from tlkit.training.cache.stage import choose_stage_cache, divide_stage, store_features
from tlkit.training.freeze import apply_freeze
from tlkit.training.pipelines import training_pipeline, validation_pipeline
from tlkit.training.trainable import Place
from tlkit.workflows.objects import PythonObjects
from tlkit.workflows.prepare import prepare

from small_models import small_backbone

FOLDERS = Path(__file__).parent / "fixtures" / "text"
MOST = 40  # tokens; texts are padded to 16, 32 or 40


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


def make_texts(n=48, most=20, seed=0):
    """Texts about cats and dogs by turns, of 3 words to `most` more, each a little longer than the last."""
    draw = random.Random(seed)
    return [
        " ".join(["the", ("cat", "dog")[k % 2], *draw.choices("abcdefghij", k=k * (most + 1) // n), "."])
        for k in range(n)
    ]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    texts, others = make_texts(), make_texts(most=8, seed=1)
    random.Random(2).shuffle(others)
    scores = [round(len(text) / 80, 2) + 0.01 for text in texts]
    both = ["cat|long" if len(text) > 30 else "cat" if "cat" in text else "long" for text in texts]
    words = [text.split() for text in texts]
    tags = [["O", f"B-{row[1].upper()}", *["O"] * (len(row) - 2)] for row in words]
    return write_task_tables(folder, texts, others, both=both, scores=scores, words=words, tags=tags)


def prepared(
    table, backbone="text_cnn", bucketing=True, cache=EXACT, stages=(1,), head=None, dropout=0.3, **settings
):
    """A run on texts. `backbone`: one that is trained from scratch, or a folder of the fixtures."""
    is_scratch = backbone.startswith("text_")
    tree = {
        "data": {"source": str(table), "split": {"validation": 0.2, "test": 0.0}},
        "backbone": backbone if is_scratch else str(FOLDERS / backbone),
        "task": table.stem.removesuffix("_numbers"),
        "head": {"dropout": dropout},
        "plan": [{"train": each, "epochs": 1} for each in stages],
        "preprocessing": {"sequence_length": MOST, "bucketing": bucketing, "augment": "none"},
        "training": {"global_batch_size": 8, "learning_rate": 0.01},
        "cache": cache.model_dump(),
        **settings,
    }
    if is_scratch:
        shape = {"layers": 2, "width": 6, "embedding_size": 5, "vocabulary_size": 40, "dropout": dropout}
        tree["architecture"] = shape
    return prepare(load_config(tree).config, PythonObjects(head=head))


def store(made):
    """The parts of a run's model at its first stage, and the features that are stored there."""
    run, stage = made.trainable, made.stages[0]
    apply_freeze(run.model, run.groups, stage, run.batch_norm)
    parts = divide_stage(run)
    choice, features = store_features(run, stage, parts)
    assert choice.mode == "disk", choice.reason
    return parts, features


def require_same_batches(made, parts, features):
    """That what is read gives what the texts themselves give, batch by batch; the lengths of the batches."""
    run, stage, place = made.trainable, made.stages[0], Place(0, 1, 0)
    widths = set()
    pipelines = (
        lambda *given: training_pipeline(run, stage, place, *given),
        lambda *given: validation_pipeline(run, *given),
    )
    for make in pipelines:
        for (stored, *rest), (inputs, *targets) in zip(make(features), make(), strict=True):
            np.testing.assert_allclose(parts.upper(stored), run.model(inputs), atol=1e-5)
            for mine, wanted in zip(rest, targets, strict=True):
                np.testing.assert_array_equal(mine, wanted)
            if "padding_mask" in stored:
                np.testing.assert_array_equal(stored["padding_mask"], inputs["padding_mask"])
            widths.add(inputs["token_ids"].shape[1])
    return widths


@pytest.mark.parametrize("bucketing", [True, False])
@pytest.mark.parametrize(
    ("task", "backbone"),
    [
        ("classify", "text_cnn"),
        ("multilabel", "text_cnn"),
        ("regress", "text_cnn"),
        ("pair", "bert"),
        ("pair_numbers", "text_cnn"),
        ("tokens", "bert"),
        ("tokens", "text_cnn"),
        ("embed", "text_cnn"),
        ("classify", "deberta_v3"),
    ],
)
def test_batches_of_stored_texts_are_those_of_the_texts(task, backbone, bucketing, tables):
    made = prepared(tables[task], backbone, bucketing)
    widths = require_same_batches(made, *store(made))
    assert len(widths) > 1, "one length for all would be no test"


def test_a_backbone_without_a_mask_gets_texts_of_one_length(tables):
    made = prepared(tables["classify"], "f_net")
    assert require_same_batches(made, *store(made)) == {MOST}


def test_texts_of_endless_words_are_stored_as_the_model_sees_them(tmp_path):
    """So many characters are cut that the model sees fewer tokens than the text has."""
    endless = [" ".join([("cat", "dog")[k % 2] * 400] * (MOST + k)) for k in range(10)]
    texts = [*make_texts(30, most=8), *endless]
    table = write_table(tmp_path / "classify.csv", text=texts, label=[k % 2 for k in range(40)])
    made = prepared(table, "bert")
    assert (made.trainable.dataset.splits["train"].lengths == MOST).any()
    assert max(require_same_batches(made, *store(made))) < MOST


def test_features_are_found_again_with_and_without_buckets(tables):
    store(prepared(tables["classify"], bucketing=True))
    made = prepared(tables["classify"], bucketing=False)
    run, stage = made.trainable, made.stages[0]
    apply_freeze(run.model, run.groups, stage, run.batch_norm)
    parts = divide_stage(run)
    choice, features = choose_stage_cache(run, stage, parts)
    assert choice.missing == 0
    require_same_batches(made, parts, features)


def losses_of(made, folder):
    losses = Losses()
    trained = train_stages(made.trainable, made.stages, folder, [losses])
    return np.array(losses.values), trained


def require_same_losses(with_cache, without):
    (losses, trained), (wanted, plain) = with_cache, without
    assert {record.cache["mode"] for record in trained.records} == {"disk"}
    assert {record.cache["mode"] for record in plain.records} == {"off"}
    np.testing.assert_allclose(losses, wanted, rtol=1e-5, atol=1e-5)
    numbers = trained.history.select_dtypes("number")
    np.testing.assert_allclose(numbers, plain.history[numbers.columns], rtol=1e-4, atol=1e-4)
    assert len(set(np.round(losses, 6))) > 4, "a loss that never moves would be equal, too"


@pytest.mark.parametrize(
    ("task", "backbone", "bucketing", "stages"),
    [
        ("multilabel", "text_cnn", True, (1,)),
        ("regress", "text_cnn", False, (1,)),
        ("pair_numbers", "text_cnn", True, ("head",)),
        pytest.param("classify", "bert", False, (1, "head"), marks=pytest.mark.slow),
        pytest.param("classify", "deberta_v3", True, (2, 1), marks=pytest.mark.slow),
    ],
)
def test_losses_of_texts_of_many_lengths_are_the_same(task, backbone, bucketing, stages, tables, tmp_path):
    """With dropout above the boundary, which draws for the padding, too."""
    found = []
    for name, cache in (("with", EXACT), ("without", OFF)):
        made = prepared(tables[task], backbone, bucketing, cache, stages)
        found.append(losses_of(made, tmp_path / name))
    require_same_losses(*found)


def picture_run(cache, task):
    """As `cached_run`, with targets of another task, and a head for them with weights of its labels."""
    run = cached_run(cache)
    splits = {}
    for name, examples in run.dataset.splits.items():
        colour = examples.targets
        labels, values = [colour == 0, colour != 1, colour == 2], [colour, colour**2 - 1.5]
        columns = labels if task == "multilabel" else values
        splits[name] = replace(examples, targets=np.stack(columns, axis=1).astype("float32"))
    targets = splits["train"].targets
    keras.utils.set_random_seed(0)
    options = HeadConfig(dropout=0.3, class_weight="balanced" if task == "multilabel" else "none")
    classes = ("a", "b", "c") if task == "multilabel" else None
    with run.strategy.scope():
        head = make_head(options, task, n_outputs=targets.shape[1], targets=targets, classes=classes)
        backbone = small_backbone()
        model = build_model(backbone, head)
    return replace(
        run,
        head=head,
        model=model,
        groups=group_layers(backbone),
        dataset=replace(run.dataset, splits=splits),
    )


@pytest.mark.parametrize("task", ["multilabel", "regress"])
def test_losses_of_pictures_with_several_targets_are_the_same(task, tmp_path):
    with_cache = train(picture_run(EXACT, task), tmp_path / "with", HEAD, TOP)
    require_same_losses(with_cache, train(picture_run(OFF, task), tmp_path / "without", HEAD, TOP))


def test_weights_accumulation_and_averages_are_those_of_a_run_without(tmp_path):
    """Weights of examples from the source, and of their classes; updates of 15 examples in parts of 5."""
    found = []
    for name, cache in (("with", EXACT), ("without", OFF)):
        run = cached_run(cache, batch_size=5, accumulate=3, ema=0.8, dropout=0.3)
        weights = np.linspace(0.2, 3, 40, dtype="float32")
        splits = dict(run.dataset.splits)
        splits["train"] = replace(splits["train"], weights=weights)
        run = replace(run, dataset=replace(run.dataset, splits=splits), example_weights=weights[::-1].copy())
        found.append(train(run, tmp_path / name, HEAD, TOP))
    require_same_losses(*found)


def test_texts_on_two_replicas_are_the_same(tables, tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import json
from pathlib import Path
from test_feature_cache_tasks import EXACT, OFF, losses_of, prepared
found = {{}}
for name, cache in (("with", EXACT), ("without", OFF)):
    table = Path({str(tables["classify"])!r})
    made = prepared(table, cache=cache, dropout=0.0, strategy="mirrored")
    losses, trained = losses_of(made, Path({str(tmp_path)!r}) / name)
    found[name] = losses.tolist(), trained.records[0].cache["mode"], made.trainable.n_replicas
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["with"][1:] == ["disk", 2]
    np.testing.assert_allclose(found["with"][0], found["without"][0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "axis", "shape"),
    [
        (lambda x: x, "tokens", (4,)),
        (lambda x: keras.ops.mean(x, axis=1), None, (4,)),
        (lambda x: keras.ops.repeat(x[:, :1], 3, axis=1), None, (3, 4)),
        (lambda x: x[:, 1:-1], "other", ()),
        (lambda x: x[:, :11], "other", ()),
        (lambda x: keras.ops.concatenate([x[:, :1], x], axis=1), "other", ()),
        (lambda x: keras.ops.transpose(x, (0, 2, 1)), "other", ()),
    ],
    ids=["tokens", "mean", "one size", "without the ends", "the first few", "one more", "across"],
)
def test_what_an_axis_counts_is_told_by_its_lengths(change, axis, shape):
    inputs = {"token_ids": keras.Input((None,), dtype="int32", name="token_ids")}
    features = change(keras.layers.Embedding(9, 4)(inputs["token_ids"]))
    lower = keras.Model(inputs, {"features": features})
    (spec,) = column_specs(Parts(lower, lower, {}), MOST)
    assert (spec.axis, spec.shape) == (axis, shape)


def test_a_stage_whose_features_are_not_as_long_as_their_text_runs_without_the_cache(tables, tmp_path):
    made = prepared(tables["classify"], "text_mlp", stages=("head", 1))
    require_room_for(made.trainable, made.stages)
    _, trained = losses_of(made, tmp_path)
    assert [record.cache["mode"] for record in trained.records] == ["disk", "off"]
    assert "neither the tokens nor the words" in trained.records[1].cache["reason"]


def blind(sequence):
    return keras.layers.Dense(2)(keras.layers.LSTM(3)(sequence))


def seeing(sequence, mask):
    return keras.layers.Dense(2)(keras.layers.LSTM(3)(sequence, mask=keras.ops.cast(mask, "bool")))


def from_the_end(sequence, mask):
    return seeing(keras.ops.flip(sequence, axis=1), keras.ops.flip(mask, axis=1))


@pytest.mark.parametrize("stage", ["head", 1])
def test_a_head_that_reads_padding_gets_no_features_without_it(stage, tables):
    made = prepared(tables["classify"], "bert", stages=(stage,), head=blind)
    mode, why = reason(made.trainable, made.stages[0])
    assert mode == "off"
    assert "reads the padding" in why
    made = prepared(tables["classify"], "bert", stages=(stage,), head=seeing)
    require_same_batches(made, *store(made))


def test_features_in_another_order_than_their_text_are_not_stored(tables):
    made = prepared(tables["classify"], "bert", stages=("head",), head=from_the_end)
    assert reason(made.trainable, made.stages[0])[0] == "off"
    made = prepared(tables["classify"], "bert", stages=(1,), head=from_the_end)  # turned above the boundary
    require_same_batches(made, *store(made))


def test_what_is_the_same_for_every_text_does_not_cross_the_boundary(tables):
    """DeBERTa's table of relative positions, (8, 8) here, enters every block."""
    made = prepared(tables["classify"], "deberta_v3", stages=(2, 1))
    run = made.trainable
    for stage in made.stages:
        apply_freeze(run.model, run.groups, stage, run.batch_norm)
        specs = {spec.name: (spec.axis, spec.shape) for spec in column_specs(divide_stage(run), MOST)}
        assert specs == {
            "features": ("tokens", (8,)),
            "features_1": (None, (1, 8)),  # zeros, from which it is made
            "padding_mask": ("tokens", ()),
        }
