"""Which precision and compilation a stage gets: what is tried, what is taken, what is remembered."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from test_lr_range import draws

from tlkit.errors import TrainingError
from tlkit.plans import Stage
from tlkit.training import train_stages
from tlkit.training.cache.boundary import divide
from tlkit.training.compiling import compile_stage
from tlkit.training.compute import candidates as compute_candidates
from tlkit.training.compute import choice as compute_choice
from tlkit.training.compute import memory as compute_memory
from tlkit.training.compute import trial as compute_trial
from tlkit.training.compute.candidates import list_candidates
from tlkit.training.compute.choice import Work, next_to_try, preview_compute
from tlkit.training.compute.memory import key_of_stage, recall
from tlkit.training.compute.precision import Setting
from tlkit.training.compute.trial import Measured, disagreement, measure, trial_batches
from tlkit.training.freeze import apply_freeze
from tlkit.training.pipelines import training_pipeline
from tlkit.training.trainable import Place

from test_training import make_run, values

PLAIN, HALF = Setting(), Setting("mixed_bfloat16")
COMPILED, BOTH = Setting(xla=True), Setting("mixed_bfloat16", xla=True)
GRID = (PLAIN, HALF, COMPILED, BOTH)
ALL = Stage("all", "all", 12, 0.003)  # of 60 steps


@pytest.fixture(autouse=True)
def bfloat16_and_a_memory_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(compute_candidates, "without_bfloat16", lambda strategy: "")


@pytest.fixture
def trials(monkeypatch):
    """Trials of any stage, with seconds by the setting: {setting: (seconds, loss)} may be changed."""
    monkeypatch.setattr(compute_choice, "WORTH", math.inf)
    table = {PLAIN: (2.0, 1.0), HALF: (1.0, 1.0), COMPILED: (3.0, 1.0), BOTH: (0.5, 1.0)}
    tried = []

    def fake(model, batches, **options):
        precision = "float32" if model.casting is None else model.casting.precision
        setting = Setting(precision, model.jit_compile)
        tried.append(setting)
        seconds, loss = table[setting]
        return Measured(1.0, seconds, (loss,) * 6)

    monkeypatch.setattr(compute_choice, "measure", fake)
    return table, tried


def frozen_run(stage=ALL, **changes):
    run = replace(make_run(n=40, gradient_health=False), **changes)
    apply_freeze(run.model, run.groups, stage, run.batch_norm)
    return run


def seed_all():
    keras.utils.set_random_seed(3)
    tf.random.set_global_generator(tf.random.Generator.from_seed(3))


def seeded_draws():
    seed_all()
    return draws()


def choose(run, stage=ALL, parts=None):
    pipeline = training_pipeline(run, stage, Place(0, 1, 0))

    def compile_with(setting):
        return compile_stage(run, stage, parts, setting=setting)

    return compute_choice.choose_compute(run, stage, parts, pipeline, compile_with, reads_features=False)


AUTO = {"precision": "auto", "xla": "auto"}


# What is tried


def test_what_cannot_repay_is_not_tried():
    known = {PLAIN: Measured(first_seconds=10.0, step_seconds=0.1)}
    assert next_to_try(GRID, known, Work(1_000)) is None
    assert next_to_try(GRID, known, Work(3_000)) == HALF
    known[HALF] = Measured(10.0, math.inf, problem="slower")
    assert next_to_try(GRID, known, Work(3_000)) is None  # compiling takes longer than tracing
    assert next_to_try(GRID, known, Work(20_000)) == COMPILED


def test_a_faster_setting_leaves_less_to_gain():
    known = {PLAIN: Measured(1.0, 1.0), HALF: Measured(1.0, 0.1)}
    assert next_to_try((PLAIN, HALF, COMPILED), known, Work(400)) is None
    known[HALF] = Measured(1.0, 0.9)
    assert next_to_try((PLAIN, HALF, COMPILED), known, Work(400)) == COMPILED


def test_what_compiles_for_many_shapes_has_to_be_much_faster():
    run = frozen_run(xla="auto")
    assert compute_choice._work(run, ALL) == Work(60, 1)  # for validation
    assert compute_choice._work(replace(run, global_batch_size=9), ALL) == Work(60, 3)
    known = {PLAIN: Measured(1.0, 1.0, (1.0,)), COMPILED: Measured(10.0, 0.5, (1.0,))}
    assert compute_choice._fastest((PLAIN, COMPILED), known, Work(100, 2)) == COMPILED
    assert compute_choice._fastest((PLAIN, COMPILED), known, Work(100, 20)) == PLAIN


def test_two_changes_of_which_each_alone_is_slower_are_not_tried_together():
    known = {PLAIN: Measured(1.0, 1.0), HALF: Measured(1.0, 1.2), COMPILED: Measured(1.0, 1.2)}
    assert next_to_try(GRID, known, Work(10_000)) is None
    known[HALF] = Measured(1.0, 0.8)
    assert next_to_try(GRID, known, Work(10_000)) == BOTH


def test_candidates_are_those_of_the_config_and_the_machine(monkeypatch):
    def settings(**changes):
        return list_candidates(frozen_run(**changes), None, reads_features=False).settings

    assert settings() == (PLAIN,)
    assert settings(**AUTO) == GRID
    assert settings(precision="auto") == (PLAIN, HALF)
    assert settings(precision="mixed_bfloat16", xla="auto") == (HALF, BOTH)
    assert settings(**AUTO, deterministic=True) == (PLAIN,)
    monkeypatch.setattr(compute_candidates, "device_kind", lambda strategy: "GPU")
    assert Setting("mixed_float16") in settings(precision="auto")
    monkeypatch.setattr(compute_candidates, "without_bfloat16", lambda strategy: "too old")
    found = list_candidates(frozen_run(precision="auto"), None, reads_features=False)
    assert found.settings == (PLAIN, Setting("mixed_float16"))
    assert found.left_out == ("mixed_bfloat16 not tried: too old",)


def test_what_is_known_not_to_compile_is_not_tried():
    run = frozen_run(**AUTO)
    run = replace(run, training=run.training.model_copy(update={"accumulate": 2}))
    found = list_candidates(run, None, reads_features=False)
    assert found.settings == (PLAIN, HALF)
    (why,) = found.left_out
    assert why.startswith("XLA not tried: it cannot compile the parts of training.accumulate")


def test_a_head_on_stored_features_has_no_precision():
    head = Stage("head", "head", 12, 0.003)
    run = frozen_run(head, precision="mixed_bfloat16")
    parts = divide(run.model, run.groups)
    assert list_candidates(run, parts, reads_features=True).settings == (PLAIN,)
    assert list_candidates(run, parts, reads_features=False).settings == (HALF,)


# What is taken


def test_the_fastest_is_taken(trials):
    model, choice = choose(frozen_run(**AUTO))
    assert choice.setting == BOTH
    assert (model.jit_compile, model.casting.precision) == (True, "mixed_bfloat16")
    assert choice.step_seconds == {str(PLAIN): 2.0, str(HALF): 1.0, str(COMPILED): 3.0, str(BOTH): 0.5}
    assert choice.reason.startswith("mixed_bfloat16 with XLA takes 500 ms a step")


def test_a_fast_one_whose_losses_disagree_is_not_taken(trials):
    table, _ = trials
    table[HALF], table[COMPILED], table[BOTH] = (0.1, 1.2), (1.96, 1.0), (0.1, math.nan)
    model, choice = choose(frozen_run(**AUTO))
    assert choice.setting == PLAIN
    assert model.casting is None
    assert "mixed_bfloat16: its losses differ from float32's (1.2 in place of 1)" in choice.reason
    assert "mixed_bfloat16 with XLA: its losses are not finite" in choice.reason


def test_other_masks_of_dropout_are_no_disagreement():
    exact, again, found = (Measured(losses=(loss,) * 6) for loss in (1.0, 1.03, 1.1))
    assert disagreement(found, exact, None)
    assert not disagreement(found, exact, again)


def test_a_layer_that_knows_float32_alone_is_a_reason_and_no_failure(monkeypatch, capfd):
    monkeypatch.setattr(compute_choice, "WORTH", math.inf)
    run = frozen_run(precision="auto")

    def stubborn(inputs):
        return tf.matmul(inputs, tf.ones((4, 4), tf.float32))

    stem = next(layer for layer in run.model._flatten_layers() if layer.name == "stem_relu")
    monkeypatch.setattr(stem, "call", stubborn)
    _, choice = choose(run)
    assert choice.setting == PLAIN
    assert "mixed_bfloat16: " in choice.reason
    assert "computes in float32" in capfd.readouterr().err
    with pytest.raises(TrainingError, match=r"cannot compute in mixed_bfloat16: .*Use precision: float32"):
        choose(replace(run, precision="mixed_bfloat16"))


def test_a_deterministic_run_tries_nothing(trials):
    _, choice = choose(frozen_run(**AUTO, deterministic=True))
    assert (choice.setting, trials[1]) == (PLAIN, [])
    assert choice.reason == "deterministic: true leaves nothing to timing"


def test_a_short_stage_tries_nothing(trials):
    _, choice = choose(frozen_run(Stage("all", "all", 2, 0.1), **AUTO), Stage("all", "all", 2, 0.1))
    assert (choice.setting, trials[1]) == (PLAIN, [])
    assert choice.reason == "10 steps are too few to try another setting"


# What a trial leaves


def test_a_trial_leaves_weights_optimizer_and_chance_as_they_were():
    run = replace(make_run(dropout=0.3, ema=0.9), precision="mixed_float16")
    apply_freeze(run.model, run.groups, ALL, "train")
    model = compile_stage(run, ALL, None, setting=Setting("mixed_float16"))
    batches = trial_batches(training_pipeline(run, ALL, Place(0, 1, 0)))
    expected = seeded_draws()
    seed_all()
    states = {id(each): each.numpy() for each in [*run.model.variables, *model.optimizer.variables]}
    found = measure(model, batches)
    assert found.problem == ""
    assert len(found.losses) == 6
    for each in [*run.model.variables, *model.optimizer.variables]:
        assert np.array_equal(states[id(each)], each.numpy()), each.path
    assert draws() == expected


def test_a_run_that_tried_others_and_took_float32_is_bit_for_bit_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(compute_choice, "WORTH", math.inf)
    monkeypatch.setattr(compute_choice, "BETTER", 0.0)
    ended = []
    for precision in ("float32", "auto"):
        run = replace(make_run(n=40, dropout=0.2, gradient_health=False), precision=precision)
        trained = train_stages(run, [ALL], tmp_path / precision)
        ended.append((trained.history, values(run.model)))
    assert len(trained.records[0].compute["step_seconds"]) == 2
    pd.testing.assert_frame_equal(ended[0][0], ended[1][0], check_exact=True)
    assert all(np.array_equal(ended[0][1][path], ended[1][1][path]) for path in ended[0][1])


def test_a_slow_setting_is_cut_off():
    run = frozen_run()
    batches = trial_batches(training_pipeline(run, ALL, Place(0, 1, 0)))
    found = measure(compile_stage(run, ALL, None), batches, limit=0.0)
    assert (found.problem, len(found.losses)) == ("slower", 3)


@pytest.mark.parametrize("precision", ["auto", "mixed_bfloat16"])
def test_what_is_wrong_with_the_data_is_not_the_fault_of_a_setting(precision, monkeypatch):
    monkeypatch.setattr(compute_choice, "WORTH", math.inf)
    run = frozen_run(precision=precision)

    def read(batch):
        raise FileNotFoundError("a.png is gone")

    batches = tf.data.Dataset.range(9).map(lambda number: tf.py_function(read, [number], tf.float32))

    def compile_with(setting):
        return compile_stage(run, ALL, None, setting=setting)

    with pytest.raises(tf.errors.OpError, match=r"a\.png is gone"):
        compute_choice.choose_compute(run, ALL, None, batches, compile_with, reads_features=False)


def test_a_worker_that_is_lost_is_not_the_fault_of_a_setting(monkeypatch):
    run = frozen_run(precision="mixed_bfloat16")
    monkeypatch.setattr(compute_trial, "is_multi_worker", lambda strategy: True)
    model = compile_stage(run, ALL, None, setting=HALF)

    def fit(*args, **kwargs):
        raise tf.errors.UnavailableError(None, None, "Collective ops is aborted by: connection reset")

    monkeypatch.setattr(model, "fit", fit)
    with pytest.raises(TrainingError, match="Another worker stopped"):
        measure(model, training_pipeline(run, ALL, Place(0, 1, 0)))


# What is done where memory runs out


@pytest.fixture
def room(monkeypatch):
    """Stands in for a device: how many pictures it has room for, and what limits a run to that."""
    room = {"pictures": 4}

    def require_room(count):
        if count > room["pictures"]:
            raise MemoryError(f"no room for {count}")
        return count

    def call(inputs):
        count = tf.numpy_function(require_room, [tf.shape(inputs)[0]], tf.int32)
        with tf.control_dependencies([count]):
            return tf.identity(inputs)

    def limit(run):
        stem = next(layer for layer in run.model._flatten_layers() if layer.name == "stem_relu")
        monkeypatch.setattr(stem, "call", call)
        return run

    return room, limit


@pytest.mark.parametrize(
    "changes", [{"xla": "auto"}, {"precision": "auto"}, {"precision": "mixed_bfloat16"}], ids=str
)
def test_a_setting_whose_batches_do_not_fit_is_told_which_do(changes, room):
    run = room[1](frozen_run(**changes))
    with pytest.raises(TrainingError, match=r"Out of memory in stage 'all'.* of 8. 4 fits: --batch-size 4"):
        choose(run)


@pytest.mark.parametrize("precision", ["auto", "mixed_bfloat16"])
def test_memory_that_runs_out_in_a_trial_keeps_the_best_model(precision, room, tmp_path):
    limits, limit = room
    run = limit(replace(make_run(n=40, gradient_health=False), precision=precision))
    limits["pictures"], best = 8, {}

    class Shrink(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            limits["pictures"] = 4
            best.update(values(run.model))

    with pytest.raises(TrainingError, match="4 fits: --batch-size 4") as e:
        train_stages(run, [Stage("head", "head", 1, 0.01), ALL], tmp_path, [Shrink()])
    assert e.value.keeps_best
    assert all(np.array_equal(best[path], value) for path, value in values(run.model).items())


def test_a_setting_that_needs_more_memory_than_there_is_is_not_taken(trials, monkeypatch):
    fake = compute_choice.measure

    def short_of_memory(model, batches, **options):
        if model.casting is not None:
            raise tf.errors.ResourceExhaustedError(None, None, "no room")
        return fake(model, batches, **options)

    monkeypatch.setattr(compute_choice, "measure", short_of_memory)
    _, choice = choose(frozen_run(precision="auto"))
    assert choice.setting == PLAIN
    assert "mixed_bfloat16: memory ran out" in choice.reason


def test_a_setting_that_does_not_run_keeps_the_best_model(monkeypatch, tmp_path):
    run = replace(make_run(n=40, gradient_health=False), precision="mixed_bfloat16")
    best = {}

    def stubborn(inputs):
        return tf.matmul(inputs, tf.ones((4, 4), tf.float32))

    class Change(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            best.update(values(run.model))
            stem = next(layer for layer in run.model._flatten_layers() if layer.name == "stem_relu")
            monkeypatch.setattr(stem, "call", stubborn)

    with pytest.raises(TrainingError, match="cannot compute in mixed_bfloat16") as e:
        train_stages(run, [Stage("head", "head", 1, 0.01), ALL], tmp_path, [Change()])
    assert e.value.keeps_best
    assert all(np.array_equal(best[path], value) for path, value in values(run.model).items())


# What is remembered


def test_the_answer_is_remembered_and_said_so(trials, capfd):
    choose(frozen_run(**AUTO))
    assert len(trials[1]) == 4
    run = frozen_run(**AUTO)
    preview = preview_compute(run, ALL, None, reads_features=False)
    _, choice = choose(run)
    assert (choice.setting, preview.setting) == (BOTH, BOTH)
    assert choice.reason.endswith("; remembered")
    assert trials[1][4:] == [BOTH]  # one step, to see that it still runs
    assert "Stage all computes in mixed_bfloat16 with XLA" in capfd.readouterr().err


def test_what_a_dry_run_says_is_what_would_be_tried(trials):
    preview = preview_compute(frozen_run(**AUTO), ALL, None, reads_features=False)
    assert trials[1] == []
    assert preview.reason == (
        "would be timed against mixed_bfloat16, float32 with XLA, mixed_bfloat16 with XLA, as far as that "
        "repays"
    )


def test_a_changed_machine_model_boundary_or_batch_is_measured_anew(monkeypatch):
    run = frozen_run()

    def key(run=run, stage=ALL, parts=None, reads_features=False):
        return key_of_stage(run, stage, parts, reads_features=reads_features)

    head = Stage("head", "head", 2, 0.1)
    assert key() == key(frozen_run())
    keys = [
        key(),
        key(replace(run, global_batch_size=4)),
        key(replace(run, backbone="another")),
        key(replace(run, training=run.training.model_copy(update={"optimizer": "sgd"}))),
        key(reads_features=True),
        key(frozen_run(head), head),
    ]
    run.model.layers[1].layers[-1].max_value = 6.0
    assert run.model.layers[1].layers[-1].get_config()["max_value"] == 6.0
    keys.append(key())
    monkeypatch.setattr(compute_memory, "device_name", lambda strategy: "another machine")
    keys.append(key())
    monkeypatch.setattr(compute_memory.metadata, "version", lambda name: "99")
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_damaged_memory_is_no_memory(tmp_path):
    (tmp_path / "home" / "compute").mkdir(parents=True)
    for text in ("", "[1]", '[{"setting": {"precision": "float32"}}]', "{}"):
        (tmp_path / "home" / "compute" / "abc.json").write_text(text)
        assert recall("abc") == {}
