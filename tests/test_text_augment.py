"""Random changes of texts: seeded, near the share that was asked for, and away from negations."""

import re

import numpy as np
import pytest
import tensorflow as tf

from tlkit.config.augment import AUGMENTATIONS, parse_augment, resolve_augment
from tlkit.config.preprocessing import PreprocessingConfig
from tlkit.errors import ConfigError
from tlkit.preprocessing import text_augment
from tlkit.preprocessing.negations import NEGATIONS, is_negation
from tlkit.preprocessing.text_augment import make_text_augment

nltk = pytest.importorskip("nltk")

NAMES = ["synonym_replacement", "random_deletion", "random_swap", "keyboard_typos"]
WITHOUT_DATA = NAMES[1:]
VOCABULARY = {
    "film": ["movie", "picture"],
    "brilliant": ["superb"],
    "story": ["narrative", "tale"],
    "effort": ["attempt"],
    "dull": ["boring", "tedious"],
}
TEXT = "the film tells a brilliant story about some dull people , with (great) effort ; they never rest ."


@pytest.fixture(autouse=True)
def _own_synonyms(request, monkeypatch):
    if "nltk_data" not in request.fixturenames:
        monkeypatch.setattr(text_augment, "find_synonyms", lambda texts: VOCABULARY)


def make(config, texts=()):
    return make_text_augment(resolve_augment(parse_augment(config), "text"), texts)


def seeds(count, epoch=0):
    return tf.stack([tf.fill([count], tf.constant(epoch, tf.int64)), tf.range(count, dtype=tf.int64)], axis=1)


def run(config, texts, epoch=0):
    """The texts, each with seeds of its own, as Python strings."""
    changed = make(config)(tf.constant(texts), seeds(len(texts), epoch)).numpy()
    return np.vectorize(bytes.decode, otypes=[object])(changed).tolist()


def words(text):
    return re.findall(r"[a-z]+", text)


@pytest.mark.parametrize("name", [*NAMES, NAMES], ids=str)
def test_a_text_depends_on_nothing_but_itself_and_its_seeds(name):
    change = make(name)
    texts, with_seeds = tf.constant([TEXT] * 40), seeds(40)
    together = change(texts, with_seeds).numpy()
    np.testing.assert_array_equal(tf.function(change)(texts, with_seeds).numpy(), together)
    for place in (0, 7, 39):
        alone = change(texts[place : place + 1], with_seeds[place : place + 1]).numpy()
        assert alone[0] == together[place]
    backwards = change(tf.reverse(texts, [0]), tf.reverse(with_seeds, [0])).numpy()[::-1]
    np.testing.assert_array_equal(backwards, together)


@pytest.mark.parametrize("name", NAMES)
def test_examples_and_epochs_differ(name):
    config = [{name: {"share": 0.2}}]
    first, second = run(config, [TEXT] * 30), run(config, [TEXT] * 30, epoch=1)
    assert len(set(first)) > 8
    assert sum(one != other for one, other in zip(first, second, strict=True)) > 20
    assert first == run(config, [TEXT] * 30)


def test_two_augmentations_of_a_list_draw_apart():
    text = " ".join(["film"] * 20)
    changed = run([{"keyboard_typos": {"share": 0.3}}] * 2, [text] * 100)
    misspelt = np.mean([word != "film" for one in changed for word in one.split()])
    assert misspelt == pytest.approx(1 - 0.7**2, abs=0.06)  # with the same draws it would be about 0.3


