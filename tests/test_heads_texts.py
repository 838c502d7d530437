"""Heads of texts: pooling under a mask, tags of words, vectors of texts."""

import keras
import numpy as np
import pytest

from tlkit.config import HeadConfig
from tlkit.errors import ConfigError
from tlkit.heads import example_weights, make_head, to_scores

N, T, C = 3, 5, 4
SEQUENCE = np.random.default_rng(0).normal(size=(N, T, C)).astype("float32")
LENGTHS = np.array([5, 2, 1])
MASK = (np.arange(T) < LENGTHS[:, None]).astype("int32")
STARTS = np.array([[1, 3, 4], [1, -1, -1], [0, -1, -1]], "int32")


def build(head, pooler=False, mask=True, words=False):
    """A model from the features themselves to what the head makes of them."""
    features = {"sequence": keras.Input((None, C), name="sequence")}
    if pooler:
        features["pooled"] = keras.Input((C,), name="pooled")
    if mask:
        features["mask"] = keras.Input((None,), dtype="int32", name="mask")
    if words:
        features["word_starts"] = keras.Input((None,), dtype="int32", name="word_starts")
    return keras.Model(features, head.attach(features))


def outputs_of(head, **features):
    options = {"pooler": "pooled" in features, "mask": "mask" in features, "words": "word_starts" in features}
    return np.asarray(build(head, **options)(features))


def only_pooling(pooling):
    """The pooled vectors, through an output layer that copies them."""
    head = make_head(HeadConfig(pooling=pooling, dropout=0.0), n_outputs=C)
    model = build(head, pooler=True)
    model.get_layer("head_output").set_weights([np.eye(C), np.zeros(C)])
    return lambda **features: np.asarray(model({"pooled": np.zeros((N, C), "float32"), **features}))


def test_mean_and_max_are_over_real_tokens():
    rows = [SEQUENCE[n, :length] for n, length in enumerate(LENGTHS)]
    for pooling, function in (("mean", np.mean), ("auto", np.mean), ("max", np.max)):
        expected = np.stack([function(row, axis=0) for row in rows])
        answers = only_pooling(pooling)(sequence=SEQUENCE, mask=MASK)
        np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_padding_changes_nothing(pooling):
    pool = only_pooling(pooling)
    junk = np.full((N, 7, C), 1e6, "float32")
    longer = {
        "sequence": np.concatenate([SEQUENCE, junk], axis=1),
        "mask": np.pad(MASK, ((0, 0), (0, 7))),
    }
    np.testing.assert_allclose(pool(**longer), pool(sequence=SEQUENCE, mask=MASK), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_text_without_tokens_gives_no_nan(pooling):
    assert np.isfinite(only_pooling(pooling)(sequence=SEQUENCE, mask=MASK * 0)).all()


def test_cls_is_the_pooler_where_there_is_one_else_the_first_token():
    pooled = np.arange(N * C, dtype="float32").reshape(N, C)
    np.testing.assert_allclose(only_pooling("cls")(sequence=SEQUENCE, mask=MASK, pooled=pooled), pooled)
    head = make_head(HeadConfig(pooling="cls", dropout=0.0), n_outputs=C)
    model = build(head)
    model.get_layer("head_output").set_weights([np.eye(C), np.zeros(C)])
    first = np.asarray(model({"sequence": SEQUENCE, "mask": MASK}))
    np.testing.assert_allclose(first, SEQUENCE[:, 0], rtol=1e-6)


def test_without_a_mask_every_token_counts():
    head = make_head(HeadConfig(pooling="mean", dropout=0.0), n_outputs=C)
    model = build(head, mask=False)
    model.get_layer("head_output").set_weights([np.eye(C), np.zeros(C)])
    np.testing.assert_allclose(model({"sequence": SEQUENCE}), SEQUENCE.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_only_a_head_that_looks_at_the_pooler_says_so():
    assert make_head(HeadConfig(pooling="cls"), n_outputs=2).uses_pooler
    assert make_head(HeadConfig(pooling="cls"), "embed").uses_pooler
    assert not make_head(HeadConfig(), n_outputs=2).uses_pooler
    assert not make_head(HeadConfig(pooling="cls"), n_outputs=2, layer=keras.layers.Dense(2)).uses_pooler


def test_a_pooling_that_does_not_fit_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match=r"'avg' does not fit the sequence of texts.*auto, mean, max, cls"):
        build(make_head(HeadConfig(pooling="avg"), n_outputs=2))
    picture = {"map": keras.Input((2, 2, C))}
    with pytest.raises(
        ConfigError,
        match="'cls' does not fit what the backbone gives of pictures. Allowed: auto, avg, max, avg_max",
    ):
        make_head(HeadConfig(pooling="cls"), n_outputs=2).attach(picture)
    with pytest.raises(ConfigError, match="answers for every word and pools none, received 'max'"):
        make_head(HeadConfig(pooling="max"), "tokens", n_outputs=3)


def test_tags_are_read_at_the_first_subwords():
    head = make_head(HeadConfig(dropout=0.0), "tokens", n_outputs=C)
    model = build(head, words=True)
    model.get_layer("head_output").set_weights([np.eye(C), np.ones(C)])
    logits = np.asarray(model({"sequence": SEQUENCE, "mask": MASK, "word_starts": STARTS}))
    assert logits.shape == (N, 3, C)
    np.testing.assert_allclose(logits[0], SEQUENCE[0, [1, 3, 4]] + 1, rtol=1e-6)
    np.testing.assert_allclose(logits[1, 0], SEQUENCE[1, 1] + 1, rtol=1e-6)
    np.testing.assert_array_equal(logits[1:, 1:], 0)


def test_vectors_have_length_one_and_the_width_of_the_last_layer():
    features = {"sequence": SEQUENCE, "mask": MASK}
    plain = outputs_of(make_head(objective="embed"), **features)
    mean = np.stack([SEQUENCE[n, :length].mean(axis=0) for n, length in enumerate(LENGTHS)])
    np.testing.assert_allclose(
        plain, mean / np.linalg.norm(mean, axis=1, keepdims=True), rtol=1e-5, atol=1e-6
    )
    head = make_head(HeadConfig(hidden_units=(8, 6)), "embed")
    projected = outputs_of(head, **features)
    assert head.n_outputs == 6
    assert projected.shape == (N, 6)
    assert (projected < 0).any()  # the last layer is linear
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("objective", "options"),
    [("classify", {"pooling": name}) for name in ("mean", "max", "cls")]
    + [
        ("tokens", {"hidden_units": (6,)}),
        ("embed", {}),
        ("embed", {"hidden_units": (6,), "pooling": "max"}),
    ],
)
def test_a_saved_head_loads_in_plain_keras(objective, options, tmp_path):
    head = make_head(HeadConfig(**options), objective, n_outputs=3 if objective != "embed" else None)
    model = build(head, words=objective == "tokens")
    features = {"sequence": SEQUENCE, "mask": MASK}
    if objective == "tokens":
        features["word_starts"] = STARTS
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_allclose(again(features), model(features), rtol=1e-6, atol=1e-7)


