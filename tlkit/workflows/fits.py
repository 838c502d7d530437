"""Whether what a config asks for suits the backbone: settings of pictures do nothing for texts."""

from __future__ import annotations

from collections.abc import Sequence

from tlkit.backbones import SavedModelLayer
from tlkit.config import RunConfig
from tlkit.config.base import Options
from tlkit.config.head import TEXT_TASKS
from tlkit.config.plan import LoraPlan
from tlkit.errors import ConfigError
from tlkit.freezing import LayerGroup
from tlkit.plans import Stage, require_groups
from tlkit.training.adapters import find_targets, layers_of
from tlkit.zoo import ZooEntry

ONLY_FOR = {
    "image": ("preprocessing.image_size", "preprocessing.resize", "preprocessing.scaling", "training.mix"),
    "text": (
        "preprocessing.sequence_length",
        "preprocessing.long_texts",
        "preprocessing.max_windows",
        "preprocessing.normalize",
        "preprocessing.nltk",
        "preprocessing.bucketing",
        "training.batch_tokens",
    ),
}
EXAMPLES = {"image": "pictures", "text": "texts"}


def require_fit(config: RunConfig, entry: ZooEntry, *, is_run: bool) -> None:
    """Raise the ConfigError for a task, a setting or a shape that the backbone `entry` has no use for.

    A setting that is as it is by default asks for nothing, also where a file names it: the config that a run
    leaves behind names all of them. `is_run`: the backbone is an earlier run, which has its shape.
    """
    if entry.modality not in EXAMPLES:
        raise ConfigError(
            f"{config.backbone!r} takes neither pictures nor texts, so it cannot be fine-tuned by a config. "
            "To use it in a model of your own: tlkit.load_backbone"
        )
    takes = EXAMPLES[entry.modality]
    if config.task in TEXT_TASKS and entry.modality != "text":
        raise ConfigError(f"task {config.task!r} is for texts, but {config.backbone!r} takes {takes}.")
    for modality, names in ONLY_FOR.items():
        asked_for = [name for name in names if modality != entry.modality and _is_changed(config, name)]
        if asked_for:
            raise ConfigError(
                f"{', '.join(asked_for)}: for {EXAMPLES[modality]}, but {config.backbone!r} takes {takes}. "
                "Leave it out."
            )
    if isinstance(config.plan, LoraPlan) and entry.kind == "scratch" and not is_run:
        raise ConfigError(
            f"plan: lora adapts pretrained weights, and {config.backbone!r} is trained from scratch. "
            "Use --plan full"
        )
    shape = [f"architecture.{name}" for name in config.architecture.model_dump(exclude_none=True)]
    if shape and is_run:
        raise ConfigError(f"{', '.join(shape)}: {config.backbone!r} is an earlier run, which has its shape.")


def require_mixable(config: RunConfig, *, own_loss: bool) -> None:
    """Raise the ConfigError for a loss of one's own that would not understand mixed labels."""
    if config.training.mix is not None and config.task == "classify" and own_loss:
        raise ConfigError(
            "training.mix makes of a class shares of classes, and loss= is one of your own, which task "
            "'classify' gives class indices. Use head.loss, or leave training.mix out."
        )


def require_trainable(
    groups: Sequence[LayerGroup], stages: Sequence[Stage], entry: ZooEntry, head_params: int
) -> None:
    """Raise the ConfigError for a plan that does not fit the backbone's layer groups, or the head.

    It gives a rate to a group that there is not, trains a SavedModel that cannot be trained, adapts layers
    that there are not, or trains nothing but a head without weights.
    """
    for stage in stages:
        if not head_params and not stage.n_trained(len(groups)) and stage.adapters is None:
            raise ConfigError(
                f"Stage {stage.name!r} trains the head alone, and this head has nothing to train. "
                "Give it layers (head.hidden_units), or train layer groups, too: --plan full"
            )
    require_groups(stages, [group.name for group in groups])
    for stage in stages:
        if stage.adapters is not None:
            find_targets(layers_of(groups), stage.adapters, entry.name)
    fixed = [
        number
        for number, group in enumerate(groups)
        if any(isinstance(layer, SavedModelLayer) and not layer.fine_tunes for layer in group.layers)
    ]
    for stage in stages:
        if fixed and stage.n_trained(len(groups)) >= len(groups) - fixed[-1]:
            raise ConfigError(
                f"Stage {stage.name!r} trains {entry.name!r}, a SavedModel that cannot be fine-tuned: it has "
                "the format of TensorFlow 1, or no trainable variables. Use its features: --plan head"
            )


def _is_changed(config: RunConfig, dotted: str) -> bool:
    part, name = dotted.split(".")
    options: Options = getattr(config, part)
    return bool(getattr(options, name) != type(options).model_fields[name].get_default())
