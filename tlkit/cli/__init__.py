"""The shell: parse, call, print. Nothing here decides anything, and nothing here loads TensorFlow to say hello."""

from tlkit.cli.app import main

__all__ = ["main"]
