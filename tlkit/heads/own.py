"""A head and metrics of one's own: Keras objects and functions in place of what the options say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tlkit.config.head import Objective
from tlkit.errors import ConfigError
from tlkit.heads.layers import answer_words, first_subwords


def attach_own(head: Any, objective: Objective = "classify") -> Callable[[Mapping[str, Any]], Any]:
    """What maps a backbone's features to the outputs of a head of one's own.

    It sees the feature map of pictures (N, h, w, C), the sequence of texts (N, T, C), or for tags the words
    (N, W, C); of the last two also which are real, int32 (N, T) or (N, W), if it has a keyword `mask`. Where
    there is no word its answer is taken back, and vectors get length 1, as with every head.

    A layer is copied, with the weights that it may have: the run's must be made in the scope of its strategy,
    and the same object may be the head of the next run, which then does not start where this one ended.

    Raises:
        ConfigError: It is neither a layer nor a function, or it cannot be made again from its config.
    """
    if not callable(head):
        raise ConfigError(
            f"head: expected options, a Keras layer, or a function of the features, received {head!r}."
        )

    def attach(features: Mapping[str, Any]) -> Any:
        layer = _copy(head) if isinstance(head, keras.layers.Layer) else head
        seen, mask = _what_it_sees(features)
        takes_mask = mask is not None and "mask" in _arguments(layer)
        outputs = layer(seen, mask=mask) if takes_mask else layer(seen)
        if isinstance(head, keras.layers.Layer) and head.weights:
            layer.set_weights(head.get_weights())
        if objective == "embed":
            return keras.layers.UnitNormalization(name="head_unit")(outputs)
        return answer_words(outputs, features) if objective == "tokens" else outputs

    return attach


def _what_it_sees(features: Mapping[str, Any]) -> tuple[Any, Any]:
    if "map" in features:
        return features["map"], None
    if "word_starts" in features:
        return first_subwords(features), keras.ops.cast(features["word_starts"] >= 0, "int32")
    return features["sequence"], features.get("mask")


def _arguments(layer: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(layer.call if isinstance(layer, keras.layers.Layer) else layer).parameters


def _copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    if any(isinstance(part, keras.layers.Lambda) for part in layer._flatten_layers()):
        raise ConfigError(
            "head: a Lambda layer cannot be loaded again, because it holds code. "
            "Write a subclass of keras.layers.Layer, or a function with keras.ops."
        )
    try:
        if isinstance(layer, keras.Sequential | keras.Model) and type(layer).call is not keras.Model.call:
            return keras.models.clone_model(layer)
        return type(layer).from_config(layer.get_config())
    except (TypeError, ValueError, RuntimeError) as error:
        raise _without_config("head", layer, error) from None


def copy_metrics(metrics: Any) -> list[Any]:
    """New metrics of the same kind; a compiled one belongs to one model, so each compile gets its own.

    Raises:
        ConfigError: A metric cannot be made again from its config.
    """
    several = metrics if isinstance(metrics, Sequence) and not isinstance(metrics, str) else [metrics]
    return [_copy_metric(metric) for metric in several]


def _copy_metric(metric: Any) -> Any:
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    try:
        return type(metric).from_config(metric.get_config())
    except (TypeError, ValueError, RuntimeError) as error:
        raise _without_config("metrics", metric, error) from None


def _without_config(argument: str, made: Any, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())[:200]
    return ConfigError(
        f"{argument}: {type(made).__name__} cannot be made again from its config; "
        f"its get_config should return what its __init__ takes ({reason})."
    )
