"""The `tlkit zoo` commands: what they print, and that quick ones stay quick."""

import json
from pathlib import Path

import pytest
from test_cli import fails, run_python

from tlkit import zoo
from tlkit.cli import main
from tlkit.zoo.source import FileSource
from tlkit.zoo.users_zoo import write_entry

from conftest import ROOT
from small_models import own_model


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(capsys, *arguments):
    assert main(["zoo", "list", "--json", *arguments]) == 0
    return {entry["name"] for entry in json.loads(capsys.readouterr().out)}


def test_the_list_is_filtered(capsys):
    assert listed(capsys, "--source", "wheel", "--max-params", "3.5M") >= {
        "efficientnet_lite0",
        "mobilenet_v2_torchvision",
    }
    assert "minilm_l6" not in listed(capsys, "--modality", "image")
    assert listed(capsys, "--task", "tokens") == {e.name for e in zoo.entries() if e.modality == "text"}
    assert listed(capsys, "--task", "classify", "--modality", "text") == listed(capsys, "--task", "pair")
    assert listed(capsys, "--licence", "bsd-3") == listed(capsys, "--license", "BSD-3")
    assert listed(capsys, "--min-params", "3413024", "--max-params", "3,413,024") == {"efficientnet_lite0"}


def test_the_list_knows_what_works_offline(capsys, monkeypatch, tmp_path):
    for name in ("TLKIT_HOME", "KERAS_HOME", "KAGGLEHUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    assert listed(capsys, "--cached") == set()
    assert "text_mlp" in listed(capsys, "--offline")
    assert "efficientnet_lite0" not in listed(capsys, "--offline")


def test_a_wrong_filter_is_one_line(capsys):
    assert "'many' is not a number of parameters" in fails(capsys, "zoo", "list", "--max-params", "many")
    assert "Did you mean 'keras'?" in fails(capsys, "zoo", "list", "--source", "keers")
    assert "Did you mean 'tokens'?" in fails(capsys, "zoo", "list", "--task", "tokns")


def test_info_says_where_everything_is(capsys, tmp_path, monkeypatch):
    own_model().save("mine.keras")
    assert main(["zoo", "add", "my_net", "--from", "mine.keras", "--citation", "us"]) == 0
    capsys.readouterr()
    assert main(["zoo", "info", "my_net", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["registry"] == str(tmp_path / "model_zoo.yaml")
    assert facts["kept_at"] == str(tmp_path / "mine.keras")
    assert facts["kept_bytes"] == Path("mine.keras").stat().st_size
    assert facts["citation"] == "us"
    assert main(["zoo", "info", "resnet50"]) == 0
    out = capsys.readouterr().out
    assert "ImageNet top-1 accuracy" in out
    assert "citation: He et al." in out
    assert "license: MIT\nlicense_source: https://github.com/keras-team/keras/" in out


def test_info_shows_the_parameters_of_the_groups(capsys):
    assert main(["zoo", "info", "mobilenet_v3_small", "--groups", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert sum(facts["group_params"].values()) == facts["params"]


def test_add_proposes_and_writes(capsys, tmp_path):
    own_model().save("mine.keras")
    assert main(["zoo", "add", "my_net", "--from", "mine.keras", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("my_net:\n  modality: image\n")
    assert "To check  scaling: assumed to be none" in out
    assert "Nothing was written." in out
    assert not Path("model_zoo.yaml").exists()
    assert (
        main(["zoo", "add", "my_net", "--from", "mine.keras", "--scaling", "unit", "--license", "ours"]) == 0
    )
    out = capsys.readouterr().out
    assert f"Added to  {tmp_path / 'model_zoo.yaml'}" in out
    assert "tlkit finetune --data DATA --backbone my_net" in out
    assert "To check" not in out
    assert "my_net" in listed(capsys, "--source", "file")


def test_add_prints_json(capsys):
    own_model().save("mine.keras")
    assert main(["zoo", "add", "my_net", "--from", "mine.keras", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["entry"]["name"] == "my_net"
    assert sum(document["group_params"].values()) == document["entry"]["params"]
    assert document["file"].endswith("model_zoo.yaml")


def test_add_fails_in_one_line(capsys):
    assert "no such file or folder" in fails(capsys, "zoo", "add", "a", "--from", "nowhere.keras")
    assert "Did you mean 'wheel'" in fails(capsys, "zoo", "add", "a", "--from", "whel:a==1/b")
    assert not Path("model_zoo.yaml").exists()


@pytest.mark.parametrize(
    "arguments",
    [["zoo", "list", "--offline", "--task", "pair"], ["zoo", "info", "resnet50"], ["zoo", "add", "-h"]],
)
def test_what_needs_no_model_loads_none(arguments):
    done = run_python(
        f"""
import sys
from tlkit.cli import main
from tlkit.zoo.source import FileSource
from tlkit.zoo.users_zoo import write_entry
assert main({arguments!r}) == 0
assert not {{"tensorflow", "keras", "pandas"}} & set(sys.modules)
""",
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_fetched_where_a_name_is_wrong(capsys, tmp_path):
    assert "Did you mean 'elpv'?" in fails(capsys, "zoo", "fetch", "digits", "elpvv", "--to", "stick")
    assert not (tmp_path / "stick").exists()


@pytest.mark.real
def test_what_was_fetched_to_a_folder_works_there_without_a_network(capsys, tmp_path, monkeypatch):
    assert main(["zoo", "fetch", "mobilenet_v2_torchvision", "--to", "stick", "--json"]) == 0
    (copy,) = json.loads(capsys.readouterr().out).values()
    assert copy.startswith("stick/")
    monkeypatch.setenv("TLKIT_HOME", "stick")
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    assert main(["zoo", "fetch", "mobilenet_v2_torchvision", "--json"]) == 0
    capsys.readouterr()
    assert listed(capsys, "--cached", "--source", "wheel") == {"mobilenet_v2_torchvision"}


def test_prune_says_what_it_frees(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path))
    slot = tmp_path / "wheels" / "nobody-1.0-000000000000"
    slot.mkdir(parents=True)
    (slot / "file").write_bytes(b"x" * 1_500_000)
    assert main(["zoo", "prune", "--dry-run"]) == 0
    assert "1.5  nothing in the zoo names it" in capsys.readouterr().out
    assert main(["zoo", "prune", "--json"]) == 0
    assert [one["size"] for one in json.loads(capsys.readouterr().out)] == [1_500_000]
    assert not (slot / "file").exists()
    assert main(["zoo", "prune"]) == 0
    assert capsys.readouterr().out == "There is nothing to free.\n"
    assert "is not a size" in fails(capsys, "zoo", "prune", "--max-size", "5x")


def test_verify_lists_what_is_there_and_counts_the_rest(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    (tmp_path / "w.keras").touch()
    zoo_file = tmp_path / "zoo.yaml"
    entry = zoo.get("mobilenet_v2_torchvision").model_copy(
        update={"name": "mine", "source": FileSource(kind="file", path=str(tmp_path / "w.keras"))}
    )
    write_entry(zoo_file, entry)
    monkeypatch.setenv("TLKIT_ZOO", str(zoo_file))
    assert main(["zoo", "verify"]) == 0
    there, counted = capsys.readouterr().out.split("\n\n")
    assert there == "mine  ok"
    assert {line.rpartition("  ")[0].strip() for line in counted.splitlines()} == {
        "not fetched",
        "from scratch",
    }
