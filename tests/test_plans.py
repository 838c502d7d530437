"""Plans become stages."""

import pytest

from tlkit.config import PLANS, StageSpec, TrainingConfig, validate
from tlkit.errors import ConfigError
from tlkit.plans import make_plan


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
