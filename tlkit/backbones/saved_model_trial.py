"""What a loaded SavedModel does not always say by itself: the shapes of its outputs."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tlkit.backbones.saved_model_endpoint import Endpoint, Tensors
from tlkit.errors import ConfigError

_OPEN_SIZE = 64  # pixels, tokens or samples, where the SavedModel takes any number


def output_shapes(endpoint: Endpoint, names: Sequence[str]) -> dict[str, tuple[int | None, ...]]:
    """The shapes of outputs, with the batch open. Where the SavedModel does not say how many features there
    are, an example of zeros is run. Raises ConfigError where that does not tell either."""
    told = {name: endpoint.outputs[name].shape for name in names}
    if all(shape.rank is not None and (shape.rank < 2 or shape[-1] is not None) for shape in told.values()):
        return {name: (None, *shape[1:]) if shape.rank else () for name, shape in told.items()}
    try:
        seen = {name: answer.shape for name, answer in _answers(endpoint).items()}
    except (tf.errors.InvalidArgumentError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"The SavedModel does not say how many features it gives, and cannot be tried out: {reason}"
        ) from error
    shapes: dict[str, tuple[int | None, ...]] = {}
    for name, shape in told.items():
        sides = [None] * seen[name].rank if shape.rank is None else list(shape)
        shapes[name] = (None, *sides[1:-1], seen[name][-1]) if len(sides) > 1 else (None,) * len(sides)
    return shapes


def _answers(endpoint: Endpoint) -> Tensors:
    example = {
        name: tf.zeros([1, *(side or _OPEN_SIZE for side in (spec.shape or (None,))[1:])], spec.dtype)
        for name, spec in endpoint.inputs.items()
    }
    found: list[Tensors] = []

    def run() -> None:
        found.append(endpoint(example, training=False))

    if tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context():
        tf.distribute.get_strategy().run(run)
    else:
        run()
    return found[0]