def test_a_head_of_ones_own_sees_the_sequence_and_its_mask():
    class Masked(keras.layers.Layer):
        supports_masking = True

        def compute_mask(self, inputs, mask=None):
            return None

        def call(self, sequence, mask=None):
            return keras.ops.sum(sequence * keras.ops.cast(mask, "float32")[..., None], axis=1)

    own = outputs_of(make_head(n_outputs=C, layer=Masked()), sequence=SEQUENCE, mask=MASK)
    np.testing.assert_allclose(own, (SEQUENCE * MASK[..., None]).sum(axis=1), rtol=1e-5, atol=1e-6)
    own = outputs_of(
        make_head(n_outputs=C, layer=lambda sequence: sequence[:, 0]), sequence=SEQUENCE, mask=MASK
    )
    np.testing.assert_allclose(own, SEQUENCE[:, 0])


def test_a_head_of_ones_own_answers_for_words_and_gives_vectors_of_length_one():
    features = {"sequence": SEQUENCE, "mask": MASK}
    tagger = make_head(objective="tokens", n_outputs=2, layer=keras.layers.Dense(2, bias_initializer="ones"))
    logits = outputs_of(tagger, **features, word_starts=STARTS)
    assert logits.shape == (N, 3, 2)
    np.testing.assert_array_equal(logits[1:, 1:], 0)
    vectors = outputs_of(
        make_head(objective="embed", layer=keras.layers.GlobalAveragePooling1D()), **features
    )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_scores_of_tags_are_probabilities_and_vectors_stay():
    scores = np.asarray(to_scores("tokens", SEQUENCE))
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(to_scores("embed", SEQUENCE[:, 0]), SEQUENCE[:, 0])


def test_the_number_of_outputs_must_be_there():
    with pytest.raises(ConfigError, match="needs n_outputs"):
        make_head(objective="tokens")
    with pytest.raises(ConfigError, match="A tagger needs 2 tags, received 1"):
        make_head(objective="tokens", n_outputs=1)


def test_weights_of_classes_are_for_tasks_with_classes():
    with pytest.raises(ConfigError, match="pair where it learns labels.*; this one is 'embed'"):
        example_weights("balanced", "embed", np.array([0.1, 0.9]), None)
    assert example_weights("none", "tokens", np.array([0, 1]), ("B-x", "O")) is None
