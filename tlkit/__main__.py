"""`python -m tlkit` is `tlkit`."""

from tlkit.cli import run

if __name__ == "__main__":
    run()
