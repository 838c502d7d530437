"""From texts to splits: what is left out, what is reported, and what a run learns from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tlkit.config import Columns, DataConfig, PreprocessingConfig, Split
from tlkit.config.text import Normalization
from tlkit.data import check, encode_texts, load, read_texts
from tlkit.errors import DataCheckError, DataError
from tlkit.preprocessing import make_preprocessing, make_text_preprocessing
from tlkit.preprocessing.tokenizers import learn_tokenizer, make_tokenizer
from tlkit.zoo.entry import ImageInput, TextInput, Tokenizer

WHOLE = Split(validation=0.0, test=0.0)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS), *"0123456789"]


@pytest.fixture(autouse=True)
def _seeded_keras():
    """Nothing here draws from Keras."""


@pytest.fixture(scope="module")
def make_small_preprocessing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    facts = Tokenizer(kind="wordpiece", files=("vocab.txt",), lowercase=True, strip_accents=True)
    tokenizer = make_tokenizer(facts, folder)

    def make(task="classify", **options):
        text_input = TextInput(sequence_length=64, tokenizer=facts)
        return make_text_preprocessing(text_input, PreprocessingConfig(**options), tokenizer, task)

    return make


def numbered(count, labels="ab"):
    """`count` different texts, the classes in turn."""
    return pd.DataFrame(
        {
            "text": [f"text {number}" for number in range(count)],
            "label": list(labels) * (count // len(labels)),
        }
    )


def with_rows(frame, *rows):
    return pd.concat([frame, pd.DataFrame(rows, columns=frame.columns, dtype=object)], ignore_index=True)


def read(source, task="classify", seed=0, clean=None, **options):
    return read_texts(DataConfig(**options), task, seed=seed, source=source, clean=clean)


def error_of(call, kind=DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def notes_of(texts) -> dict[str, tuple[str, str]]:
    return {note.path: (note.problem, note.action) for note in texts.report}


# Splits and examples


def test_texts_become_a_stratified_seeded_split(make_small_preprocessing):
    dataset = load(
        DataConfig(), "classify", seed=3, preprocessing=make_small_preprocessing(), source=numbered(40)
    )
    assert {name: len(part) for name, part in dataset.splits.items()} == {
        "train": 28,
        "validation": 6,
        "test": 6,
    }
    assert dataset.objective == "classify"
    table = dataset.manifest.table.set_index("id")
    for split, examples in dataset.splits.items():
        assert table.loc[examples.ids, "split"].unique().tolist() == [split]
        assert table.loc[examples.ids, "text"].tolist() == examples.samples.tolist()
        assert [dataset.manifest.classes[target] for target in examples.targets] == table.loc[
            examples.ids, "label"
        ].tolist()
        assert examples.targets.dtype == examples.lengths.dtype == np.int32
    again, other = (
        load(
            DataConfig(), "classify", seed=seed, preprocessing=make_small_preprocessing(), source=numbered(40)
        )
        for seed in (3, 4)
    )
    pd.testing.assert_frame_equal(again.manifest.table, dataset.manifest.table)
    assert not other.manifest.table["split"].equals(dataset.manifest.table["split"])


def test_lengths_are_tokens_as_the_model_sees_them(make_small_preprocessing):
    frame = pd.DataFrame({"text": ["a", "ab cd", "x" * 30, "y " * 90], "label": [1, 2, 3, 4]})
    preprocessing = make_small_preprocessing(sequence_length=16)
    texts = read(frame, "regress", split=WHOLE)
    dataset, same = encode_texts(texts, preprocessing)
    assert same is preprocessing
    assert dataset.splits["train"].lengths.tolist() == [3, 6, 16, 16]
    assert dataset.truncated == 0.5
    assert dataset.report["problem"].iloc[-1] == "2 of 4 texts (50.0%) are longer than 16 tokens"
    assert dataset.report["action"].iloc[-1] == "cut (head)"
    windows, _ = encode_texts(texts, make_small_preprocessing(sequence_length=16, long_texts="windows"))
    assert windows.splits["train"].lengths.tolist() == [3, 6, 48, 128]


def test_the_default_length_comes_from_the_training_texts_alone(make_small_preprocessing):
    frame = pd.DataFrame(
        {
            "text": [f"{'x ' * 17} {LETTERS[n // 10]} {LETTERS[n % 10]}" for n in range(100)]
            + [f"{'y ' * 60}{n}" for n in range(50)],
            "label": ["a", "b"] * 75,
            "split": ["train"] * 100 + ["test"] * 50,
        }
    )
    dataset, preprocessing = encode_texts(
        read(frame), make_small_preprocessing(sequence_length=64), fit_length=True
    )
    assert preprocessing.sequence_length == 24  # 19 letters and two special tokens
    assert preprocessing.buckets == (16, 24)
    assert dataset.splits["train"].lengths.max() <= 24
    assert dataset.truncated == pytest.approx(1 / 3)


def test_training_texts_are_normalised_and_of_the_training_split_alone():
    frame = with_rows(numbered(20), ["  Cafe\u0301  au\u00a0lait ", "a"])
    frame["split"] = ["train"] * 10 + ["test"] * 10 + ["train"]
    texts = read(frame, split=WHOLE)
    assert set(texts.training) <= {*frame["text"][:10], "Café au lait"}
    assert len(list(texts.training)) == 11
    pairs = read(([("A", "b c"), ("d", "E"), ("f", "g")], [0, 1, 1]), "pair", split=WHOLE)
    assert list(pairs.training) == ["A", "b c", "d", "E", "f", "g"]
    words = read(([["A  b", "c"], ["d"]], [["O", "B-X"], ["O"]]), "tokens", split=WHOLE)
    assert list(words.training) == ["A b", "c", "d"]


def test_cleaning_is_done_before_the_graph_and_not_to_tell_copies():
    frame = numbered(20)
    texts = read(frame, clean=lambda items: [item.replace("text", "") for item in items])
    assert sorted(texts.content.samples.tolist()) == sorted(map(str, range(20)))
    assert texts.table["text"].tolist() == frame["text"].tolist()
    gone = with_rows(frame, ["text", "a"])
    texts = read(gone, clean=lambda items: [item.replace("text", "") for item in items])
    assert notes_of(texts) == {"row 21": ("is empty after the NLTK steps", "left out")}


def test_sample_texts_of_pairs_and_words_keep_their_form(make_small_preprocessing):
    pairs = load(
        DataConfig(split=WHOLE),
        "pair",
        seed=0,
        preprocessing=make_small_preprocessing("pair"),
        source=([("a b", "c"), ("d", "e"), ("f", "g")], [1.5, 2, 3]),
    )
    assert pairs.objective == "regress"
    assert pairs.splits["train"].samples.tolist() == [["a b", "c"], ["d", "e"], ["f", "g"]]
    assert pairs.splits["train"].lengths.tolist() == [6, 5, 5]
    assert pairs.manifest.table[["text", "text_b"]].iloc[0].tolist() == ["a b", "c"]
    embedded = load(
        DataConfig(split=WHOLE),
        "embed",
        seed=0,
        preprocessing=make_small_preprocessing("embed"),
        source=([("a b", "c"), ("d", "e")], None),
    )
    assert embedded.manifest.classes is None
    assert np.isnan(embedded.splits["train"].targets).all()
    assert embedded.splits["train"].lengths.tolist() == [4, 3]


def test_words_are_counted_by_their_pieces(make_small_preprocessing):
    frame = pd.DataFrame({"tokens": ["a bc  d", "x"], "label": ["O B-X O", "O"]})
    dataset = load(
        DataConfig(split=WHOLE),
        "tokens",
        seed=0,
        preprocessing=make_small_preprocessing("tokens"),
        source=frame,
    )
    assert dataset.objective == "tokens"
    assert dataset.splits["train"].samples.tolist() == [["a", "bc", "d"], ["x"]]
    assert dataset.splits["train"].lengths.tolist() == [6, 3]
    assert [tags.tolist() for tags in dataset.splits["train"].targets] == [[1, 0, 1], [1]]
    assert dataset.manifest.table[["text", "label"]].iloc[0].tolist() == ["a bc d", "O B-X O"]


def test_a_vocabulary_is_learned_between_the_two_steps(make_small_preprocessing):
    frame = with_rows(numbered(20), ["unseen words", "a"])
    frame["split"] = ["train"] * 20 + ["test"]
    texts = read(frame)
    facts = Tokenizer(kind="words")
    tokenizer = learn_tokenizer(facts, texts.training, 50)
    text_input = TextInput(sequence_length=64, tokenizer=facts)
    preprocessing = make_text_preprocessing(text_input, PreprocessingConfig(), tokenizer, "classify")
    dataset, preprocessing = encode_texts(texts, preprocessing, fit_length=True)
    inputs = preprocessing.encode(tf.constant(dataset.splits["test"].samples.tolist()))
    assert inputs["token_ids"][0, 1:3].numpy().tolist() == [tokenizer.unknown_id] * 2
    assert preprocessing.sequence_length == 8


@pytest.mark.parametrize(
    ("labels", "chosen", "objective", "classes"),
    [
        ([1, 0, 1], "auto", "classify", ("0", "1")),
        (["2.0", "1", "3"], "auto", "classify", ("1", "2.0", "3")),
        (["2.5", "1", "3"], "auto", "regress", None),
        (["yes", "no", "2.5"], "auto", "classify", ("2.5", "no", "yes")),
        ([1, 0, 1], "regress", "regress", None),
    ],
)
def test_what_pairs_learn_follows_from_their_labels(labels, chosen, objective, classes):
    source = ([("a", "b"), ("c", "d"), ("e", "f")], labels)
    texts = read_texts(DataConfig(split=WHOLE), "pair", seed=0, pair=chosen, source=source)
    assert texts.objective == objective
    assert texts.labels.classes == classes


# Texts that cannot be used, and odd ones that can


def test_unusable_texts_are_reported_and_left_out():
    frame = with_rows(
        numbered(40), ["", "a"], [None, "b"], [" \u00a0\n", "a"], ["half \ud83d", "b"], ["fine", "a"]
    )
    texts = read(frame, max_bad=0.2)
    assert notes_of(texts) == {
        "row 41": ("is empty", "left out"),
        "row 42": ("is empty", "left out"),
        "row 43": ("is empty", "left out"),
        "row 44": (r"has half a surrogate pair ('\ud83d'), which no UTF-8 text has", "left out"),
    }
    assert texts.table["split"].iloc[40:44].tolist() == [""] * 4
    assert texts.table["flags"].iloc[40:].tolist() == ["unreadable"] * 4 + [""]
    texts.table.to_csv(index=False).encode()
    message = error_of(lambda: read(frame), DataCheckError)
    assert "4 of 45 texts (8.9%) cannot be used" in message
    assert "row 41 is empty" in message


def test_texts_that_are_all_empty_are_one_line():
    assert "no text can be used: row 1 is empty" in error_of(
        lambda: read(pd.DataFrame({"text": ["", " "], "label": ["a", "b"]})), DataCheckError
    )


def test_files_in_another_encoding_are_named_with_the_line(tmp_path):
    for label in "ab":
        for number in range(20):
            path = tmp_path / label / f"{number:02}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"text {label} {number}")
    (tmp_path / "a" / "00.txt").write_bytes("one\ncafé".encode("latin-1"))
    (tmp_path / "b" / "00.txt").write_bytes(b"\xef\xbb\xbfwith a mark")
    texts = read(str(tmp_path))
    assert [(Path(note.path).name, note.problem, note.action) for note in texts.report] == [
        ("00.txt", "line 2 is not UTF-8 text (byte 0xe9)", "left out")
    ]
    assert "with a mark" in texts.table["text"].tolist()
    assert Path(texts.table["path"][0]).name == "00.txt"


def test_signs_of_lost_characters_are_noted_and_kept():
    odd = [
        "caf\ufffd \ufffd",
        "cafÃ© au lait",
        "itâ€™s",
        "nul\0here",
        "naïve café – «NÃO» Âge",
        "مرحبا (hello) שלום",
    ]
    texts = read(with_rows(numbered(20), *([text, "a"] for text in odd)))
    notes = notes_of(texts)
    assert list(notes) == ["row 21", "row 22", "row 23", "row 24"]
    assert notes["row 21"][0] == "has 2 characters that were lost in decoding (U+FFFD)"
    assert "another encoding ('Ã©')" in notes["row 22"][0]
    assert "NUL" in notes["row 24"][0]
    assert {action for _, action in notes.values()} == {"kept"}
    assert texts.table["text"][23] == "nul\u2400here"
    assert texts.content.samples[23] == "nul\0here"


def test_a_text_of_ten_megabytes_is_read_and_referred_to(make_small_preprocessing):
    frame = with_rows(numbered(20), ["long words " * 1_000_000, "a"])
    texts = read(frame, split=WHOLE)
    dataset, _ = encode_texts(texts, make_small_preprocessing(sequence_length=32))
    assert dataset.splits["train"].lengths[-1] == 32
    assert dataset.manifest.table[["path", "text"]].iloc[-1].tolist() == ["row 21", ""]


# Copies


def test_of_copies_with_one_label_the_first_is_kept():
    frame = with_rows(numbered(20), ["text 3", "b"], ["  text\n3 ", "b"], ["Text 3", "b"])
    texts = read(frame)
    assert notes_of(texts) == {
        "row 21": ("has the same words as row 4", "left out"),
        "row 22": ("has the same words as row 4", "left out"),
    }
    assert texts.table["flags"].iloc[[3, 20, 21, 22]].tolist() == ["", "duplicate", "duplicate", ""]
    kept = read(frame, duplicates="keep")
    assert (kept.table["split"] != "").all()
    assert {action for _, action in notes_of(kept).values()} == {"kept"}


def test_given_test_texts_stay_and_leave_train():
    frame = with_rows(numbered(20), ["text 3", "b"], ["twice", "a"], ["twice", "a"])
    frame["split"] = ["train"] * 20 + ["test"] * 3
    texts = read(frame, split=WHOLE)
    assert texts.table["split"].iloc[[3, 20, 21, 22]].tolist() == ["", "test", "test", "test"]
    assert notes_of(texts)["row 4"] == ("has the same words as row 21", "left out")
    assert notes_of(texts)["row 23"] == ("has the same words as row 22", "kept")


def test_copies_with_different_labels_leave_train():
    frame = with_rows(numbered(20), ["text 3", "a"], ["text 5", "a"])
    frame["split"] = ["train"] * 21 + ["test"]
    texts = read(frame, split=WHOLE)
    assert texts.table["split"].iloc[[3, 20, 5, 21]].tolist() == ["", "", "", "test"]
    notes = notes_of(texts)
    assert notes["row 4"] == ("has the same words as row 21, but is labelled 'b' and not 'a'", "left out")
    assert set(notes) == {"row 4", "row 21", "row 6", "row 22"}
    assert texts.table["flags"].iloc[[3, 20]].tolist() == ["duplicate conflict"] * 2
    kept = read(frame, split=WHOLE, conflicts="keep")
    assert kept.table["split"].tolist() == frame["split"].tolist()


def test_different_numbers_for_one_text_stay_unless_it_is_held_out():
    frame = pd.DataFrame({"text": ["x", "x", "y", "y", "z"], "label": [1, 2, 3, 4, 5]})
    frame["split"] = ["train", "train", "train", "test", "train"]
    texts = read(frame, "regress", split=WHOLE)
    assert texts.table["split"].tolist() == ["train", "train", "", "test", "train"]


def test_a_split_that_tlkit_makes_has_no_copy_across(make_small_preprocessing):
    frame = with_rows(numbered(60), *([f"text {number}", "ab"[number % 2]] for number in range(60)))
    texts = read(frame)
    used = texts.table[texts.table["split"] != ""]
    assert len(used) == used["text"].nunique() == 60


def test_nothing_is_left_out_of_other_data():
    frame = with_rows(numbered(4), ["text 1", "b"], ["text 1", "a"])
    texts = read_texts(DataConfig(), "classify", seed=0, source=frame, classes=("a", "b", "c"), only="test")
    assert texts.table["split"].tolist() == ["test"] * 6


# Labels


def test_spellings_are_reported_and_merged_only_when_told():
    labels = ["Pos", "neg", "pos", "Pos", "neg", " neg", "Very  good", "very good"] * 3
    frame = numbered(24).assign(label=labels)
    texts = read(frame, split=WHOLE)
    assert texts.labels.classes == ("Pos", "Very  good", "neg", "pos", "very good")
    problems = {note.problem: note.action for note in texts.report}
    assert problems == {
        "label ' neg' has spaces around it": "read as 'neg'",
        "labels 'Pos' and 'pos' (6 and 3 times) differ only in case or white space": (
            "kept apart (see data.merge_labels)"
        ),
        "labels 'Very  good' and 'very good' (3 and 3 times) differ only in case or white space": (
            "kept apart (see data.merge_labels)"
        ),
    }
    merged = read(frame, split=WHOLE, merge_labels=True)
    assert merged.labels.classes == ("Pos", "Very  good", "neg")
    assert "read as 'Pos'" in {note.action for note in merged.report}
    assert merged.labels.text[2] == "Pos"
    several = read(
        frame.assign(label=["Pos|neg", "pos|NEG"] * 12), "multilabel", split=WHOLE, merge_labels=True
    )
    assert several.labels.classes == ("Pos", "neg") or several.labels.classes == ("NEG", "Pos")
    assert several.labels.targets.sum() == 48


def test_an_earlier_runs_spelling_wins():
    frame = numbered(4, labels=("POS", "neg"))
    texts = read_texts(
        DataConfig(merge_labels=True),
        "classify",
        seed=0,
        source=frame,
        classes=("neg", "POS", "x"),
        only="test",
    )
    assert texts.labels.text.tolist() == ["POS", "neg"] * 2


def test_sequences_that_cannot_be_are_read_as_seqeval_does():
    words = [["a", "b", "c", "d"], ["e", "f"], ["g", "h", "i"]]
    tags = [["O", "I-PER", "I-PER", "I-LOC"], ["B-LOC", "I-LOC"], ["B-PER", "I-LOC", "O"]]
    texts = read((words, tags), "tokens", split=WHOLE)
    assert texts.labels.text.tolist() == ["O B-PER I-PER B-LOC", "B-LOC I-LOC", "B-PER B-LOC O"]
    assert notes_of(texts) == {
        "row 1": (
            "tag 'I-PER' of word 2 and 1 more continues an entity that did not begin",
            "read as 'B-PER'",
        ),
        "row 3": ("tag 'I-LOC' of word 2 continues an entity that did not begin", "read as 'B-LOC'"),
    }
    assert texts.labels.classes == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    assert [row.tolist() for row in texts.labels.targets] == [[4, 1, 3, 0], [0, 2], [1, 0, 4]]
    assert {row.dtype for row in texts.labels.targets} == {np.dtype(np.int32)}


def test_counts_of_words_and_tags_that_differ_are_left_out_and_counted():
    words = [[f"w{number}", "x"] for number in range(30)]
    tags = [["O", "B-X"] for _ in range(30)]
    tags[4], tags[5] = ["O"], ["O", ""]
    texts = read((words, tags), "tokens", max_bad=0.1)
    assert notes_of(texts) == {
        "row 5": ("has 2 words and 1 tags", "left out"),
        "row 6": ("has an empty tag", "left out"),
    }
    assert "2 of 30 texts (6.7%)" in error_of(lambda: read((words, tags), "tokens"), DataCheckError)


def test_a_tag_that_train_does_not_have_is_a_row_in_the_report():
    frame = pd.DataFrame({"tokens": ["a b", "c d", "e f"], "label": ["O B-X", "O O", "O B-Y"]})
    frame["split"] = ["train", "train", "test"]
    texts = read(frame, "tokens", split=WHOLE)
    assert "1 labels in test are not in train: B-Y" in texts.report[-1].problem


def test_labels_of_the_wrong_kind_are_one_line():
    assert "task=embed needs numbers" in error_of(lambda: read(([("a", "b")], ["x"]), "embed"))
    assert "For names use task=pair" in error_of(lambda: read(([("a", "b")], ["x"]), "embed"))
    assert "only one class" in error_of(lambda: read(numbered(10, labels="a"), split=WHOLE), DataCheckError)
    assert "only one tag" in error_of(lambda: read(([["a"]], [["O"]]), "tokens", split=WHOLE), DataCheckError)
    assert "labels are missing" in error_of(
        lambda: read(numbered(4).assign(label=["a", None, "b", "a"])), DataCheckError
    )


def test_groups_stay_in_one_split():
    frame = numbered(60).assign(author=[f"writer {number // 3}" for number in range(60)])
    texts = read(frame, split=Split(group_by="author"))
    assert texts.table.groupby("author")["split"].nunique().max() == 1


def test_tasks_of_texts_are_refused_for_pictures():
    preprocessing = make_preprocessing(ImageInput(image_size=32), PreprocessingConfig())
    message = error_of(lambda: load(DataConfig(source="digits"), "pair", seed=0, preprocessing=preprocessing))
    assert "is for texts" in message


# Real data


def test_bbc_news_follows_its_own_rule():
    texts = read_texts(DataConfig(source="bbc_news"), "classify", seed=0)
    assert len(texts.table) == 2225
    assert texts.labels.classes == ("business", "entertainment", "politics", "sports", "tech")
    counts = texts.table["split"].value_counts()
    assert (counts["test"], counts["validation"], counts["train"]) == (425, 170, 1530)
    assert (texts.table["flags"] == "duplicate").sum() == counts[""] == 100
    place = next(row for row, path in enumerate(texts.rows.paths) if path.endswith("sports/199.txt"))
    assert "a £15.8m signing" in texts.content.samples[place]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "task", "columns", "objective", "used"),
    [
        ("rt_polarity/rt_polarity.csv", "classify", {}, "classify", 10662),
        ("snips_intents", "classify", {}, "classify", 14309),
        ("goemotions", "multilabel", {"label": "labels"}, "multilabel", 53965),
        ("wnut17_ner", "tokens", {}, "tokens", 5576),
        ("stsb_pairs", "pair", {"text": "text_a", "label": "score"}, "regress", 8576),
        ("stsb_pairs", "embed", {"text": "text_a", "label": "score"}, "embed", 8576),
    ],
)
def test_real_data_is_read_as_it_is(shared_data, name, task, columns, objective, used):
    spec = DataConfig(source=str(shared_data / name), columns=Columns(**columns))
    texts = read_texts(spec, task, seed=0, normalization=Normalization())
    assert texts.objective == objective
    assert (texts.splits != "").sum() == used
    assert set(texts.splits) - {""} == {"train", "validation", "test"}


# The check


def test_check_counts_texts_and_names_what_cannot_be_used():
    frame = with_rows(
        numbered(20),
        ["", "a"],
        ["text 3", "b"],
        ["text 3", "a"],
        ["a longer text of words", " b"],
        ["x\ufffd", "B"],
    )
    report = check(DataConfig(), source=frame)
    assert report.ok
    assert (report.modality, report.examples, report.usable, report.empty) == ("text", 25, 24, 1)
    assert report.classes["a"] == {"all": 11}
    assert report.sizes == {"words": {"min": 1.0, "median": 2.0, "max": 5.0}}
    assert report.unreadable == ({"path": "row 21", "problem": "is empty", "action": "left out"},)
    assert report.duplicates == report.conflicts == (("row 4", "row 22", "row 23"),)
    assert {note["problem"].split(" (")[0] for note in report.notes} == {
        "label ' b' has spaces around it",
        "labels 'b' and 'B'",
        "has 1 characters that were lost in decoding",
    }
    assert report.to_dict()["modality"] == "text"
    assert "2 of 26 texts (7.7%)" in check(DataConfig(), source=with_rows(frame, ["", "b"])).problems[0]


def test_check_says_what_a_run_would_say_about_its_splits():
    few = check(DataConfig(), source=numbered(2))
    assert not few.ok
    assert "Too few examples for a" in few.problems[0]
    assert check(DataConfig(), source=numbered(40)).ok


def test_check_of_pairs_words_and_samples():
    pairs = check(DataConfig(), "pair", source=([("a b", "c"), ("d", "")], [1.5, 2]))
    assert pairs.values == {"0": {"min": 1.5, "median": 1.5, "max": 1.5}}
    assert pairs.sizes["words of the second text"] == {"min": 1.0, "median": 1.0, "max": 1.0}
    assert pairs.unreadable[0]["problem"] == "is empty (second text)"
    words = check(DataConfig(), "tokens", source=([["a", "b"], ["c"]], [["O", "I-X"], ["O"]]))
    assert words.classes == {"B-X": {"all": 1}, "O": {"all": 2}}
    assert words.notes[0]["action"] == "read as 'B-X'"
    sample = check(DataConfig(source="bbc_news"))
    assert sample.ok
    assert (sample.usable, len(sample.duplicates), len(sample.conflicts)) == (2225, 100, 0)
