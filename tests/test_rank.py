"""Backbones are ranked on training examples, each in a process of its own, and a failing one ends nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import tlkit
from tlkit import zoo
from tlkit.cli import main
from tlkit.errors import ConfigError, DataCheckError, DataError, UnknownNameError
from tlkit.preprocessing import to_rgb
from tlkit.workflows.rank import Ranking, rank_backbones
from tlkit.workflows.rank_choice import chosen_entries, default_entries
from tlkit.workflows.rank_examples import draw_examples, stratified_rows, write_pictures
from tlkit.workflows.rank_features import compute_features, peak_memory
from tlkit.workflows.rank_process import describe_failure

from conftest import ROOT, make_pictures
from small_models import small_backbone

UNTRAINED = {"weights": "none", "preprocessing": {"image_size": 32}}  # needs no download
SMALL = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small_backbone(image_size=32).model


@pytest.fixture(scope="module")
def ranking(photos: Path, model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Ranking:
    """A Keras model, and a backbone whose file is broken, from a zoo of one's own."""
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "broken.keras").write_bytes(b"no model")
    fields = {
        "modality": "image",
        "family": "own",
        "source": {"kind": "file", "path": str(folder / "broken.keras")},
        "input": {"image_size": 32},
        "layer_groups": {"all": ".*"},
        "params": 1,
        "license": "none",
    }
    (folder / "zoo.yaml").write_text(yaml.safe_dump({"entries": {"broken": fields}}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_ZOO", str(folder / "zoo.yaml"))
        return rank_backbones(photos, ["broken", model], image_size=32)


def test_a_backbone_is_ranked_in_a_process_of_its_own_and_a_broken_one_ends_nothing(
    ranking: Ranking, model: keras.Model
) -> None:
    assert (ranking.examples, ranking.training_examples, ranking.classes) == (26, 26, 3)
    assert [row.name for row in ranking.ranked] == ["small"]
    row = ranking.ranked[0]
    assert (row.features, row.parameters, row.size) == (8, model.count_params(), 32)
    assert 0 <= row.knn <= 1
    assert row.seconds > 0
    assert row.load_seconds > 0
    assert row.peak_memory is None or 10**8 < row.peak_memory < 10**11
    assert list(ranking.failed) == ["broken"]
    assert "broken.keras" in ranking.failed["broken"]
    assert "\n" not in ranking.failed["broken"]


def test_backbones_are_in_the_order_of_their_logme(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = {SMALL: 100.0, "mobilenet": 1.0, "mobilenet_v2": 10.0}
    random = np.random.default_rng(0)

    def pretend(job: dict[str, Any], folder: Path, advance: Any) -> tuple[np.ndarray, dict[str, Any]]:
        colours = np.stack([np.asarray(Image.open(path)).mean(axis=(0, 1)) for path in job["inputs"]])
        features = colours + noise[job["entry"]["name"]] * random.normal(size=colours.shape)
        advance(len(features))
        size = job["config"]["preprocessing"]["image_size"]
        return features, {"size": size, "seconds": 1.0, "load_seconds": 1.0, "peak_memory": None}

    monkeypatch.setattr("tlkit.workflows.rank.features_from_process", pretend)
    ranking = rank_backbones(photos, list(noise))
    assert [row.name for row in ranking.ranked] == ["mobilenet", "mobilenet_v2", SMALL]
    assert ranking.best == "mobilenet"
    assert ranking.ranked[0].size == 224  # pictures of 40 pixels, up to 8 times as large


def test_a_ranking_is_a_table_and_json(ranking: Ranking) -> None:
    assert isinstance(ranking.table, pd.DataFrame)
    assert list(ranking.table["name"]) == [row.name for row in ranking.ranked]
    document = json.loads(json.dumps(ranking.to_dict()))
    assert document["ranked"][0]["name"] == ranking.best
    assert document["failed"] == dict(ranking.failed)


def test_two_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    models = [small_backbone(image_size=32).model for _ in range(2)]
    entries = chosen_entries(config_of(), "image", [*models, SMALL, SMALL], tmp_path, 40)
    assert [entry.name for entry in entries] == ["small", "small-2", SMALL]


def test_features_are_those_of_the_backbone_pooled(photos: Path) -> None:
    paths = sorted(map(str, photos.rglob("*.png")))
    config = tlkit.load_config({"weights": "none", "preprocessing": {"image_size": 32}}).config
    features, facts = compute_features(config, zoo.get("image_cnn"), paths)
    backbone = tlkit.load_backbone("image_cnn", weights=False, image_size=32, seed=0)
    preprocessing = tlkit.make_preprocessing(backbone.entry.input, config.preprocessing)
    raw = np.array([Path(path).read_bytes() for path in paths], dtype=object)
    maps = backbone.model(preprocessing.from_raw(raw), training=False).numpy()
    np.testing.assert_allclose(features, maps.mean(axis=(1, 2)), atol=1e-5)
    assert facts["size"] == 32


def test_features_of_texts_stay_in_the_order_of_the_texts() -> None:
    entry = zoo.entry_of_folder(ROOT / "tests" / "fixtures" / "text" / "bert")
    config = tlkit.load_config({"task": "regress", "data": {"split": {"validation": 0, "test": 0}}}).config
    texts = ["a film " * length for length in (9, 1, 5, 1, 20)]  # batches are made in order of length
    together, _ = compute_features(config, entry, texts)
    alone = np.concatenate([compute_features(config, entry, [text, text])[0][:1] for text in texts[:3]])
    np.testing.assert_allclose(together[:3], alone, atol=1e-5)
    np.testing.assert_array_equal(together[1], together[3])


def test_texts_are_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"text": f"{kind} number {number}", "label": label}
        for label, kind in {"good": "a fine film", "bad": "a dull film"}.items()
        for number in range(20)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "reviews.csv", index=False)
    bert = str(ROOT / "tests" / "fixtures" / "text" / "bert")
    data = str(tmp_path / "reviews.csv")
    assert (
        main(["zoo", "rank", "--data", data, "--backbones", bert, "--sequence-length", "16", "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert [row["size"] for row in document["ranked"]] == [16]
    assert document["examples"] == 28
    assert document["left_out"] == {}


def config_of(data: Path | None = None, **more: Any) -> tlkit.RunConfig:
    tree = {"data": {"source": str(data)} if data else {}, **UNTRAINED, **more}
    return tlkit.load_config(tree).config


def test_only_training_examples_are_drawn(photos: Path) -> None:
    config = config_of(photos)
    preprocessing = tlkit.make_preprocessing(zoo.get(SMALL).input, config.preprocessing)
    table = tlkit.load_data(config.data, "classify", seed=0, preprocessing=preprocessing).manifest.table
    drawn = draw_examples(config, 2000)
    assert sorted(drawn.inputs) == sorted(table.loc[table["split"] == "train", "path"])
    names = [Path(path).parent.name for path in drawn.inputs]
    assert [drawn.classes[target] for target in drawn.targets] == names
    some = draw_examples(config, 20)
    assert len(some) == 20
    assert set(some.inputs) < set(drawn.inputs)
    assert some.training_examples == 26


def test_copies_are_not_drawn(photos: Path, tmp_path: Path) -> None:
    before = {path.read_bytes() for path in photos.rglob("*.png")}
    folder = make_pictures(tmp_path / "photos")
    for path in sorted(folder.rglob("*.png")):
        (path.parent / f"{path.stem}_copy.png").write_bytes(path.read_bytes())
    drawn = draw_examples(config_of(folder), 2000)
    contents = [Path(path).read_bytes() for path in drawn.inputs]
    assert len(contents) == len(set(contents)) < len(before)


def test_pictures_in_memory_are_drawn_and_reach_a_process_unchanged(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (40, 9, 7, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    drawn = draw_examples(config_of(), 2000, (pictures, labels))
    paths = write_pictures(drawn.inputs, tmp_path / "pictures")
    read = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.testing.assert_array_equal(read, np.stack([to_rgb(picture) for picture in drawn.inputs]))
    rows = [int(np.flatnonzero((pictures == picture).all(axis=(1, 2, 3)))[0]) for picture in drawn.inputs]
    np.testing.assert_array_equal(labels[rows], drawn.targets)


def test_a_draw_has_the_shares_of_the_classes_and_depends_on_the_seed() -> None:
    targets = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [700, 250, 50]))
    rows = stratified_rows(targets, 100, seed=0)
    assert len(set(rows)) == 100
    np.testing.assert_allclose(np.bincount(targets[rows]), [70, 25, 5], atol=1)
    np.testing.assert_array_equal(rows, stratified_rows(targets, 100, seed=0))
    assert set(rows) != set(stratified_rows(targets, 100, seed=1))
    np.testing.assert_array_equal(stratified_rows(targets, 1000, seed=0), np.arange(1000))


def test_a_draw_has_the_spread_of_numbers_and_the_shares_of_combinations() -> None:
    numbers = np.random.default_rng(0).normal(size=1000)
    drawn = numbers[stratified_rows(numbers, 100, seed=0)]
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    np.testing.assert_allclose(np.quantile(drawn, shares), np.quantile(numbers, shares), atol=0.1)
    labels = np.repeat([[0, 0], [0, 1], [1, 1]], [600, 300, 100], axis=0).astype(np.float32)
    chosen = labels[stratified_rows(labels, 50, seed=0)]
    assert [int((chosen == one).all(axis=1).sum()) for one in ([0, 0], [0, 1], [1, 1])] == [30, 15, 5]


def test_by_default_verified_backbones_at_hand_are_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, left_out = default_entries(config_of(), "image")
    names = [entry.name for entry in entries]
    assert {"efficientnet_lite0", "mobilenet_v2_torchvision"} <= set(names)
    assert all(entry.verified and entry.modality == "image" for entry in entries)
    assert left_out["resnet50"] == "not verified"
    assert left_out["image_cnn"] == "no pretrained weights"
    assert "minilm_l6" not in left_out
    pictures = {entry.name for entry in zoo.entries() if entry.modality == "image"}
    assert pictures == {*names, *left_out}
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path))
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    with pytest.raises(ConfigError, match="No verified backbone for pictures is at hand. Name some with"):
        default_entries(config_of(), "image")


def test_an_unknown_backbone_is_named_before_anything_runs(photos: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'efficientnet_lite0'"):
        rank_backbones(photos, ["mobilenet", "efficentnet_lite0"])


def test_backbones_of_another_modality_are_refused(photos: Path) -> None:
    with pytest.raises(ConfigError, match="holds pictures, but 'minilm_l6' takes texts"):
        rank_backbones(photos, "minilm_l6")
    with pytest.raises(ConfigError, match="holds texts, but 'mobilenet' takes pictures"):
        rank_backbones((["some text", "another"] * 20, [0, 1] * 20), "mobilenet")


def test_what_has_no_pretrained_features_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'image_cnn' has no pretrained weights"):
        rank_backbones(photos, ["image_cnn"])
    (tmp_path / "state.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="is an earlier run"):
        rank_backbones(photos, [str(tmp_path)])


def test_data_that_cannot_rank_is_refused(tmp_path: Path) -> None:
    one = make_pictures(tmp_path / "one", classes=("red",))
    with pytest.raises(DataCheckError, match="only one class"):
        rank_backbones(one, SMALL)
    few = make_pictures(tmp_path / "few", per_class=6)
    with pytest.raises(DataError, match="12 training examples .* too few to rank backbones: 20 or more"):
        rank_backbones(few, SMALL)
    with pytest.raises(DataError, match="no such file or folder"):
        rank_backbones(tmp_path / "nowhere", SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "tokens"}, "ranked for classify, multilabel, regress; received task 'tokens'"),
        ({"examples": 3}, "examples must be at least 20, received 3"),
        ({"sequence_length": 16}, "preprocessing.sequence_length: for texts"),
        ({"config": {"preprocessing": {"long_texts": "windows"}}}, "windows are not ranked"),
    ],
)
def test_settings_that_do_not_fit_are_refused(photos: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rank_backbones(photos, SMALL, **options)


def test_a_config_file_cannot_say_that_something_is_trusted(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("trust: true\n")
    with pytest.raises(ConfigError, match="trust cannot be given by a file"):
        rank_backbones(photos, SMALL, config=tmp_path / "config.yaml")


def test_a_process_that_died_is_described_in_one_line(tmp_path: Path) -> None:
    error = tmp_path / "error.txt"
    assert describe_failure(-9, error, "") == "stopped by SIGKILL (most likely out of memory)"
    assert (
        describe_failure(1, error, "Traceback\n\nValueError: no\n")
        == "ended with exit code 1: ValueError: no"
    )
    assert describe_failure(1, error, "") == "ended with exit code 1: it said nothing"
    error.write_text("image_size 16 is too small", encoding="utf-8")
    assert describe_failure(2, error, "noise") == "image_size 16 is too small"


def test_when_all_fail_the_first_reason_is_the_error(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlkit.workflows.rank_process.START", "import os; os.abort()")
    assert main(["zoo", "rank", "--data", str(photos), "--backbones", f"{SMALL},mobilenet"]) == 2
    assert f"No backbone could be ranked; {SMALL}: stopped by SIGABRT" in capsys.readouterr().err


def test_the_table_names_what_was_left_out_and_what_to_do_next(
    ranking: Ranking, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    left_out = {**{f"net{number}": "not verified" for number in range(9)}, "own": "its file is missing"}
    shown = replace(ranking, left_out=left_out)
    monkeypatch.setattr("tlkit.workflows.run_rank", lambda config, names, examples: shown)
    assert main(["zoo", "rank", "--data", "photos/"]) == 0
    printed = capsys.readouterr().out
    first, second = printed.splitlines()[:2]
    assert first.split()[:3] == ["backbone", "LogME", "k-NN"]
    assert second.startswith(ranking.best)
    assert "26 of 26 training examples, 3 classes, task classify, seed 0" in printed
    assert "Failed: broken: " in printed
    assert "Left out (not verified): net0, net1, net2, net3, net4, net5 and 3 more" in printed
    assert "Left out (its file is missing): own" in printed
    assert printed.endswith(f"Next:  tlkit finetune --data photos/ --backbone {ranking.best}\n")


def test_the_command_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "rank"]) == 2
    assert "No data. Add --data" in capsys.readouterr().err
    assert main(["zoo", "rank", "--data", "digits", "stray"]) == 2
    assert "Only key.path=value here, received 'stray'" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux has /proc")
def test_peak_memory_is_what_this_process_had_at_most() -> None:
    before = peak_memory()
    assert before is not None
    block = np.ones(2**27, np.uint8)
    del block
    assert peak_memory() >= before
    status = Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii")
    assert f"{peak_memory() // 1024} kB" in status


@pytest.mark.real
def test_pretrained_features_tell_digits_apart() -> None:
    row = rank_backbones("digits", "mobilenet_v2_torchvision", examples=200).ranked[0]
    assert (row.size, row.features) == (64, 1280)
    assert row.knn > 0.5  # chance is 0.1
