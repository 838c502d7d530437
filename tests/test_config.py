from __future__ import annotations

from pathlib import Path

import pytest

from tlkit.config import (
    PLANS,
    RunConfig,
    StageSpec,
    dump,
    flatten,
    load_config,
    read_config,
    read_yaml,
    to_yaml,
    validate,
)
from tlkit.config.base import Options
from tlkit.config.load import set_path
from tlkit.config.training import ClipConfig
from tlkit.errors import ConfigError, StorageError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def message_of(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_no_file_gives_the_defaults() -> None:
    loaded = load_config()
    assert loaded.config == RunConfig()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(flatten(dump(RunConfig())))


def test_override_beats_option_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "seed: 1\ntraining: {epochs: 1, warmup: 0.3}\nhead: {dropout: 0.1}\n")
    loaded = load_config(file, ["training.epochs=3"], {"training.epochs": 2, "seed": 2})
    config = loaded.config
    assert (config.training.epochs, config.seed, config.head.dropout, config.training.warmup) == (
        3,
        2,
        0.1,
        0.3,
    )
    assert loaded.origins["training.epochs"] == "override training.epochs"
    assert loaded.origins["seed"] == "option seed"
    assert loaded.origins["head.dropout"] == str(file)
    assert loaded.origins["head.pooling"] == "default"


def test_a_later_override_beats_an_earlier_one() -> None:
    assert load_config(overrides=["seed=1", "seed=2"]).config.seed == 2


def test_a_mapping_is_a_source_and_stays_as_it_was() -> None:
    tree = {"training": {"epochs": 1}}
    loaded = load_config(tree, ["training.epochs=2", "head.dropout=0"])
    assert loaded.config.training.epochs == 2
    assert tree == {"training": {"epochs": 1}}


def test_all_mistakes_are_told_together_with_their_paths_and_nearest_names() -> None:
    text = message_of(
        "hed.dropout=1",
        "seeed=1",
        "data.colums.path=x",
        "training.epochs=0",
        "strategy=mirored",
        "plan=grdual",
    )
    for part in (
        "unknown key 'hed' (did you mean 'head'?)",
        "unknown key 'seeed' (did you mean 'seed'?)",
        "unknown key 'data.colums' (did you mean 'data.columns'?)",
        "training.epochs: should be greater than or equal to 1, received 0",
        "strategy: should be 'auto', 'cpu', 'gpu', 'mirrored', 'multi_worker' or 'tpu', received 'mirored'",
        "plan: unknown plan 'grdual'. Did you mean 'gradual'?",
    ):
        assert part in text


def test_a_key_at_the_wrong_level_is_pointed_to_the_right_one() -> None:
    assert "unknown key 'epochs' (did you mean 'training.epochs'?)" in message_of("epochs=3")


def test_a_key_like_no_other_lists_the_known_ones() -> None:
    assert "unknown key 'data.split.xyz' (known: validation, test, group_by, stratify_by)" in message_of(
        "data.split.xyz=1"
    )


def test_a_value_of_several_kinds_is_one_mistake() -> None:
    assert message_of("training.global_batch_size=abc") == (
        "config: training.global_batch_size: should be 'auto' or a valid integer, received 'abc'"
    )


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("data=photos/", "data: should be a mapping of keys, received 'photos/'"),
        ("plan=3", "plan: should be a plan's name, its options, or a list of at least one stage, received 3"),
        ("plan=[]", "plan: should be a plan's name"),
        ("training.learning_rate=.inf", "training.learning_rate"),
        ("data.split.validation=0.9", "validation + test must be below 1, received 0.9 + 0.15"),
        ("training.momentum=0.8", "momentum is an option of optimizer: sgd, received optimizer: adamw"),
        ("training={optimizer: adam, weight_decay: 0.1}", "weight_decay is not an option of optimizer: adam"),
        ("training.optimizer=adamm", "training.optimizer: should be 'adamw', 'adam', 'sgd', 'lion'"),
        ("training.schedule=cosin", "training.schedule: should be 'cosine', 'one_cycle', 'linear'"),
        ("training.learning_rate=0", "training.learning_rate: should be greater than 0"),
        ("training.learning_rate=.nan", "training.learning_rate: should be a valid number, received '.nan'"),
        ("training.learning_rates={head: -1}", "training.learning_rates.head: should be greater than 0"),
        ("training.learning_rates={head: .nan}", "training.learning_rates.head: should be a valid number"),
        ("training.layer_decay=0", "training.layer_decay: should be greater than 0"),
        ("training.layer_decay=1.5", "training.layer_decay: should be less than or equal to 1"),
        ("training.warmup=1", "training.warmup: should be less than 1"),
        ("training.ema=1", "training.ema: should be less than 1"),
        ("training.clip.limit=0", "training.clip.limit: should be greater than 0"),
        ("training.clip.by=sum", "training.clip.by: should be 'global_norm', 'norm' or 'value'"),
        ("training.epochs=0", "training.epochs: should be greater than or equal to 1, received 0"),
        ("plan=lp_ftt", "unknown plan 'lp_ftt'. Did you mean 'lp_ft'?"),
        ("plan={name: milestones, milestones: {}}", "milestones should name at least one epoch"),
        ("plan={name: milestones, epochs: 6}", "received epoch 6 of 6 epochs, counted from 0"),
        ("plan={name: milestones, milestones: {2: 3, 5: 1}}", "train more groups than the one before"),
        ("plan={name: milestones, milestones: {2: all, 5: 1}}", "than the one before, received all, 1"),
        ("plan={name: milestones, milestones: {-1: 2}}", "should be greater than or equal to 0"),
        ("plan=[{train: all, epochs: 1, layer_decay: 0}]", "plan.0.layer_decay: should be greater than 0"),
        ("plan=[{train: all, epochs: 1, schedule: saw}]", "plan.0.schedule: should be 'cosine'"),
        ("seed=-1", "seed: should be greater than or equal to 0, received -1"),
        (
            "cache.views=1000000000",
            "cache.views: should be at most 32: each is one more pass through the frozen",
        ),
        (
            "preprocessing.augment=[random_flp]",
            "unknown augmentation 'random_flp'. Did you mean 'random_flip'?",
        ),
        ("=3", "not of the form key.path=value"),
        ("seed=[1", "the value is not valid YAML"),
        ("seed.x.y=1", "seed: should be a valid integer"),
    ],
)
def test_a_wrong_value_is_one_clear_line(override: str, part: str) -> None:
    assert part in message_of(override)


