"""Layer groups: what they hold, where they are cut, and mistakes in their regexes."""

import keras
import pytest

from tlkit import zoo
from tlkit.backbones import Backbone, load
from tlkit.errors import ConfigError
from tlkit.freezing import group_layers


def backbone(model, groups):
    entry = zoo.get("efficientnet_lite0").model_copy(update={"layer_groups": groups})
    return Backbone(entry, model, {"map": model.output})


def chain():
    x = inputs = keras.Input((8, 8, 3))
    for name in ("a", "b", "c"):
        x = keras.layers.Conv2D(2, 1, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(inputs, x)


def names(tensor):
    return tensor._keras_history.operation.name


def test_groups_run_from_input_to_output_with_their_cuts_after_the_activation():
    groups = group_layers(backbone(chain(), {"low": "[ab]_.*", "high": "c_.*"}))
    assert [group.name for group in groups] == ["low", "high"]
    assert [layer.name for layer in groups[1].layers] == ["c_conv", "c_bn"]
    assert groups[1].weights[:2] == ("c_conv/kernel", "c_conv/bias")
    assert "c_bn/moving_mean" in groups[1].weights
    assert [names(group.cut) for group in groups] == ["b_relu", "c_relu"]


def test_a_group_that_several_tensors_leave_has_no_cut():
    inputs = keras.Input((8, 8, 3))
    a = keras.layers.Conv2D(2, 1, name="a")(inputs)
    b = keras.layers.Conv2D(2, 1, name="b")(a)
    c = keras.layers.Conv2D(2, 1, name="c")(b)
    model = keras.Model(inputs, keras.layers.Add()([a, c]))
    groups = group_layers(backbone(model, {"a": "a", "b": "b", "c": "c"}))
    assert [names(groups[0].cut), groups[1].cut] == ["a", None]
    assert groups[2].cut is model.output


def test_an_input_that_skips_a_group_is_at_hand_above_its_cut():
    inputs = keras.Input((8, 8, 3))
    a = keras.layers.Conv2D(3, 1, name="a")(inputs)
    b = keras.layers.Conv2D(3, 1, name="b")(keras.layers.Add()([a, inputs]))
    groups = group_layers(backbone(keras.Model(inputs, b), {"a": "a", "b": "b"}))
    assert names(groups[0].cut).startswith("add")
    c = keras.layers.Add()([b, inputs])
    groups = group_layers(backbone(keras.Model(inputs, c), {"a": "a", "b": "b"}))
    assert names(groups[0].cut).startswith("add")
    assert names(groups[1].cut).startswith("add")


def test_a_group_that_is_called_again_is_cut_after_its_last_call():
    inputs = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(3, 1, name="shared")
    last = shared(keras.layers.ReLU()(shared(inputs)))
    outputs = keras.layers.Conv2D(3, 1, name="above")(last)
    groups = group_layers(backbone(keras.Model(inputs, outputs), {"shared": "shared", "above": "above"}))
    assert groups[0].cut is last


def test_layers_inside_a_layer_belong_to_its_group():
    inputs = keras.Input((4, 6))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="dense")(x))
    attention, dense = group_layers(backbone(model, {"attention": "attention", "dense": "dense"}))
    assert {layer.name for layer in attention.layers} == {"query", "key", "value", "attention_output"}
    assert len(attention.weights) == 8
    assert dense.weights == ("dense/kernel", "dense/bias")


def test_nested_models_are_matched_by_path():
    inner = keras.Sequential([keras.layers.Conv2D(2, 1, name="conv")], name="stem")
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, name="conv")(inner(inputs)))
    stem, top = group_layers(backbone(model, {"stem": "stem/.*", "top": "conv"}))
    assert (len(stem.weights), len(top.weights)) == (2, 2)
    assert names(stem.cut) == "stem"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"low": "[ab]_.*"}, "'c_conv' matches none; 'c_bn' matches none"),
        ({"low": "[abc]_.*", "high": "c_.*"}, "'c_conv' matches low, high"),
        ({"low": "[abc]_.*", "high": "d_.*"}, "group 'high' is empty"),
        ({"low": "[ab]_conv", "high": "c_.*"}, "'a_bn' matches none"),
        ({"high": "c_.*", "low": "[ab]_.*"}, "out of order: 'a_conv'|out of order: 'c_conv' in 'high' needs"),
    ],
)
def test_regexes_that_do_not_fit_are_named(groups, message):
    with pytest.raises(ConfigError, match=message):
        group_layers(backbone(chain(), groups))


def test_a_regex_matches_the_whole_path_and_not_a_part():
    with pytest.raises(ConfigError, match="matches none"):
        group_layers(backbone(chain(), {"low": "[ab]", "high": "c_"}))


def test_the_backbone_s_own_name_does_not_matter():
    first = load("mobilenet_v3_small", weights=False, image_size=32)
    renamed = keras.Model(first.model.input, first.model.output, name="other")
    groups = group_layers(Backbone(first.entry, renamed, {"map": renamed.output}))
    assert [group.weights for group in groups] == [group.weights for group in group_layers(first)]
