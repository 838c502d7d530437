"""Every family of text backbones, from a Hugging Face folder: trained, saved, loaded, exported, asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  the operations of exported tokenizers

import tlkit

from conftest import ROOT

FOLDERS = ROOT / "tests" / "fixtures" / "text"
# One family for each kind of tokenizer, one without a mask; the others take as long and show little more.
ALWAYS = ("f_net", "roberta")
FAMILIES = sorted(path.name for path in FOLDERS.iterdir() if path.is_dir())
WORDS = {"good": "a fine and moving film", "bad": "a dull, empty film"}


@pytest.fixture
def reviews() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"text": f"{text} {'again and ' * (n % 5)}number {n}", "label": label}
            for n in range(20)
            for label, text in WORDS.items()
        ]
    )


@pytest.mark.parametrize(
    "family",
    [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_a_family_trains_saves_loads_and_exports(family: str, reviews: pd.DataFrame, tmp_path: Path) -> None:
    run = tlkit.finetune(
        data=reviews,
        backbone=FOLDERS / family,
        plan={"name": "head_then_all", "head_epochs": 1, "epochs": 1},
        sequence_length=24,
        out=tmp_path / "run",
    )

    assert list(run.stages["frozen_unchanged"]) == [True, True]
    texts = ["a fine film", "dull … é 東京 🙂", "a dull and moving film " * 9]
    before = [list(answer["scores"].values()) for answer in run.predict(texts)]
    after = [list(answer["scores"].values()) for answer in tlkit.load(run.path).predict(texts)]
    served = tf.saved_model.load(run.path / "export").signatures["serving_default"](text=tf.constant(texts))

    np.testing.assert_allclose(after, before, atol=1e-6)
    np.testing.assert_allclose(served["scores"].numpy(), before, atol=1e-5)
    alone = [list(run.predict(text)["scores"].values()) for text in texts]  # other padding, same answers
    np.testing.assert_allclose(alone, before, atol=1e-5)