def test_an_override_below_a_plain_value_is_an_error() -> None:
    assert "'seed' holds 3, not a mapping" in message_of("seed=3", "seed.x=1")
    assert "'0' holds 64, not a mapping" in message_of("head.hidden_units=[64]", "head.hidden_units.0.x=1")


def test_a_plan_by_name_then_options_of_it() -> None:
    loaded = load_config(overrides=["plan=head", "plan.epochs=3"])
    assert dump(loaded.config)["plan"] == {"name": "head", "epochs": 3}
    assert loaded.origins["plan.name"] == "override plan"
    assert loaded.origins["plan.epochs"] == "override plan.epochs"


def test_a_named_plan_brings_its_own_defaults() -> None:
    assert load_config(overrides=["plan=head"]).origins["plan.epochs"] == "default"


def test_plan_options_without_a_name_are_those_of_the_plan_top() -> None:
    default = dump(load_config(overrides=["plan=top"]).config)["plan"]
    assert dump(load_config(overrides=["plan.epochs=2"]).config)["plan"] == {**default, "epochs": 2}


def test_a_plan_option_replaces_the_plan_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "plan: {name: head, epochs: 3}\n")
    loaded = load_config(file, [], {"plan": "full"})
    assert dump(loaded.config)["plan"]["name"] == "full"
    assert loaded.origins["plan.name"] == "option plan"
    assert loaded.origins["plan.epochs"] == "default"


def test_stages_are_written_in_yaml_and_overridden_by_index(tmp_path: Path) -> None:
    file = write(
        tmp_path / "c.yaml",
        "plan:\n- {name: warm, train: head, epochs: 2}\n- {train: 3, epochs: 4, learning_rate: 1e-4}\n",
    )
    loaded = load_config(file, ["plan.1.epochs=5"])
    assert loaded.config.plan == (
        StageSpec(name="warm", train="head", epochs=2),
        StageSpec(train=3, epochs=5, learning_rate=1e-4),
    )
    assert loaded.origins["plan.0.train"] == str(file)
    assert loaded.origins["plan.0.patience"] == "default"
    assert loaded.origins["plan.1.epochs"] == "override plan.1.epochs"
    with pytest.raises(ConfigError, match="'2' is not an index of a list of 2"):
        load_config(file, ["plan.2.epochs=5"])


def test_mistakes_in_a_stage_name_the_stage() -> None:
    text = message_of("plan=[{train: hed, epochs: 1}, {train: 2, epoch: 4}]")
    assert "plan.0.train: should be 'head' or 'all' or a valid integer, received 'hed'" in text
    assert "unknown key 'plan.1.epoch' (did you mean 'plan.1.epochs'?)" in text
    assert "plan.1.epochs: is needed" in text


def test_lists_replace_each_other_and_clear() -> None:
    loaded = load_config({"head": {"hidden_units": [1, 2, 3]}}, ["head.hidden_units=[64, 32]"])
    assert loaded.config.head.hidden_units == (64, 32)
    assert loaded.origins["head.hidden_units.1"] == "override head.hidden_units"
    assert (
        load_config({"head": {"hidden_units": [1]}}, ["head.hidden_units=[]"]).config.head.hidden_units == ()
    )


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", ".0001"])
def test_small_numbers_are_numbers(text: str) -> None:
    assert load_config(overrides=[f"training.learning_rate={text}"]).config.training.learning_rate == 1e-4