def test_parallel_pipelines_give_the_same_texts_twice():
    change = make(NAMES)
    texts = tf.constant([f"{TEXT} number {number} of them" for number in range(200)])

    def epoch():
        pairs = tf.data.Dataset.from_tensor_slices((texts, seeds(200))).batch(7)
        pairs = pairs.map(change, num_parallel_calls=8, deterministic=True)
        return np.concatenate([batch.numpy() for batch in pairs.prefetch(2)])

    first = epoch()
    np.testing.assert_array_equal(epoch(), first)
    np.testing.assert_array_equal(change(texts, seeds(200)).numpy(), first)


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_about_the_share_that_was_asked_for_is_changed(name, share):
    # 20 words, none a negation, 8 of them with synonyms.
    text = " ".join(["film", "people", "story", "see", "dull"] * 4)
    count = 400
    changed = run([{name: {"share": share}}], [text] * count)
    if name == "random_deletion":
        touched = sum(20 - len(words(one)) for one in changed)
    else:
        touched = sum(was != now for one in changed for was, now in zip(words(text), words(one), strict=True))
    # The mean of 8000 binomial draws, of which pairs move together, lies within 4.5 deviations.
    deviation = np.sqrt(share * (1 - share) * (2 if name == "random_swap" else 1) / (20 * count))
    assert touched / (20 * count) == pytest.approx(share, abs=4.5 * deviation)


@pytest.mark.parametrize("name", NAMES)
def test_share_0_changes_nothing(name):
    assert run([{name: {"share": 0.0}}], [TEXT, "", "  two  words "]) == [TEXT, "", "  two  words "]


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_texts_of_fewer_than_four_words_stay_as_they_are(name, share):
    short = [
        "",
        " ",
        "film",
        "a brilliant film",
        "dull , dull ; dull .",
        "...",
        "我喜欢这部电影 film story film",
    ]
    assert run([{name: {"share": share}}], short) == short


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_no_text_becomes_empty(share):
    texts = ["one two three four", "(one) two, three: four!", "no one two three"] * 50
    for text, changed in zip(texts, run([{"random_deletion": {"share": share}}], texts), strict=True):
        assert words(changed), text


@pytest.mark.parametrize("name", NAMES)
def test_negations_keep_their_place_and_their_word(name, monkeypatch):
    english = ["no", "Not", "NEVER", "isn't", "didn’t", "n't", "dont", "without", "nor", "hardly"]
    negations = [*english, "nicht", "не", "pas"] * 20
    forbidden = {negation.lower(): ["yes"] for negation in negations}
    monkeypatch.setattr(text_augment, "find_synonyms", lambda texts: {**VOCABULARY, **forbidden})
    texts = [f"this film is {negation} dull people think it tells" for negation in negations]
    share = 0.7 if name == "random_deletion" else 1.0
    for negation, changed in zip(negations, run([{name: {"share": share}}], texts), strict=True):
        assert changed.split().count(negation) == 1
        if name in ("random_swap", "random_deletion"):
            assert f"{negation} dull" in changed


def test_a_negation_between_marks_is_one_too():
    texts = ["good/not bad, they say (never) film-maker ..."] * 60
    for changed in run([{"random_deletion": {"share": 0.8}}], texts):
        assert "good/not bad" in changed
        assert "(never) film-maker" in changed


def test_a_typo_never_makes_a_negation():
    # o lies between i and p: `nit` and `npt` are one wrong key away from `not`.
    for changed in run([{"keyboard_typos": {"share": 1.0}}], ["nit npt nit npt bot sin pas nie"] * 200):
        assert sum(is_negation(word) for word in changed.split()) == 3  # those that were there


def test_negations_are_known_in_any_case_and_spelling():
    for word in (*NEGATIONS, "Isn't", "ISN’T", "n't", "Wouldnt", "doesn't"):
        assert is_negation(word)
        assert is_negation(word.upper())
    for word in ("knot", "note", "want", "giant", "another", "nothingness", "different"):
        assert not is_negation(word)


def test_deletion_keeps_marks_and_single_spaces():
    text = "(one) two, three   four -- five\nsix."
    for changed in run([{"random_deletion": {"share": 0.4}}], [text] * 100):
        assert re.sub(r"[a-z\s]", "", changed) == "(),--."
        assert not re.match(r"\s", changed)
        assert not re.search(r"\s\.$", changed)
        assert [word for word in words(text) if word in words(changed)] == words(changed)
    for changed in run([{"random_deletion": {"share": 0.5}}], ["a b c d e f"] * 100):
        assert changed == " ".join(changed.split())


