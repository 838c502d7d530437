"""The shell: parse, call, print. No logic, and no TensorFlow just to say hello."""

from tlkit.cli.app import main
from tlkit.cli.process import run

__all__ = ["main", "run"]
