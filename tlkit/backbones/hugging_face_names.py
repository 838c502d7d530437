"""What the weights of each family are called in Hugging Face's files. Facts only; `hugging_face.py` acts."""

from __future__ import annotations

from dataclasses import dataclass

VARIABLES = {  # of a Keras layer → its endings there; the first that exists
    "kernel": (".weight",),
    "bias": (".bias",),
    "embeddings": (".weight",),
    "gamma": (".weight", ".gamma"),
    "beta": (".bias", ".beta"),
}
OTHER_NAMES = r"position_ids$|token_type_ids$"  # numbers that are not learned


@dataclass(frozen=True)
class Names:
    """`modules`: path of a Keras layer → name of the module; "{i}" and "{g}" stand for numbers in both.

    `prefix` is in front of every name where the file holds the encoder and a head; `encoder` begins the names
    that are the encoder's. Where `counted_positions`, the position table begins with rows that no text uses
    (up to that of the padding token's number), and there is one segment, whose embedding is added to every
    token: here it is added to the position table.
    """

    prefix: str
    modules: dict[str, str]
    encoder: tuple[str, ...] = ("embeddings.", "encoder.")
    counted_positions: bool = False


POSITIONS = "embeddings.position_embeddings.weight"
ONE_SEGMENT = "embeddings.token_type_embeddings.weight"

_NORM = {"embeddings_layer_norm": "embeddings.LayerNorm"}
_EMBEDDINGS = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    **_NORM,
}
_ATTENTION = {
    "self_attention_layer/query": "attention.self.query",
    "self_attention_layer/key": "attention.self.key",
    "self_attention_layer/value": "attention.self.value",
    "self_attention_layer/attention_output": "attention.output.dense",
    "self_attention_layer_norm": "attention.output.LayerNorm",
}
_FEEDFORWARD = {
    "feedforward_intermediate_dense": "intermediate.dense",
    "feedforward_output_dense": "output.dense",
    "feedforward_layer_norm": "output.LayerNorm",
}


def _inside(layer: str, module: str, parts: dict[str, str]) -> dict[str, str]:
    return {f"{layer}/{path}": f"{module}.{name}" for path, name in parts.items()}


_BLOCK = _inside("transformer_layer_{i}", "encoder.layer.{i}", {**_ATTENTION, **_FEEDFORWARD})
_ROBERTA = {
    "embeddings/token_embedding": "embeddings.word_embeddings",
    "embeddings/position_embedding": "embeddings.position_embeddings",
    **_NORM,
    **_BLOCK,
}

FAMILIES = {
    "albert": Names(
        "albert.",
        {
            **_EMBEDDINGS,
            "embedding_projection": "encoder.embedding_hidden_mapping_in",
            **_inside(
                "group_{g}_inner_layer_{i}",
                "encoder.albert_layer_groups.{g}.albert_layers.{i}",
                {
                    "self_attention_layer/query": "attention.query",
                    "self_attention_layer/key": "attention.key",
                    "self_attention_layer/value": "attention.value",
                    "self_attention_layer/attention_output": "attention.dense",
                    "self_attention_layer_norm": "attention.LayerNorm",
                    "feedforward_intermediate_dense": "ffn",
                    "feedforward_output_dense": "ffn_output",
                    "feedforward_layer_norm": "full_layer_layer_norm",
                },
            ),
            "pooled_dense": "pooler",
        },
    ),
    "bert": Names("bert.", {**_EMBEDDINGS, **_BLOCK, "pooled_dense": "pooler.dense"}),
    "deberta_v3": Names(
        "deberta.",
        {
            "token_embedding": "embeddings.word_embeddings",
            **_NORM,
            "rel_embedding_table": "encoder.rel_embeddings",
            "rel_embedding_norm": "encoder.LayerNorm",
            **_inside(
                "disentangled_attention_encoder_layer_{i}",
                "encoder.layer.{i}",
                {
                    **_ATTENTION,
                    "self_attention_layer/query": "attention.self.query_proj",
                    "self_attention_layer/key": "attention.self.key_proj",
                    "self_attention_layer/value": "attention.self.value_proj",
                    **_FEEDFORWARD,
                },
            ),
        },
    ),
    "distil_bert": Names(
        "distilbert.",
        {
            "token_and_position_embedding/token_embedding": "embeddings.word_embeddings",
            "token_and_position_embedding/position_embedding": "embeddings.position_embeddings",
            **_NORM,
            **_inside(
                "transformer_layer_{i}",
                "transformer.layer.{i}",
                {
                    "self_attention_layer/query": "attention.q_lin",
                    "self_attention_layer/key": "attention.k_lin",
                    "self_attention_layer/value": "attention.v_lin",
                    "self_attention_layer/attention_output": "attention.out_lin",
                    "self_attention_layer_norm": "sa_layer_norm",
                    "feedforward_intermediate_dense": "ffn.lin1",
                    "feedforward_output_dense": "ffn.lin2",
                    "feedforward_layer_norm": "output_layer_norm",
                },
            ),
        },
        encoder=("embeddings.", "transformer."),
    ),
    "electra": Names(
        "electra.",
        {**_EMBEDDINGS, "embeddings_projection": "embeddings_project", **_BLOCK},
    ),
    "f_net": Names(
        "fnet.",
        {
            **_EMBEDDINGS,
            "embedding_projection": "embeddings.projection",
            **_inside(
                "f_net_layer_{i}",
                "encoder.layer.{i}",
                {
                    "mixing_layer_norm": "fourier.output.LayerNorm",
                    "intermediate_dense": "intermediate.dense",
                    "output_dense": "output.dense",
                    "output_layer_norm": "output.LayerNorm",
                },
            ),
            "pooled_dense": "pooler.dense",
        },
    ),
    "roberta": Names("roberta.", _ROBERTA, counted_positions=True),
    "xlm_roberta": Names("roberta.", _ROBERTA, counted_positions=True),
}