@pytest.mark.parametrize("name", ["2024", "2024-01-05", "12:30", "no", "010", "0x1F", "1_000"])
def test_a_folder_called_like_a_number_or_date_stays_what_it_is(name: str) -> None:
    assert load_config(overrides=[f"data.source={name}"]).config.data.source == name


def test_class_names_in_a_table_stay_text() -> None:
    weights = load_config(
        overrides=["head.class_weight={no: 1, 0: 2, 01: 3, null: 4}"]
    ).config.head.class_weight
    assert weights == {"no": 1.0, "0": 2.0, "01": 3.0, "null": 4.0}


def test_a_value_may_hold_an_equals_sign() -> None:
    assert load_config(overrides=["out=runs/a=b"]).config.out == "runs/a=b"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        *([f"plan={name}"] for name in PLANS),
        ["plan=[{train: head, epochs: 1}, {train: all, epochs: 2, learning_rate: 1e-5}]"],
        ["data.source='1e5'", "out='2024-01-05'", "backbone='null'", "head.class_weight={'no': 1, '1.0': 2}"],
        ["preprocessing.augment=[random_flip, {random_rotation: {factor: [-0.1, 0.2]}}]"],
        ["data.columns.label=[a, b]", "head.hidden_units=[8]", "training.patience=3"],
        ["training.clip=null", "training.learning_rates={head: 1e-3, '1': 1e-4}", "training.schedule=linear"],
        ["training.clip.by=value", "training.clip.limit=0.5", "training.ema=0.99", "training.optimizer=lion"],
        ["plan={name: milestones, milestones: {2: 3, 5: all}}"],
    ],
)
def test_what_is_written_reads_back_the_same(tmp_path: Path, overrides: list[str]) -> None:
    config = load_config(overrides=overrides).config
    file = write(tmp_path / "config.yaml", to_yaml(dump(config)))
    assert validate(read_yaml(file)) == config


def test_every_field_says_what_it_is() -> None:
    undocumented = [path for name, model in _models() for path in _undocumented(model, name)]
    assert undocumented == []


def _models() -> list[tuple[str, type[Options]]]:
    return [("", RunConfig), ("stage.", StageSpec), *((f"{name}.", model) for name, model in PLANS.items())]


def _undocumented(model: type[Options], prefix: str) -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.default, Options) and name != "plan":
            found += _undocumented(type(field.default), f"{prefix}{name}.")
        elif not field.description and not (model in PLANS.values() and name == "name"):
            found.append(prefix + name)
    return found


def test_the_config_of_a_run_of_an_older_version_reads_in_todays_words() -> None:
    old = {"optimizer": "adamw", "momentum": 0.9, "clip_norm": 2.0, "schedule": "constant"}
    config = validate({"training": {**old, "reduce_on_plateau": True}}).training
    assert (config.clip, config.schedule) == (ClipConfig(limit=2.0), "plateau")
    assert validate({"training": {**old, "clip_norm": None}}).training.clip is None
    assert validate({"training": {**old, "optimizer": "sgd"}}).training.momentum == 0.9


def test_the_alias_of_a_plan_is_that_plan() -> None:
    assert validate({"plan": "lp_ft"}) == validate({"plan": "head_then_all"})
    assert validate({"plan": {"name": "lp_ft", "head_epochs": 7}}).plan.head_epochs == 7


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 3


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"seed: [1", "not valid YAML"),
        (b"- 1\n- 2\n", "expected a mapping of keys at the top, received list"),
        (b"seed: 1\nseed: 2\n", "the key 'seed' is there twice"),
        (b"out: \xff", "not UTF-8 text"),
        (b"out: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, content: bytes, part: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "c.yaml", "# nothing\n")).config == RunConfig()


def test_a_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        load_config(tmp_path / "c.yaml")


def test_set_path_makes_the_mappings_between() -> None:
    tree: dict[str, object] = {}
    set_path(tree, "a.b.c", 1)
    assert tree == {"a": {"b": {"c": 1}}}


def test_a_file_cannot_say_that_something_is_trusted(tmp_path):
    (tmp_path / "config.yaml").write_text("trust: true\n")
    with pytest.raises(ConfigError, match="trust cannot be given by a file.*--trust"):
        load_config(tmp_path / "config.yaml")
    assert load_config(None, options={"trust": True}).config.trust


def test_only_a_file_is_refused_for_saying_trust(tmp_path):
    (tmp_path / "config.yaml").write_text("trust: false\nseed: 3\n")
    assert read_config(tmp_path / "config.yaml") == {"trust": False, "seed": 3}
    mine = {"trust": True, "head": {"dropout": 0.5}}
    assert read_config(RunConfig.model_validate(mine)) == mine
    read_config(mine)["head"]["dropout"] = 0.1
    assert mine["head"]["dropout"] == 0.5
    assert read_config(None) == {}
