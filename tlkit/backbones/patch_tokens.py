"""From a picture to the tokens of a vision transformer, for pictures of any size."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt


@keras.saving.register_keras_serializable("tlkit")
class PatchTokens(keras.layers.Layer):
    """Patches behind learned tokens, with learned positions: (N, H, W, 3) → (N, tokens + registers + h·w, C).

    h is H / `patch_size`, w likewise. The table of positions stays that of the pretraining, `position_grid`
    patches a side; for other pictures it is resized in the graph (bicubic, as PyTorch does, with which these
    models were trained), so that the number of weights does not depend on the picture's size.

    Args:
        patch_size: In pixels.
        hidden_dim: C.
        tokens: Learned tokens that have a position: class token, distillation token.
        registers: Learned tokens without a position, behind those.
        position_grid: None: there is no such table (positions are rotary).
        antialias: Whether the table is filtered where it shrinks.
        use_bias: Whether the projection of the patches has one.
    """

    def __init__(
        self,
        patch_size: int,
        hidden_dim: int,
        tokens: int = 1,
        registers: int = 0,
        position_grid: int | None = None,
        antialias: bool = False,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.patch_size = patch_size
        self.hidden_dim = hidden_dim
        self.tokens = tokens
        self.registers = registers
        self.position_grid = position_grid
        self.antialias = antialias
        self.use_bias = use_bias
        self.projection = keras.layers.Conv2D(
            hidden_dim,
            patch_size,
            patch_size,
            use_bias=use_bias,
            kernel_initializer=_initializer(),
            dtype=self.dtype_policy,
            name="projection",
        )

    def build(self, input_shape: Any) -> None:
        self.projection.build(input_shape)
        shape = {"learned_tokens": self.tokens, "register_tokens": self.registers}
        for name, count in shape.items():
            if count:
                weight = self.add_weight(
                    shape=(1, count, self.hidden_dim), initializer=_initializer(), name=name
                )
                setattr(self, name, weight)
        if self.position_grid is None:
            return
        self.positions = self.add_weight(
            shape=(1, self.tokens + self.position_grid**2, self.hidden_dim),
            initializer=_initializer(),
            autocast=False,  # resized in float32, whatever the precision of the rest
            name="positions",
        )
        height, width = (side // self.patch_size for side in input_shape[1:3])
        self.rows = resizing_matrix(self.position_grid, height, self.antialias)
        self.columns = resizing_matrix(self.position_grid, width, self.antialias)

    def call(self, inputs: Any) -> Any:
        patches = self.projection(inputs)
        batch, count = keras.ops.shape(patches)[0], patches.shape[1] * patches.shape[2]
        parts = [keras.ops.reshape(patches, (-1, count, self.hidden_dim))]
        if self.tokens:
            parts.insert(0, self._for_each(self.learned_tokens, batch))
        x = keras.ops.concatenate(parts, axis=1)
        if self.position_grid is not None:
            x = x + keras.ops.cast(self._resized_positions(), x.dtype)
        if self.registers:
            registers = self._for_each(self.register_tokens, batch)
            x = keras.ops.concatenate([x[:, : self.tokens], registers, x[:, self.tokens :]], axis=1)
        return x

    def _resized_positions(self) -> Any:
        positions = keras.ops.convert_to_tensor(self.positions)
        if len(self.rows) == len(self.columns) == self.position_grid:
            return positions
        table = keras.ops.reshape(
            positions[:, self.tokens :], (self.position_grid, self.position_grid, self.hidden_dim)
        )
        resized = keras.ops.einsum("hi,ijc,wj->hwc", self.rows, table, self.columns)
        resized = keras.ops.reshape(resized, (1, -1, self.hidden_dim))
        return keras.ops.concatenate([positions[:, : self.tokens], resized], axis=1)

    def _for_each(self, tokens: Any, batch: Any) -> Any:
        return keras.ops.broadcast_to(tokens, (batch, *tokens.shape[1:]))

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        height, width = (side // self.patch_size for side in input_shape[1:3])
        return (input_shape[0], self.tokens + self.registers + height * width, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "hidden_dim": self.hidden_dim,
            "tokens": self.tokens,
            "registers": self.registers,
            "position_grid": self.position_grid,
            "antialias": self.antialias,
            "use_bias": self.use_bias,
        }


def resizing_matrix(given: int, wanted: int, antialias: bool) -> npt.NDArray[np.float32]:
    """Bicubic resizing of `given` values to `wanted` as a matrix (wanted, given), as PyTorch does it.

    Pixels are areas (`align_corners=False`). Without antialiasing the cubic's parameter is −0.75 and the
    border repeats; with it −0.5, the kernel widens where values are merged, and ends at the border.
    """
    scale = given / wanted
    centers = (np.arange(wanted) + 0.5) * scale - 0.5
    if not antialias:
        matrix = np.zeros((wanted, given))
        first = np.floor(centers).astype(int)
        for offset in (-1, 0, 1, 2):
            weights = _cubic(centers - first - offset, -0.75)
            np.add.at(matrix, (np.arange(wanted), np.clip(first + offset, 0, given - 1)), weights)
        return matrix.astype("float32")
    weights = _cubic((np.arange(given)[None, :] - centers[:, None]) / max(scale, 1.0), -0.5)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype("float32")


def _cubic(distance: npt.NDArray[np.float64], a: float) -> npt.NDArray[np.float64]:
    """Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)
