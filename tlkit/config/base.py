"""What every part of the config has in common."""

from __future__ import annotations

import pydantic


class Options(pydantic.BaseModel):
    """A frozen record of options: unknown keys are errors, and defaults live here only."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,  # YAML reads a folder or a column called 2024 as a number
    )
