"""Options that stand for a dotted path of the config, and arguments of the form key.path=value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from tlkit.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ConfigOption:
    """One command-line option and the config value it sets."""

    flag: str
    dotted: str
    kind: Any
    help: str

    @property
    def parameter(self) -> str:
        return self.dotted.replace(".", "__")


CONFIG_OPTIONS = {
    option.flag: option
    for option in (
        ConfigOption(
            "--data",
            "data.source",
            str,
            "Folder of class folders, table (CSV, Parquet, CoNLL), records (TFRecord), gs://…, s3://…, "
            "tfds:NAME, datasets:OWNER/NAME, or sample.",
        ),
        ConfigOption(
            "--backbone",
            "backbone",
            str,
            "A zoo entry (see: tlkit zoo list), a run's folder, a path, wheel:…, hub:…, hf:… or url:…",
        ),
        ConfigOption("--trust", "trust", bool, "Load a SavedModel whose operations read files or run code."),
        ConfigOption("--task", "task", str, "classify, multilabel, regress, pair, tokens or embed."),
        ConfigOption(
            "--plan",
            "plan",
            str,
            "head, top, head_then_all (lp_ft), gradual, milestones, ulmfit, auto_freeze, lora or full.",
        ),
        ConfigOption("--epochs", "training.epochs", int, "Epochs of every stage."),
        ConfigOption(
            "--batch-size", "training.global_batch_size", int, "Examples per step, over all devices."
        ),
        ConfigOption("--learning-rate", "training.learning_rate", float, "Peak rate of every stage."),
        ConfigOption(
            "--image-size", "preprocessing.image_size", int, "Side of the model's input, in pixels."
        ),
        ConfigOption("--sequence-length", "preprocessing.sequence_length", int, "Most tokens of one text."),
        ConfigOption(
            "--strategy",
            "strategy",
            str,
            "auto, cpu, gpu, mirrored, tpu, or multi_worker: the processes that TF_CONFIG names.",
        ),
        ConfigOption(
            "--precision",
            "precision",
            str,
            "float32, mixed_bfloat16, mixed_float16, or auto: what is fastest.",
        ),
        ConfigOption("--seed", "seed", int, "Decides splits, order, draws and initial weights."),
        ConfigOption("--deterministic", "deterministic", bool, "Make two runs on one machine bit-identical."),
        ConfigOption("--out", "out", str, "The run folder. Default: runs/<data>-<backbone>-<n>."),
    )
}


def config_options(*flags: str) -> Callable[[F], F]:
    """Add the options with these flags to a command; by default all of them."""

    def add(command: F) -> F:
        for flag in reversed(flags or tuple(CONFIG_OPTIONS)):
            option = CONFIG_OPTIONS[flag]
            switch = {"is_flag": True, "default": None} if option.kind is bool else {"type": option.kind}
            command = click.option(flag, option.parameter, help=option.help, **switch)(command)
        return command

    return add


def chosen_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted path to value, for the options that were given."""
    return {
        option.dotted: parameters[option.parameter]
        for option in CONFIG_OPTIONS.values()
        if parameters.get(option.parameter) is not None
    }


def split_arguments(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The config file, if one was named, and the overrides: every argument with `=` is an override."""
    overrides = [argument for argument in arguments if "=" in argument]
    files = [argument for argument in arguments if "=" not in argument]
    for file in files:
        if Path(file).is_dir():
            raise ConfigError(f"{file} is a folder, not a config. To train on what is in it: --data {file}")
    if len(files) > 1:
        raise ConfigError(f"One config at most, received {', '.join(files)}. Overrides are key.path=value.")
    return (files[0] if files else None), overrides


trust_option = click.option("--trust", is_flag=True, help=CONFIG_OPTIONS["--trust"].help)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is in the output folder.")
