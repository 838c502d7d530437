"""The whole config of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import pydantic

from tlkit.config.architecture import ArchitectureConfig
from tlkit.config.base import Options
from tlkit.config.cache import CacheConfig
from tlkit.config.data import DataConfig
from tlkit.config.head import HeadConfig, Objective, Task
from tlkit.config.plan import LoraPlan, PlanSpec, parse_plan
from tlkit.config.preprocessing import PreprocessingConfig
from tlkit.config.training import TrainingConfig
from tlkit.places import require_local

FixedPrecision: TypeAlias = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Precision: TypeAlias = Literal["auto"] | FixedPrecision
Xla: TypeAlias = Literal["auto", "on", "off"]


class RunConfig(Options):
    """Everything that a run depends on. The keys of the YAML file are the names of these fields."""

    data: DataConfig = DataConfig()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    backbone: str | None = None
    """A zoo entry's name; `wheel:…`, `hub:…`, `kaggle:…`, `hf:…`, `keras_hub:…`, `url:…`; the path of a model
    or the folder of an earlier run. None: `efficientnet_lite0` for pictures, `minilm_l6` for texts."""
    trust: bool = False
    """Load a SavedModel whose operations read files or run code."""
    weights: Literal["pretrained", "none"] = "pretrained"
    """`none` starts from the layers' own random initialisers."""
    architecture: ArchitectureConfig = ArchitectureConfig()
    """The shape of a backbone that is trained from scratch."""
    task: Task = "classify"
    """One label per example (`classify`), any number of labels (`multilabel`), numbers (`regress`); of two
    texts, a label or a number (`pair`); a tag for every word (`tokens`); vectors of texts that are as alike
    as their pairs (`embed`)."""
    head: HeadConfig = HeadConfig()
    plan: PlanSpec | None = None
    """How the run unfreezes: a plan's name, `{name: …, option: …}`, or a list of stages. None: what suits the
    kind of backbone."""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """`frozen` keeps statistics, scale and shift of every BatchNorm as they were, in unfrozen groups too."""
    training: TrainingConfig = TrainingConfig()
    cache: CacheConfig = CacheConfig()
    strategy: Literal["auto", "cpu", "gpu", "mirrored", "multi_worker", "tpu"] = "auto"
    """`auto`: the workers of the environment variable TF_CONFIG where it names several (`multi_worker`), else
    mirrored for several GPUs, else the GPU, else the CPU."""
    precision: Precision = "float32"
    """What the layers of the backbone compute in while they train; weights and the head stay float32, and the
    model that is saved, evaluated and exported is float32. `auto` times the others, and takes the fastest
    whose losses agree with float32's. With `strategy: tpu` the default is `mixed_bfloat16`."""
    xla: Xla = "off"
    """Whether XLA compiles the training steps. `auto` times both."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 0
    """Decides the splits, the order of the examples, every random draw and the head's initial weights."""
    deterministic: bool = False
    """Make two runs on one machine bit-identical, at some cost in speed."""
    export: bool = True
    """Write a SavedModel into the run folder at the end."""
    out: str | None = None
    """The run folder, on a disk or mounted. None: `runs/<data>-<backbone>-<n>`."""
    python: tuple[str, ...] = ()
    """Arguments that were Python objects and so cannot be written here."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _tpus_multiply_in_bfloat16(cls, tree: Any) -> Any:
        if isinstance(tree, Mapping) and tree.get("strategy") == "tpu":
            return {"precision": "mixed_bfloat16", **tree}
        return tree

    @pydantic.field_validator("plan", mode="before")
    @classmethod
    def _parse_plan(cls, value: Any) -> Any:
        return None if value is None else parse_plan(value)

    @pydantic.field_validator("out")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None:
            require_local(value, "A run folder (out)")
        return value

    @pydantic.field_validator("xla", mode="before")
    @classmethod
    def _parse_switch(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @pydantic.model_validator(mode="after")
    def _steps_fit_the_task(self) -> RunConfig:
        if self.task == "tokens" and self.preprocessing.nltk:
            raise ValueError("preprocessing.nltk changes words, and task 'tokens' has a tag for every word")
        if self.task == "regress" and self.training.mix is not None and self.training.mix.cutmix is not None:
            raise ValueError(
                "training.mix.cutmix is for labels: a part of a picture has no value of its own; "
                "task 'regress' takes mixup"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _adapters_stand_beside_fixed_weights(self) -> RunConfig:
        if isinstance(self.plan, LoraPlan):
            if self.weights == "none":
                raise ValueError("plan: lora adapts pretrained weights, received weights: none")
            if self.batch_norm == "train":
                raise ValueError(
                    "plan: lora leaves the backbone's own weights as they are, received batch_norm: train"
                )
        return self

    @property
    def objective(self) -> Objective:
        """What the head learns: the task, and for `pair` what the resolved config says that it is."""
        if self.task != "pair":
            return self.task
        return "regress" if self.head.pair == "regress" else "classify"
