"""A zoo entry for a Hugging Face folder on this machine, from its small files alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic

from tlkit.errors import ConfigError, suggest
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.registry import expand_groups, family_fields, merge
from tlkit.zoo.safetensors_files import read_json, tensor_files
from tlkit.zoo.text_parameters import count_parameters
from tlkit.zoo.tokenizer_json import make_files

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"

_SIZES = {  # argument of KerasHub's class → key of config.json
    "vocabulary_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
}
_OPTIONAL = {
    "num_segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
}
_ACTIVATIONS = {  # as config.json names them → as `build_keras_hub_text` does
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class Architecture:
    """How a family's config.json is read: `sizes` must be there, `optional` may; `fixed` are the values that
    its other keys must have where they are there, because KerasHub's class knows no others."""

    family: str
    sizes: Mapping[str, str] = field(default_factory=lambda: _SIZES)
    optional: Mapping[str, str] = field(default_factory=lambda: _OPTIONAL)
    activation: str = "hidden_act"
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


_ABSOLUTE = {"position_embedding_type": ("absolute",), "is_decoder": (False,)}
_NO_SEGMENTS = {name: key for name, key in _OPTIONAL.items() if name != "num_segments"}
ARCHITECTURES = {  # by model_type
    "albert": Architecture(
        "albert",
        sizes={**_SIZES, "embedding_dim": "embedding_size"},
        optional={
            **_OPTIONAL,
            "num_groups": "num_hidden_groups",
            "num_inner_repetitions": "inner_group_num",
        },
        fixed=_ABSOLUTE,
    ),
    "bert": Architecture("bert", fixed=_ABSOLUTE),
    "deberta-v2": Architecture(
        "deberta_v3",
        sizes={**_SIZES, "bucket_size": "position_buckets"},
        optional=_NO_SEGMENTS,
        fixed={
            "relative_attention": (True,),
            "share_att_key": (True,),
            "norm_rel_ebd": ("layer_norm",),
            "position_biased_input": (False,),
            "pos_att_type": (["p2c", "c2p"], ["c2p", "p2c"], "p2c|c2p", "c2p|p2c"),
            "conv_kernel_size": (0, None),
            "type_vocab_size": (0,),
            "max_relative_positions": (-1, 0),
        },
    ),
    "distilbert": Architecture(
        "distil_bert",
        sizes={
            "vocabulary_size": "vocab_size",
            "num_layers": "n_layers",
            "num_heads": "n_heads",
            "hidden_dim": "dim",
            "intermediate_dim": "hidden_dim",
            "max_sequence_length": "max_position_embeddings",
        },
        optional={"dropout": "dropout"},
        activation="activation",
    ),
    "electra": Architecture("electra", sizes={**_SIZES, "embedding_dim": "embedding_size"}, fixed=_ABSOLUTE),
    "fnet": Architecture("f_net", sizes={name: key for name, key in _SIZES.items() if name != "num_heads"}),
    "roberta": Architecture("roberta", optional=_NO_SEGMENTS, fixed=_ABSOLUTE),
    "xlm-roberta": Architecture("xlm_roberta", optional=_NO_SEGMENTS, fixed=_ABSOLUTE),
}


def is_hugging_face_folder(path: str | Path) -> bool:
    """Whether `path` is a folder with a config.json."""
    return (Path(path).expanduser() / CONFIG).is_file()


def entry_of_folder(path: str | Path) -> ZooEntry:
    """The zoo entry of a Hugging Face folder: config.json, safetensors, the files of its vocabulary.

    The architecture comes from config.json, the facts of the tokenizer from its family and
    tokenizer_config.json. Of the weights only the names are read.
    Raises FetchError when a file is missing, damaged or pickled, ConfigError when tlkit has no such
    architecture.
    """
    folder = Path(path).expanduser().absolute()
    config = read_json(folder / CONFIG)
    architecture = _architecture(config, folder)
    fields = family_fields(architecture.family)
    arguments = _arguments(architecture, config, fields["constructor"]["arguments"], folder)
    groups = dict(fields["layer_groups"])
    tensors = tensor_files(folder)
    if not any(name.removeprefix(f"{config['model_type']}.").startswith("pooler.") for name in tensors):
        groups.pop("pooler", None)
    own: dict[str, Any] = {
        "name": folder.name,
        "family": architecture.family,
        "source": {"kind": "file", "path": str(folder)},
        "constructor": {"arguments": arguments},
        "input": {
            "sequence_length": arguments["max_sequence_length"],
            "tokenizer": _tokenizer(fields["input"]["tokenizer"], folder),
        },
        "params": count_parameters(architecture.family, arguments, pooler="pooler" in groups),
        "license": "as the folder's model card says",
        "license_source": None,
        "citation": None,
        "verified": False,
    }
    merged = expand_groups({**merge(fields, own), "layer_groups": groups})
    try:
        entry = ZooEntry.model_validate(merged)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{folder / CONFIG} does not describe a backbone: {where}: {first['msg']}"
        ) from error
    files = tuple(own["input"]["tokenizer"]["files"])
    if not all((folder / name).is_file() for name in files):
        make_files(folder, files)
    return entry


