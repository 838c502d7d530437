"""A row for every epoch of a stage, in a file that is always whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pandas as pd

from tlkit.results import write_csv


class EpochLog(keras.callbacks.Callback):
    """Write the table anew at the end of each epoch, with the columns that Keras's own CSVLogger has.

    That one keeps its file open: where the disk is full, half a row stays there, and the best epoch is not
    found in it any more.

    Args:
        file: The table. What an earlier attempt at the stage left there stays until an epoch has ended.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.rows: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.rows.append({"epoch": epoch, **dict(sorted((logs or {}).items()))})
        write_csv(self.file, pd.DataFrame(self.rows))
