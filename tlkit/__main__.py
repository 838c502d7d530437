"""`python -m tlkit` is `tlkit`."""

import sys

from tlkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
