"""Loading TensorFlow without its start-up noise."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


def load_tensorflow() -> None:
    """Import TensorFlow and Keras, and keep what they say about CUDA, oneDNN and AVX off the screen.

    `TF_CPP_MIN_LOG_LEVEL` is honoured when the user has set it: `0` shows everything.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        return
    # TensorFlow 2.21 writes its first lines before it reads the variable (issue 100442), to descriptor 2.
    with _stderr_on_failure_only():
        importlib.import_module("tensorflow")
        importlib.import_module("keras")
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextlib.contextmanager
def _stderr_on_failure_only() -> Iterator[None]:
    """Hold back what is written to descriptor 2; show it if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