def test_swaps_move_only_neighbours_with_nothing_but_space_between_them():
    text = "one two, three four\tfive . six (seven eight)"
    seen = set()
    for changed in run([{"random_swap": {"share": 1.0}}], [text] * 200):
        assert sorted(words(changed)) == sorted(words(text))
        assert re.sub(r"[a-z]+", "x", changed) == re.sub(r"[a-z]+", "x", text)
        first, second, third, fourth, fifth, sixth, seventh, eighth = words(changed)
        assert {first, second} == {"one", "two"}
        assert {third, fourth, fifth} == {"three", "four", "five"}
        assert sixth == "six"
        assert {seventh, eighth} == {"seven", "eight"}
        seen.add((third, fourth, fifth))
    # Pairs begin at even or at odd words, so either of the two is swapped in every text, and never both.
    assert seen == {("four", "three", "five"), ("three", "five", "four")}


def test_typos_are_one_neighbouring_key_in_the_same_case():
    text = "Brilliant PEOPLE see the film naïve x2 of 1234"
    seen = set()
    for changed in run([{"keyboard_typos": {"share": 1.0}}], [text] * 200):
        assert changed.split()[5:] == text.split()[5:]
        for was, now in zip(text.split(), changed.split(), strict=True):
            assert len(was) == len(now)
            wrong = [(old, new) for old, new in zip(was, now, strict=True) if old != new]
            assert len(wrong) <= 1
            for old, new in wrong:
                assert old.isupper() == new.isupper()
                assert new.lower() in text_augment._KEYS[old.lower()]
                seen.add(was)
    assert seen == {"Brilliant", "PEOPLE", "see", "the", "film"}


def test_every_key_is_the_neighbour_of_its_neighbours():
    keys = text_augment._KEYS
    assert sorted(keys) == [*"abcdefghijklmnopqrstuvwxyz"]
    for key, neighbours in keys.items():
        assert all(key in keys[neighbour] for neighbour in neighbours), key


def test_synonyms_take_the_place_of_their_word_alone():
    text = "the film , a (dull) story. Film FILM filmed about it"
    seen = set()
    for changed in run([{"synonym_replacement": {"share": 1.0}}], [text] * 60):
        found = re.fullmatch(r"the (\w+) , a \((\w+)\) (\w+)\. Film FILM filmed about it", changed)
        seen |= set(found.groups())
    assert seen == {"movie", "picture", "boring", "tedious", "narrative", "tale"}


def test_without_synonyms_nothing_is_replaced(monkeypatch):
    monkeypatch.setattr(text_augment, "find_synonyms", lambda texts: {})
    assert run(["synonym_replacement"], [TEXT]) == [TEXT]


def test_the_two_texts_of_a_pair_change_apart():
    change = make([{"random_deletion": {"share": 0.3}}])
    pairs = tf.constant([[TEXT, TEXT]] * 30)
    changed = change(pairs, seeds(30))
    assert changed.shape == (30, 2)
    assert np.sum(changed.numpy()[:, 0] != changed.numpy()[:, 1]) > 20
    flexible = tf.function(
        change, input_signature=[tf.TensorSpec([None, 2], tf.string), tf.TensorSpec([None, 2], tf.int64)]
    )
    np.testing.assert_array_equal(flexible(pairs, seeds(30)).numpy(), changed.numpy())
    assert change(pairs[:0], seeds(0)).shape == (0, 2)


@pytest.mark.parametrize("name", [*NAMES, NAMES], ids=str)
def test_any_script_and_any_bytes_do_no_harm(name):
    config = [{one: {"share": 0.5}} for one in ([name] if isinstance(name, str) else name)]
    texts = [
        "هذا الفيلم رائع جدا و ممتع للغاية",
        "הסרט הזה מצוין ומאוד מהנה לכולם",
        "我 喜欢 这部 电影 非常 好看",
        "これ は とても 良い 映画 です",
        "ภาพยนตร์ เรื่อง นี้ ดี มาก",
        "🙂 🙂 good 🙂 film 👩‍👩‍👧 story ❤️ dull",
        "e\u0301te\u0301 cafe\u0301 nai\u0308ve re\u0301sume\u0301 film",
        "one\u00a0two\u3000three four five",
        "nul\x00 in \x00 a text \x00 of words",
        "https://example.org/a?b=c @user #tag 3.50 a b c",
        "x" * 5000,
    ]
    for epoch in range(5):
        changed = run(config, texts, epoch)
        assert len(changed) == len(texts)
        assert changed[2:5] == texts[2:5]
        assert changed[10] == texts[10]
    raw = tf.constant([b"latin \xe9t\xe9 \xff and \xff bytes", b"\xff", b"\xff\xff a b c d e"])
    assert make(config)(raw, seeds(3)).shape == (3,)


