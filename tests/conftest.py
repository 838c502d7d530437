"""What all tests share: a cache folder, real data where there is some, and small pictures."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tlkit.zoo import home

ROOT = Path(__file__).resolve().parents[1]

# TensorFlow reads this when it is imported; tests of start-up noise run in processes of their own.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

PictureFolder = Callable[..., Path]

SHARED_DATA = Path(os.environ.get("TLKIT_TEST_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard():
    """A shell starts what runs in the background with Ctrl-C ignored, and processes hand that on."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets: the folder that `TLKIT_TEST_DATA` names, or `../shared/data` beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}: set TLKIT_TEST_DATA to its folder")
    return SHARED_DATA


@pytest.fixture
def nltk_data(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NLTK's data, and no other that this machine may have: the folder that NLTK_DATA names."""
    import nltk

    folder = shared_data / "nltk_data"
    if not folder.is_dir():
        pytest.skip(f"no NLTK data at {folder}")
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("NLTK_DATA", str(folder))
    return folder


@pytest.fixture(scope="session")
def cache_folder() -> Path:
    """The machine's own cache folder, so that wheels are fetched once per machine."""
    return home()


@pytest.fixture(autouse=True)
def _stable_environment(cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts with the same settings, whatever the shell or the test before it had set."""
    monkeypatch.setenv("TLKIT_HOME", str(cache_folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path.with_name(f"{tmp_path.name}-config")))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("TLKIT_OFFLINE", raising=False)
    monkeypatch.delenv("TLKIT_ZOO", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)


@pytest.fixture(autouse=True)
def _seeded_keras() -> Iterator[None]:
    """Every test starts from the same random state, where its module uses Keras at all."""
    keras = sys.modules.get("keras")
    if keras is not None:
        keras.utils.set_random_seed(0)
    yield
    if keras is not None:
        keras.config.set_dtype_policy("float32")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and an empty cache folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def picture_folder(tmp_path: Path) -> PictureFolder:
    """Make a folder of class folders below the test's own: `picture_folder(name="pictures", …)`."""

    def make(name: str = "pictures", **options: Any) -> Path:
        return make_pictures(tmp_path / name, **options)

    return make


def make_pictures(
    folder: Path,
    classes: tuple[str, ...] = ("blue", "green", "red"),
    per_class: int = 12,
    size: int = 40,
    seed: int = 0,
) -> Path:
    """Fill `folder` with class folders whose classes differ by colour, so that a few epochs learn them."""
    random = np.random.default_rng(seed)
    for number, label in enumerate(classes):
        (folder / label).mkdir(parents=True)
        for index in range(per_class):
            write_picture(folder / label / f"{index:02}.png", number, len(classes), size, random)
    return folder


def write_picture(path: Path, number: int, n_classes: int, size: int, random: np.random.Generator) -> None:
    """One noisy PNG (size, size, 3) in the colour of class `number`."""
    turn = 2 * np.pi * number / n_classes
    colour = 128 + 90 * np.cos(turn + 2 * np.pi / 3 * np.arange(3))
    pixels = colour + random.normal(0, 25, (size, size, 3))
    Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(path)
