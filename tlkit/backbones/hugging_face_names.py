"""What the weights of each family are called in Hugging Face's files. Facts only; `hugging_face.py` acts."""

from __future__ import annotations

from dataclasses import dataclass

VARIABLES = {  # of a Keras layer → its endings there; the first that exists
    "kernel": (".weight",),
    "bias": (".bias",),
    "embeddings": (".weight",),
    "position_embeddings": (".weight",),
    "gamma": (".weight", ".gamma"),
    "beta": (".bias", ".beta"),
}
OTHER_NAMES = r"position_ids$|token_type_ids$"  # numbers that are not learned


@dataclass(frozen=True)
class Names:
    """`modules`: path of a Keras layer → name of the module, "{i}" in both for the number of a block.

    `prefix` is in front of every name where the file holds the encoder and a head; `encoder` begins the names
    that are the encoder's. `first_position` is the row of the position table that the first token takes.
    """

    prefix: str
    modules: dict[str, str]
    encoder: tuple[str, ...] = ("embeddings.", "encoder.")
    first_position: int = 0


_EMBEDDINGS = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    "embeddings_layer_norm": "embeddings.LayerNorm",
}
_BLOCK = {
    "transformer_layer_{i}/self_attention_layer/query": "encoder.layer.{i}.attention.self.query",
    "transformer_layer_{i}/self_attention_layer/key": "encoder.layer.{i}.attention.self.key",
    "transformer_layer_{i}/self_attention_layer/value": "encoder.layer.{i}.attention.self.value",
    "transformer_layer_{i}/self_attention_layer/attention_output": "encoder.layer.{i}.attention.output.dense",
    "transformer_layer_{i}/self_attention_layer_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "transformer_layer_{i}/feedforward_intermediate_dense": "encoder.layer.{i}.intermediate.dense",
    "transformer_layer_{i}/feedforward_output_dense": "encoder.layer.{i}.output.dense",
    "transformer_layer_{i}/feedforward_layer_norm": "encoder.layer.{i}.output.LayerNorm",
}

FAMILIES = {
    "bert": Names("bert.", {**_EMBEDDINGS, **_BLOCK, "pooled_dense": "pooler.dense"}),
}
