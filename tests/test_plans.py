"""Plans become stages."""

import pytest

from tlkit.config import PLANS, StageSpec, TrainingConfig, validate
from tlkit.errors import ConfigError
from tlkit.plans import Stage, make_plan, require_groups


def stages(plan, n_groups=9, **training):
    return make_plan(validate({"plan": plan}).plan, n_groups, TrainingConfig(**training))


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("n_groups", [1, 2, 3, 9, 33])
def test_every_plan_makes_stages_for_any_number_of_groups(name, n_groups):
    made = stages(name, n_groups)
    assert made
    assert len({stage.name for stage in made}) == len(made)
    assert all(0 <= stage.n_trained(n_groups) <= n_groups for stage in made)


def test_stages_never_freeze_again_what_they_unfroze():
    for name in PLANS:
        counts = [stage.n_trained(9) for stage in stages(name)]
        assert counts == sorted(counts)


def test_gradual_unfreezes_one_group_after_the_other():
    assert [stage.n_trained(4) for stage in stages("gradual", 4)] == [0, 1, 2, 3, 4]
    assert [stage.n_trained(5) for stage in stages({"name": "gradual", "groups_per_stage": 2}, 5)] == [
        0,
        2,
        4,
        5,
    ]


def test_top_trains_the_upper_half_from_the_first_step_on():
    assert [stage.n_trained(9) for stage in stages("top")] == [4]
    assert [stage.n_trained(1) for stage in stages("top", 1)] == [1]


def test_the_head_alone_gets_a_higher_rate_than_the_backbone():
    head, everything = stages("head_then_all")
    assert head.learning_rate > everything.learning_rate


def test_training_settings_win_over_the_plan():
    for stage in stages("gradual", 4, epochs=2, learning_rate=0.5, patience=None):
        assert (stage.epochs, stage.learning_rate, stage.patience) == (2, 0.5, None)


def test_a_stage_that_is_written_out_keeps_its_own_rate():
    plan = [{"train": "head", "epochs": 1, "learning_rate": 0.01}, {"train": 2, "epochs": 3}]
    first, second = stages(plan, learning_rate=0.5)
    assert (first.learning_rate, second.learning_rate) == (0.01, 0.5)
    assert (first.name, second.name) == ("stage1", "stage2")


def test_a_plan_can_be_named_or_written_as_plain_values():
    assert make_plan("gradual", 4) == stages("gradual", 4)
    assert [stage.epochs for stage in make_plan({"name": "full", "epochs": 2}, 4)] == [2]
    assert [stage.train for stage in make_plan([{"train": 2, "epochs": 1}], 4)] == [2]
    with pytest.raises(ConfigError, match="Did you mean 'gradual'"):
        make_plan("graduall", 4)


def test_too_many_groups_are_an_error_that_says_how_many_there_are():
    with pytest.raises(ConfigError, match="trains 10 layer groups; the backbone has 9"):
        make_plan((StageSpec(train=10, epochs=1),), 9)


def test_two_stages_of_one_name_are_an_error():
    with pytest.raises(ConfigError, match="different names"):
        make_plan((StageSpec(name="a", train=1, epochs=1), StageSpec(name="a", train=2, epochs=1)), 9)


def test_lp_ft_is_another_name_of_head_then_all():
    assert make_plan("lp_ft", 4) == make_plan("head_then_all", 4)


def test_milestones_unfreeze_at_epochs_of_the_whole_run():
    made = stages({"name": "milestones", "milestones": {5: "all", 2: 3}, "epochs": 9}, 6)
    assert [(stage.name, stage.n_trained(6), stage.epochs) for stage in made] == [
        ("head", 0, 2),
        ("top3", 3, 3),
        ("all", 6, 4),
    ]
    (only,) = stages({"name": "milestones", "milestones": {0: 2}, "epochs": 4}, 6)
    assert (only.n_trained(6), only.epochs) == (2, 4)
    with pytest.raises(ConfigError, match="trains 7 layer groups; the backbone has 6"):
        stages({"name": "milestones", "milestones": {1: 7}}, 6)


def test_ulmfit_is_gradual_with_rates_that_shrink_from_group_to_group():
    made = stages("ulmfit", 3)
    assert [stage.n_trained(3) for stage in made] == [0, 1, 2, 3]
    assert [stage.epochs for stage in made] == [1, 1, 1, 3]
    for stage in made:
        rates, peak = stage.rates(["stem", "low", "high"]), stage.learning_rate
        assert rates == pytest.approx(
            {"head": peak, "high": peak / 2.6, "low": peak / 2.6**2, "stem": peak / 2.6**3}
        )
        assert stage.schedule == "slanted_triangular"


def test_training_settings_win_over_those_of_ulmfit():
    for stage in stages("ulmfit", 3, layer_decay=0.5, schedule="linear"):
        assert (stage.layer_decay, stage.schedule) == (0.5, "linear")


def test_a_stage_that_is_written_out_keeps_its_own_decay_and_schedule():
    plan = [
        {"train": "all", "epochs": 1, "layer_decay": 0.9, "schedule": "linear"},
        {"train": 1, "epochs": 1},
    ]
    first, second = stages(plan, layer_decay=0.5, schedule="constant")
    assert (first.layer_decay, first.schedule) == (0.9, "linear")
    assert (second.layer_decay, second.schedule) == (0.5, "constant")


def test_named_rates_win_over_the_decay():
    (stage,) = stages("full", 3, learning_rate=0.8, layer_decay=0.5, learning_rates={"low": 0.7, "head": 0.9})
    assert stage.rates(["stem", "low", "high"]) == {"stem": 0.1, "low": 0.7, "high": 0.4, "head": 0.9}


def test_a_rate_for_a_group_that_there_is_not_is_an_error_with_the_nearest():
    made = stages("full", 3, learning_rates={"blok1": 1e-4})
    with pytest.raises(ConfigError, match="no layer group 'blok1'. Did you mean 'block1'"):
        require_groups(made, ["stem", "block1", "block2"])
    require_groups(
        stages("full", 3, learning_rates={"block1": 1e-4, "head": 1}), ["stem", "block1", "block2"]
    )


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_stage_refuses_rates_that_are_none(rate):
    with pytest.raises(ConfigError, match="'a': learning_rate should be a number above 0, received"):
        Stage("a", "all", 1, rate)
    with pytest.raises(ConfigError, match=r"learning_rates\.stem should be a number above 0"):
        Stage("a", "all", 1, 0.1, learning_rates={"stem": rate})
    with pytest.raises(ConfigError, match="layer_decay should be a number above 0"):
        Stage("a", "all", 1, 0.1, layer_decay=rate)


def test_a_stage_without_epochs_is_refused():
    with pytest.raises(ConfigError, match="at least 1 epoch, received 0"):
        Stage("a", "all", 0, 0.1)
