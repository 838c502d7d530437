"""NLTK's steps: what they do, their languages, and what is said where their data is missing."""

import os
import re
import zipfile

import pytest

from tlkit.config.preprocessing import PreprocessingConfig
from tlkit.config.text import parse_nltk
from tlkit.errors import ConfigError
from tlkit.preprocessing.nltk_steps import make_cleaner

nltk = pytest.importorskip("nltk")


def cleaner(*steps):
    return make_cleaner(PreprocessingConfig(nltk=list(steps)).nltk)


@pytest.fixture
def no_nltk_data(monkeypatch, tmp_path):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.delenv("NLTK_DATA", raising=False)


def test_no_steps_change_nothing():
    clean = make_cleaner(())
    assert clean(["As  it was.", ""]) == ["As  it was.", ""]
    assert clean.describe() == []


@pytest.mark.usefixtures("nltk_data")
@pytest.mark.parametrize(
    ("step", "text", "expected"),
    [
        ("word_tokenize", "It's good, isn't it?", "It 's good , is n't it ?"),
        (
            {"name": "sentence_tokenize", "most": 2},
            "Dr. Who came. He saw.  He left.",
            "Dr. Who came. He saw.",
        ),
        ("stop_words", "The film is not what I don’t like!", "film not don’t like!"),
        ("porter", "The movies, running!", "the movi, run!"),
        ({"name": "snowball", "language": "german"}, "Die Häuser brannten.", "die haus brannt."),
        ("lemmatize", "The Mice, films and feet", "the mouse, film and foot"),
        ({"name": "lemmatize", "part_of_speech": "verb"}, "was running", "be run"),
    ],
    ids=str,
)
def test_a_step_does_what_nltk_does(step, text, expected):
    assert cleaner(step)([text, ""]) == [expected, ""]


@pytest.mark.usefixtures("nltk_data")
def test_steps_run_in_their_order():
    clean = cleaner("word_tokenize", "stop_words", "porter")
    assert clean(["The movies weren't boring."]) == ["movi n't bore ."]
    assert clean(["the"]) == [""]
    first, second, third = clean.describe()
    assert "nltk.word_tokenize(text, language='english')" in first
    assert "stopwords.words('english') except" in second
    assert "PorterStemmer" in third


@pytest.mark.usefixtures("nltk_data")
def test_stop_words_leave_negations_unless_told_to_take_them():
    text = "No, this isn't it, nor should it not be so"
    assert cleaner("stop_words")([text]) == ["No, isn't , nor not"]
    assert cleaner({"name": "stop_words", "keep_negations": False})([text]) == [", ,"]
    assert cleaner({"name": "stop_words", "keep": ["This"]})(["this is it"]) == ["this"]
    german = cleaner({"name": "stop_words", "language": "german"})
    assert german(["Das ist nicht kein Problem"]) == ["nicht kein Problem"]


@pytest.mark.usefixtures("nltk_data")
def test_descriptions_tell_a_client_all_that_a_step_does():
    """The sentences, followed by hand, give the same texts."""
    text = "The cats’ whiskers weren't very LONG."
    clean = cleaner("stop_words", {"name": "snowball", "language": "english"})
    stop, stem = clean.describe()
    spared = re.search(r"except (.*?); then", stop)[1].split(", ")
    pattern = re.search(r"match of '(.*?)' whose", stop.replace('"', "'").replace("\\\\", "\\"))[1]
    dropped = set(nltk.corpus.stopwords.words("english")) - set(spared)
    done = re.sub(pattern, lambda found: "" if found[0].lower() in dropped else found[0], text)
    stemmer = nltk.stem.SnowballStemmer("english")
    assert "nltk.stem.SnowballStemmer('english').stem(word)" in stem
    expected = re.sub(pattern, lambda found: stemmer.stem(found[0]), " ".join(done.split()))
    assert clean([text]) == [expected]


@pytest.mark.usefixtures("nltk_data")
@pytest.mark.parametrize("step", ["word_tokenize", "sentence_tokenize", "stop_words", "snowball"])
def test_an_unknown_language_is_refused_with_those_there_are(step):
    with pytest.raises(ConfigError, match=rf"{step} has no language 'klingon'.* Allowed: .*danish.*swedish"):
        cleaner({"name": step, "language": "klingon"})
    with pytest.raises(ConfigError, match="Did you mean 'german'"):
        cleaner({"name": step, "language": "germann"})


@pytest.mark.usefixtures("no_nltk_data")
@pytest.mark.parametrize(
    ("step", "resource", "path"),
    [
        ("word_tokenize", "punkt_tab", "tokenizers/punkt_tab/english"),
        ({"name": "sentence_tokenize", "language": "turkish"}, "punkt_tab", "tokenizers/punkt_tab/turkish"),
        ("stop_words", "stopwords", "corpora/stopwords"),
        ("lemmatize", "wordnet", "corpora/wordnet"),
    ],
    ids=str,
)
def test_missing_data_is_one_line_with_both_ways_to_get_it(step, resource, path):
    with pytest.raises(ConfigError) as caught:
        cleaner(step)
    message = str(caught.value)
    assert "\n" not in message
    assert f"python -m nltk.downloader {resource}" in message
    assert f"nltk.download('{resource}')" in message
    assert f"NLTK_DATA to a folder that holds {path}" in message


@pytest.mark.usefixtures("no_nltk_data")
def test_steps_that_need_no_data_run_without_any():
    assert cleaner("porter", "snowball")(["Movies"]) == ["movi"]


def test_several_folders_may_hold_the_data(nltk_data, monkeypatch, tmp_path):
    monkeypatch.setenv("NLTK_DATA", os.pathsep.join([str(tmp_path), str(nltk_data)]))
    assert cleaner("stop_words")(["the film"]) == ["film"]


def test_data_that_is_still_zipped_is_found(nltk_data, monkeypatch, tmp_path):
    (tmp_path / "tokenizers").mkdir()
    with zipfile.ZipFile(tmp_path / "tokenizers" / "punkt_tab.zip", "w") as archive:
        for file in (nltk_data / "tokenizers").rglob("*"):
            archive.write(file, file.relative_to(nltk_data / "tokenizers"))
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    assert cleaner("word_tokenize")(["Go!"]) == ["Go !"]


def test_a_broken_archive_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "wordnet.zip").write_bytes(b"not a zip file")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.delenv("NLTK_DATA", raising=False)
    with pytest.raises(ConfigError, match="'wordnet'.* cannot be read.* --force wordnet"):
        cleaner("lemmatize")


@pytest.mark.usefixtures("nltk_data")
def test_odd_texts_do_no_harm():
    odd = [
        "",
        " \t\n",
        "\x00",
        "שלום עולם",
        "我喜欢 这部电影",
        "e\u0301te\u0301",
        "🙂🙂",
        "a" * 10_000,
        "\ud83d" * 0,
    ]
    steps = ["sentence_tokenize", "word_tokenize", "stop_words", "porter", "snowball", "lemmatize"]
    for step in (*[[name] for name in steps], steps):
        assert len(cleaner(*step)(odd)) == len(odd)


def test_names_of_steps_are_checked():
    with pytest.raises(ValueError, match="unknown step 'stemming'"):
        parse_nltk(["stemming"])
