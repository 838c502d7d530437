"""The `tlkit` command as a process: how it ends."""

from __future__ import annotations

import atexit
import os
import sys

from tlkit.cli.app import main

FAULT = 1  # what Python itself gives where an exception is not caught


def run() -> None:
    """Run the command line, and end the process with its exit code.

    One of several workers that ends with an error leaves as soon as everything of its own is written. To take
    TensorFlow down (tried on 2.21) would wait for the threads of pipelines that the error has cut off, for
    half a minute and more, in which the others wait, too; and it would say things that are nobody's mistake.
    """
    code = FAULT

    def leave() -> None:
        if code:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    if os.environ.get("TF_CONFIG"):
        atexit.register(leave)  # before all others, so that it is called after them
    try:
        code = main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else FAULT
        raise
    sys.exit(code)
