"""Real text weights: outputs equal those of the PyTorch originals."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tlkit.backbones import load, source_folder

pytestmark = pytest.mark.real

FIXTURES = Path(__file__).parent / "fixtures" / "text"

# float32 on both sides, sums in another order: values from 4 to 8 are 4.8e-7 apart, and each of the 6 × 2
# sublayers may be off by that once or twice. KerasHub's own GELU would move the outputs by 2.5e-3.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def minilm():
    return load("minilm_l6")


@pytest.fixture(scope="module")
def expected():
    """Three texts (one a pair, one with accents and Chinese) through transformers' BertModel."""
    with np.load(FIXTURES / "minilm_l6.npz") as file:
        return dict(file)


def inputs_of(expected):
    return {name: expected[name] for name in ("token_ids", "padding_mask", "segment_ids")}


def test_minilm_gives_the_original_s_outputs(minilm, expected):
    outputs = minilm.model(inputs_of(expected), training=False)
    real = expected["padding_mask"] == 1
    np.testing.assert_allclose(
        outputs["sequence"].numpy()[real], expected["sequence"][real], rtol=0, atol=TOLERANCE
    )
    np.testing.assert_allclose(outputs["pooled"], expected["pooled"], rtol=0, atol=TOLERANCE)


def test_minilm_saves_and_opens_with_plain_keras(minilm, expected, tmp_path):
    minilm.model.save(tmp_path / "backbone.keras")
    opened = keras.saving.load_model(tmp_path / "backbone.keras", safe_mode=True)
    inputs = inputs_of(expected)
    for name, values in opened(inputs, training=False).items():
        np.testing.assert_array_equal(values, minilm.model(inputs, training=False)[name])


def test_minilm_comes_with_its_vocabulary(minilm):
    words = (source_folder(minilm.entry) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert len(words) == minilm.entry.constructor.arguments["vocabulary_size"]