@pytest.mark.parametrize("name", NAMES)
def test_addresses_names_and_numbers_stay_whole(name):
    text = "see https://example.org/a?b=c and @some_user #great_film 3,500.75 again"
    for changed in run([{name: {"share": 0.6}}], [text] * 50):
        left = set(changed.split())
        for whole in ("https://example.org/a?b=c", "@some_user", "#great_film", "3,500.75"):
            assert whole in left or name == "random_deletion"
        assert "https" not in words(changed) or "https://example.org/a?b=c" in left


def test_names_and_shares_are_options_of_the_config():
    config = PreprocessingConfig(augment=["random_swap", {"keyboard_typos": {"share": 0.2}}])
    assert config.model_dump(mode="json")["augment"] == [
        {"random_swap": {"share": 0.1}},
        {"keyboard_typos": {"share": 0.2}},
    ]
    assert {name for name, kind in AUGMENTATIONS.items() if kind.modality == "text"} == set(NAMES)
    with pytest.raises(ValueError, match=r"random_swap\.share: .* received 1\.5"):
        PreprocessingConfig(augment=[{"random_swap": {"share": 1.5}}])


def test_the_default_leaves_texts_alone():
    assert resolve_augment("default", "text") == ()
    assert resolve_augment("none", "text") == ()
    assert len(resolve_augment("default")) == 1
    assert run("default", [TEXT]) == [TEXT]


@pytest.mark.parametrize(
    ("config", "modality", "expected"),
    [
        ("flips", "text", r"'random_flip' is not for texts\. Allowed: none, synonym_replacement, "),
        (["random_swap", "gaussian_noise"], "text", "'gaussian_noise' is not for texts"),
        (["random_swap", "keyboard_typos"], "image", "'random_swap', 'keyboard_typos' is not for images"),
    ],
)
def test_an_augmentation_of_the_other_modality_is_refused(config, modality, expected):
    with pytest.raises(ConfigError, match=expected):
        resolve_augment(parse_augment(config), modality)


def test_words_with_tags_are_not_augmented():
    with pytest.raises(ConfigError, match="'random_swap' cannot be used for task 'tokens'"):
        resolve_augment(parse_augment("random_swap"), "text", "tokens")
    assert resolve_augment("default", "text", "tokens") == ()
    with pytest.raises(ConfigError, match="words with tags"):
        make("random_swap")(tf.ragged.constant([["a", "b"], ["c"]]), seeds(2))


@pytest.mark.usefixtures("nltk_data")
def test_wordnet_gives_synonyms_of_what_occurs():
    texts = ["The film is hardly brilliant", "a movie, a story; films never will be dull john"]
    found = text_augment.find_synonyms(texts)
    assert found["film"] == ["movie", "picture"]
    assert "superb" in found["brilliant"]
    assert {"hardly", "never", "will", "is", "a", "films"} & set(found) == set()
    for word, others in found.items():
        assert word not in others
        assert not any(is_negation(other) for other in others)
    assert found == text_augment.find_synonyms([word for text in reversed(texts) for word in text.split()])
    change = make([{"synonym_replacement": {"share": 1.0}}], texts)
    changed = change(tf.constant([texts[0]]), seeds(1)).numpy()[0].decode()
    assert re.fullmatch("The (movie|picture) is hardly superb", changed)


def test_missing_wordnet_is_one_line(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.delenv("NLTK_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"nltk\.downloader wordnet.*NLTK_DATA"):
        make("synonym_replacement", ["film"])
    make(WITHOUT_DATA)
