"""Several worker processes of one run, on this machine."""

from tlkit.launching.workers import launch_workers

__all__ = ["launch_workers"]