def padding_token_of(config: Mapping[str, Any]) -> int:
    """The number of the padding token of a RoBERTa: 1 where its config.json does not say."""
    token = config.get("pad_token_id")
    return token if isinstance(token, int) else 1


def _architecture(config: Mapping[str, Any], folder: Path) -> Architecture:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        hint = suggest(str(kind), ARCHITECTURES)
        raise ConfigError(f"{folder / CONFIG} has the model_type {kind!r}, which tlkit cannot build.{hint}")
    architecture = ARCHITECTURES[kind]
    for key, allowed in architecture.fixed.items():
        if key in config and config[key] not in allowed:
            raise ConfigError(
                f"{folder / CONFIG} has {key}: {config[key]!r}; tlkit's {kind} needs {allowed[0]!r}"
            )
    return architecture


def _arguments(
    architecture: Architecture, config: Mapping[str, Any], shared: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    missing = [key for key in architecture.sizes.values() if key not in config]
    if missing:
        raise ConfigError(f"{folder / CONFIG} has no {missing[0]!r}")
    arguments = {name: config[key] for name, key in architecture.sizes.items()}
    arguments |= {name: config[key] for name, key in architecture.optional.items() if key in config}
    wrong = [
        name for name in architecture.sizes if not isinstance(arguments[name], int) or arguments[name] < 1
    ]
    if wrong:
        key = architecture.sizes[wrong[0]]
        raise ConfigError(
            f"{folder / CONFIG} has {key}: {arguments[wrong[0]]!r}; it must be a whole number above 0"
        )
    for name, key in architecture.optional.items():
        if name in arguments and not isinstance(arguments[name], int | float):
            raise ConfigError(
                f"{folder / CONFIG} does not describe a backbone: constructor.arguments.{name}: {key} must "
                f"be a number, received {arguments[name]!r}"
            )
    heads = arguments.get("num_heads", 1)
    if arguments["hidden_dim"] % heads:
        key = architecture.sizes["hidden_dim"]
        raise ConfigError(
            f"{folder / CONFIG} has {key}: {arguments['hidden_dim']}, which {heads} heads cannot share evenly"
        )
    if architecture.family in ("roberta", "xlm_roberta"):  # the rows up to the padding token's are not used
        arguments["max_sequence_length"] -= padding_token_of(config) + 1
    activation = config.get(architecture.activation)
    if activation is not None:
        if not isinstance(activation, str) or activation not in _ACTIVATIONS:
            hint = suggest(str(activation), _ACTIVATIONS)
            raise ConfigError(f"{folder / CONFIG} has the unknown activation {activation!r}.{hint}")
        arguments["activation"] = _ACTIVATIONS[activation]
    return {**shared, **arguments}


def _tokenizer(facts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What tokenizer_config.json says about case and special tokens, over what the family does."""
    told = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    if "XLMRoberta" in str(told.get("tokenizer_class")):  # a few BERTs have its vocabulary
        facts = family_fields("xlm_roberta")["input"]["tokenizer"]
    own: dict[str, Any] = dict(facts)
    lowercase = told.get("do_lower_case")
    if isinstance(lowercase, bool):
        own["lowercase"] = lowercase
        accents = told.get("strip_accents")
        # Where nothing is said, accents go with the case.
        own["strip_accents"] = accents if isinstance(accents, bool) else lowercase
    if isinstance(told.get("keep_accents"), bool):
        own["strip_accents"] = not told["keep_accents"]
    for name, key in (("start", "cls"), ("end", "sep"), ("pad", "pad"), ("unknown", "unk")):
        token = told.get(f"{key}_token")
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str):
            if name == "end":
                own["separator"] = [token] * len(own.get("separator", [token]))
            own[name] = token
    return own
