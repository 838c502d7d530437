"""By how much a setting helps: the same run twice, once as it is and once with something changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.cluster import is_chief
from tlkit.config import RunConfig
from tlkit.results import RunFolder
from tlkit.workflows.finetune import run_finetune
from tlkit.workflows.run import Run


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same splits, and what sets the second one apart."""

    run: Run
    other: Run
    changes: tuple[str, ...]

    @property
    def differences(self) -> dict[str, float]:
        """Metric of `run` minus metric of `other`, on the test split (else on validation)."""
        mine, others = self.run.metrics, self.other.metrics
        return {
            name: value - others[name]
            for name, value in mine.items()
            if isinstance(value, float) and isinstance(others.get(name), float)
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run.path),
            "other": str(self.other.path),
            "changes": list(self.changes),
            "metrics": [self.run.metrics, self.other.metrics],
            "differences": self.differences,
        }


def compare_runs(
    config: RunConfig, other: RunConfig, changes: tuple[str, ...], overwrite: bool = False
) -> Comparison:
    """Train both configs, one after the other.

    Args:
        config: The run.
        other: The same with `changes`; its folder is that of the run with `-compared` at its end.
        changes: The overrides that `other` has, as `key.path=value`.
        overwrite: Replace earlier runs in these folders.

    Raises:
        TlkitError: As `run_finetune` does.
    """
    if config.out is not None and is_chief(config.strategy):
        RunFolder.require_free(config.out, overwrite)
        RunFolder.require_free(_beside(Path(config.out)), overwrite)
    run = run_finetune(config, overwrite=overwrite)
    out = str(_beside(run.path))
    compared = run_finetune(other.model_copy(update={"out": out}), overwrite=overwrite)
    return Comparison(run, compared, changes)


def _beside(path: Path) -> Path:
    """The folder of the second run."""
    path = path if path.name else path.resolve()  # "." has no name
    return path.with_name(f"{path.name}-compared")
