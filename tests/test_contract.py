"""Every family under every head: build, train one step, save, load, export.

The smallest member of each family stands for it. What runs every time is few layers, or the backbone that
runs have by default; `pytest -m slow tests/test_contract.py` runs the others.
"""

import keras
import numpy as np
import pytest
from small_keras_hub import ARGUMENTS, small_entry
from test_backbones_zoo import allowed_size

from tlkit import zoo
from tlkit.backbones import load
from tlkit.config import HeadConfig, PreprocessingConfig, TrainingConfig
from tlkit.exporting import export_saved_model
from tlkit.freezing import group_layers
from tlkit.heads import make_head, to_scores
from tlkit.model import build_model
from tlkit.plans import Stage
from tlkit.preprocessing import make_preprocessing
from tlkit.training import apply_freeze
from tlkit.training.optimizing.optimizer import make_optimizer

ALWAYS = {
    ("efficientnet_lite", "classify"),
    ("image_scratch", "multilabel"),
    ("image_scratch", "regress"),
}
ALWAYS_SMALL = "ViTBackbone"
TASKS = ("classify", "multilabel", "regress")
FAMILIES = {
    entry.family: entry
    for entry in sorted(zoo.entries(), key=lambda entry: entry.params, reverse=True)
    if entry.modality == "image"
}  # the last, hence smallest, of each family stays

CASES = [
    pytest.param(
        entry, task, id=f"{family}-{task}", marks=[] if (family, task) in ALWAYS else [pytest.mark.slow]
    )
    for family, entry in FAMILIES.items()
    for task in TASKS
]


def test_what_runs_every_time_is_in_the_zoo():
    assert {family for family, _ in ALWAYS} <= set(FAMILIES)
    assert {task for _, task in ALWAYS} == set(TASKS)
    assert ALWAYS_SMALL in ARGUMENTS


@pytest.mark.parametrize(("entry", "task"), CASES)
def test_a_family_builds_trains_saves_loads_and_exports_under_a_head(entry, task, tmp_path):
    check(entry, task, HeadConfig(), tmp_path)


@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(backbone, marks=[] if backbone == ALWAYS_SMALL else [pytest.mark.slow])
        for backbone in sorted(ARGUMENTS)
    ],
)
def test_a_small_backbone_of_keras_hub_does_so_too(backbone, tmp_path):
    entry = small_entry(backbone)
    check(entry, "classify", HeadConfig(pooling=entry.pooling), tmp_path)


def check(entry, task, options, tmp_path):
    size = allowed_size(entry, 32)
    preprocessing = make_preprocessing(entry.input, PreprocessingConfig(image_size=size, augment="none"))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, size, size, 3), dtype="uint8")
    targets = {
        "classify": np.array([0, 1, 2, 0], "int32"),
        "multilabel": np.eye(3, dtype="float32")[[0, 1, 2, 0]],
        "regress": np.array([5.0, 6.0, 7.0, 8.0], "float32"),
    }[task]
    backbone = load(entry, weights=False, image_size=size, seed=0)
    head = make_head(options, task, n_outputs=1 if task == "regress" else 3, targets=targets)
    backbone = backbone.for_head(head.uses_pooler)
    model = build_model(backbone, head)

    stage = Stage("all", "all", 1, 1e-3)
    apply_freeze(model, group_layers(backbone), stage)
    optimizer = make_optimizer(TrainingConfig(warmup=0.0), stage, 2, model.trainable_variables)
    model.compile(optimizer, head.loss, jit_compile=False)
    before = [weight.numpy() for weight in model.trainable_weights]
    inputs = preprocessing.encode(pictures)
    assert np.isfinite(model.train_on_batch(inputs, targets))
    moved = [
        not np.array_equal(old, new.numpy()) for old, new in zip(before, model.trainable_weights, strict=True)
    ]
    assert np.mean(moved) > 0.9  # a unit that is dead under random weights has no gradient

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(again(inputs), model(inputs), rtol=1e-5, atol=1e-5)

    report = export_saved_model(
        model,
        preprocessing,
        tmp_path / "export" / "1",
        objective=task,
        classes=None if task == "regress" else ("a", "b", "c"),
        to_scores=lambda outputs: to_scores(task, outputs),
        entry=entry,
    )
    assert set(report.signatures) == {"serving_default", "tensor"}
