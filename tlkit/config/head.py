"""What is attached on top of the backbone."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from tlkit.config.base import Options

NonNegative = Annotated[float, pydantic.Field(ge=0.0)]
Task = Literal["classify", "multilabel", "regress", "pair", "tokens", "embed"]
TEXT_TASKS = ("pair", "tokens", "embed")
Objective = Literal["classify", "multilabel", "regress", "tokens", "embed"]
Activation = Literal["relu", "gelu", "tanh", "sigmoid", "silu", "elu", "selu", "linear"]
Initializer = Literal[
    "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "zeros"
]
Loss = Literal["auto", "cross_entropy", "focal", "mse", "mae", "huber", "cosent", "cosine", "ranking"]


class HeadConfig(Options):
    pooling: Literal["auto", "avg", "max", "avg_max", "mean", "cls"] = "auto"
    """How a feature map becomes a vector: `avg`, `max`, or `avg_max`, which joins both, or `cls`, the class
    token of a vision transformer; and a sequence: `mean`, `max`, or `cls` (the first token, through the
    backbone's own pooler where it has one). `auto`: what the backbone's zoo entry says for pictures, mostly
    `avg`; `mean` for texts."""
    pair: Literal["auto", "classify", "regress"] = "auto"
    """What `task: pair` learns. `auto`: numbers with fractions are values, everything else is names."""
    hidden_units: tuple[Annotated[int, pydantic.Field(ge=1)], ...] = ()
    """Widths of dense layers between the pooled features and the output."""
    activation: Activation = "relu"
    """Activation of the hidden layers. The output layer gives logits or values."""
    dropout: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.2
    """Dropout rate before each dense layer."""
    initializer: Initializer = "glorot_uniform"
    """Initial values of the dense layers' kernels."""
    l1: NonNegative = 0.0
    """L1 penalty on the kernels of the dense layers."""
    l2: NonNegative = 0.0
    """L2 penalty on the kernels of the dense layers."""
    loss: Loss = "auto"
    """`auto`: cross-entropy for labels, mean squared error for numbers. For `embed`: `cosent` (the order of
    the scores), `cosine` (squared error of the cosine), `ranking` (pairs without scores: the partner against
    all others of the batch); `auto` is `cosent`, or `ranking` where there are no scores."""
    focal_gamma: NonNegative = 2.0
    """Focusing parameter of the focal loss (Lin et al., arXiv:1708.02002)."""
    focal_alpha: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] | None = None
    """Multilabel focal loss: the weight of labels that are there; those that are not have 1 − it. The paper
    has 0.25. None: 1 for both."""
    huber_delta: Annotated[float, pydantic.Field(gt=0.0)] = 1.0
    """Where the Huber loss turns from squared to absolute, in standard deviations of the target."""
    label_smoothing: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each label that is spread over all classes (Szegedy et al., arXiv:1512.00567)."""
    class_weight: Literal["none", "balanced"] | dict[str, NonNegative] = "none"
    """`balanced` weighs each class by n / (classes × count), of examples or of words with that tag; a table
    names every class. Of `multilabel` it is the weight of a label where it is there, and `balanced` is how
    many examples do not have it for each that has. Weights of examples (`data.columns.weight`) multiply."""
    standardize: bool = True
    """Regression: train on targets with zero mean and unit variance; predictions are in the target's unit."""
