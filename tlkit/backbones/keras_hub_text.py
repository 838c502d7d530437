"""Text backbones of KerasHub, as plain functional models of its layers.

KerasHub fixes the activation and the epsilon of its backbones, and some of its choices are not what the
weights were trained with: its BERT has the tanh form of GELU, the original the exact one, which moves the
outputs by up to 2.5e-3. A clone of the model takes other values through the layers' own configs, and is a
plain functional model that Keras and KerasHub can open.
"""

from __future__ import annotations

from typing import Any

import keras

from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.errors import ConfigError

CLASSES = {  # family → class of keras_hub.models
    "albert": "AlbertBackbone",
    "bert": "BertBackbone",
    "deberta_v3": "DebertaV3Backbone",
    "distil_bert": "DistilBertBackbone",
    "electra": "ElectraBackbone",
    "f_net": "FNetBackbone",
    "roberta": "RobertaBackbone",
    "xlm_roberta": "XLMRobertaBackbone",
}


def build_keras_hub_text(
    *,
    family: str,
    pooler: bool,
    activation: str,
    layer_norm_epsilon: float | None = None,
    **arguments: Any,
) -> keras.Model:
    """The encoder of `family`, randomly initialised; `arguments` are those of KerasHub's class.

    It takes a dict of int32 (N, T): `token_ids`, and `padding_mask` and `segment_ids` where the family has
    them. It gives `{"sequence": (N, T, hidden_dim)}`, and with `pooler` also `"pooled"` (N, hidden_dim).
    `activation` is "gelu" (exact), "gelu_tanh", or Keras's name of another; `layer_norm_epsilon` is
    KerasHub's own where it is None.
    """
    if family not in CLASSES:
        raise ConfigError(f"KerasHub's text families are {', '.join(CLASSES)}, received {family!r}")
    if family == "electra":  # the one class with a name of its own for it
        arguments["vocab_size"] = arguments.pop("vocabulary_size")
    whole = keras_hub_class(family)(**arguments)
    return adapt(whole, family, pooler=pooler, activation=activation, layer_norm_epsilon=layer_norm_epsilon)


def adapt(
    whole: keras.Model,
    family: str,
    *,
    pooler: bool,
    activation: str,
    layer_norm_epsilon: float | None,
    keep_weights: bool = False,
) -> keras.Model:
    """A clone of KerasHub's model with tlkit's names of the outputs; its weights are drawn anew, or kept."""
    given = whole.output
    outputs = {"sequence": given["sequence_output"] if isinstance(given, dict) else given}
    if pooler:
        outputs["pooled"] = given["pooled_output"]
    blocks_activation = _serialized_activation(activation)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name == "rel_embedding":
            return _relative_embedding(config, layer_norm_epsilon)
        if "intermediate_dim" in config:  # a transformer block
            config["activation"] = blocks_activation
        for key in ("epsilon", "layer_norm_epsilon"):
            if layer_norm_epsilon is not None and key in config:
                config[key] = layer_norm_epsilon
        return type(layer).from_config(config)

    model = keras.Model(whole.input, outputs, name=family)
    adapted = keras.models.clone_model(model, clone_function=clone)
    if keep_weights:
        adapted.set_weights(model.get_weights())
    return adapted


def _relative_embedding(config: dict[str, Any], layer_norm_epsilon: float | None) -> keras.Model:
    """DeBERTa's table of relative positions, normalised and repeated for every text: (N, T, C) → (N, 2k, C).

    KerasHub's layer for it makes its weights when it is called, so that a functional model with it cannot be
    loaded again (tried on KerasHub 0.32).
    """
    keras_hub = import_keras_hub()
    rows, epsilon = 2 * config["bucket_size"], layer_norm_epsilon or config["layer_norm_epsilon"]
    inputs = keras.Input((None, config["hidden_dim"]), name="tokens")
    empty = keras.ops.repeat(keras.ops.zeros_like(inputs[:, :1]), rows, axis=1)
    table = keras_hub.layers.PositionEmbedding(
        rows, initializer=keras.initializers.get(config["kernel_initializer"]), name="rel_embedding_table"
    )
    normed = keras.layers.LayerNormalization(epsilon=epsilon, name="rel_embedding_norm")(table(empty))
    return keras.Model(inputs, normed, name="rel_embedding")


def keras_hub_class(family: str) -> Any:
    """KerasHub's class of a family's encoders."""
    return getattr(import_keras_hub().models, CLASSES[family])


def _serialized_activation(name: str) -> Any:
    import_keras_hub()  # registers its activations
    if name == "gelu_tanh":
        return keras.activations.serialize(keras.saving.get_registered_object("keras_hub>gelu_approximate"))
    return keras.activations.serialize(keras.activations.get(name))
