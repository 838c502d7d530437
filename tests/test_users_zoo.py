"""The user's own zoo file: where it is, what lies over what, and that adding to it changes nothing else."""

import difflib
import shutil
import subprocess
import sys

import pytest

from tlkit import zoo
from tlkit.errors import ConfigError
from tlkit.zoo import registry
from tlkit.zoo.registry import file_of, read_zoo, users_zoo
from tlkit.zoo.users_zoo import write_entry

MINE = zoo.get("efficientnet_lite0").model_copy(update={"name": "mine"})
FILE = """\
# Our backbones.
entries:
    # the first
    a:
      family: f
      modality: image
      source: {kind: keras}  # for now
      input: {image_size: 32}
      layer_groups:
        stem: ".*"
      params: 10
      license: MIT
      citation: |
        two
        lines

# shared
families:
  f: {citation: nobody}
"""


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TLKIT_ZOO", raising=False)
    return tmp_path


def changed(old, new):
    return [line for line in difflib.ndiff(old.splitlines(), new.splitlines()) if line[:2] in ("- ", "+ ")]


def test_the_file_in_the_working_folder_lies_over_the_shipped_one(tmp_path):
    own = zoo.get("resnet50").model_copy(update={"license": "ours"})
    write_entry(tmp_path / "model_zoo.yaml", own)
    write_entry(tmp_path / "model_zoo.yaml", MINE)
    assert zoo.get("resnet50").license == "ours"
    assert zoo.get("mine") == MINE
    assert [entry.name for entry in zoo.entries()].count("resnet50") == 1
    assert file_of("resnet50") == file_of("mine") == tmp_path / "model_zoo.yaml"
    assert file_of("vgg16") == registry.zoo_file()


def test_the_file_that_the_environment_names_is_taken_instead(tmp_path, monkeypatch):
    write_entry(tmp_path / "model_zoo.yaml", MINE)
    other = tmp_path / "team" / "zoo.yaml"
    other.parent.mkdir()
    write_entry(other, MINE.model_copy(update={"name": "theirs"}))
    monkeypatch.setenv("TLKIT_ZOO", str(other))
    assert users_zoo() == other
    assert zoo.get("theirs")
    assert "mine" not in {entry.name for entry in zoo.entries()}


def test_the_shipped_file_as_the_working_folder_s_is_not_read_twice(tmp_path, monkeypatch):
    shutil.copy(registry.zoo_file(), tmp_path / "model_zoo.yaml")
    assert users_zoo() is None
    assert zoo.entries() is zoo.entries()
    monkeypatch.chdir(registry.zoo_file().parent)
    assert users_zoo() is None


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "model_zoo.yaml").write_text("entries: {x: {params: many}}")
    with pytest.raises(ConfigError, match=rf"{tmp_path}/model_zoo.yaml: x\."):
        zoo.entries()
    (tmp_path / "model_zoo.yaml").write_text("entries: [")
    with pytest.raises(ConfigError, match=rf"{tmp_path}/model_zoo.yaml is not valid YAML"):
        zoo.get("resnet50")


def test_some_fields_of_a_shipped_entry_are_laid_over_it(tmp_path):
    own = zoo.get("resnet50")
    file = tmp_path / "model_zoo.yaml"
    file.write_text("entries:\n  resnet50: {family: resnet, license: foo, input: {min_image_size: 64}}\n")
    expected = own.model_copy(
        update={"license": "foo", "input": own.input.model_copy(update={"min_image_size": 64})}
    )
    assert zoo.get("resnet50") == expected
    write_entry(file, MINE)
    assert read_zoo(file) == (expected, MINE)
    write_entry(file, own.model_copy(update={"constructor": None}), overwrite=True)
    assert zoo.get("resnet50").constructor is None, "with a source it is a whole entry"


def test_an_entry_that_replaces_a_shipped_one_says_that_it_must_be_whole(tmp_path):
    (tmp_path / "model_zoo.yaml").write_text("entries: {resnet50: {source: {kind: keras}, license: foo}}")
    with pytest.raises(ConfigError, match="resnet50: with a source it replaces tlkit's own entry, and needs"):
        zoo.entries()


def test_an_entry_cannot_have_the_name_of_sample_data(tmp_path):
    (tmp_path / "model_zoo.yaml").write_text("entries: {elpv: {}}")
    with pytest.raises(ConfigError, match="elpv: is the name of sample data: choose another"):
        zoo.entries()


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_a_file_without_anything_is_a_zoo_of_nothing(tmp_path, text):
    (tmp_path / "model_zoo.yaml").write_text(text)
    assert read_zoo(tmp_path / "model_zoo.yaml") == ()


@pytest.mark.parametrize(
    "text",
    [
        FILE,
        FILE.replace("\n", "\r\n"),
        FILE.rstrip("\n"),
        FILE.partition("# shared")[0].replace("family: f\n", "family: g\n"),
        "# nothing yet\n",
        "entries:\n# none\n",
        "families: {}\n",
        "",
    ],
)
def test_adding_leaves_everything_else_as_it_is(tmp_path, text):
    path = tmp_path / "zoo.yaml"
    path.write_bytes(text.encode())
    before = {entry.name: entry for entry in read_zoo(path)}
    write_entry(path, MINE)
    new = path.read_bytes().decode()
    assert {entry.name: entry for entry in read_zoo(path)} == {**before, "mine": MINE}
    assert [line for line in changed(text, new) if line[0] == "-"] == []
    assert ("\r\n" in new) == ("\r\n" in text)
    assert "\r\r" not in new
    with pytest.raises(ConfigError, match="has an entry 'mine' already: choose another name, or --overwrite"):
        write_entry(path, MINE)
    write_entry(path, MINE.model_copy(update={"license": "ours"}), overwrite=True)
    assert [line.split(":")[0].split()[-1] for line in changed(new, path.read_bytes().decode())] == [
        "license",
        "license",
    ]


@pytest.mark.parametrize("text", ["entries: {}  # none\n", "entries: ~\n", "entries: {}\nfamilies: {}\n"])
def test_an_empty_list_of_entries_is_filled(tmp_path, text):
    path = tmp_path / "zoo.yaml"
    path.write_text(text)
    write_entry(path, MINE)
    assert read_zoo(path) == (MINE,)
    assert ("# none" in path.read_text()) == ("# none" in text)


@pytest.mark.parametrize(
    "text",
    [
        "{entries: {}}\n",
        "entries: {a: {}}\n".replace(
            "{}",
            "{family: f, modality: image, source: {kind: keras}, params: 1, "
            "license: MIT, input: {image_size: 32}, layer_groups: {a: b}}",
        ),
        "families: {efficientnet_lite: {citation: x, layer_groups: {more: y}}}\nentries:\n",
    ],
)
def test_what_cannot_be_added_to_as_it_is_written_is_left_alone(tmp_path, text):
    path = tmp_path / "zoo.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be added to without changing the rest"):
        write_entry(path, MINE)
    assert path.read_text() == text


def test_a_broken_file_is_not_added_to(tmp_path):
    path = tmp_path / "zoo.yaml"
    path.write_text("entries: {x: {params: many}}")
    with pytest.raises(ConfigError, match="x.params"):
        write_entry(path, MINE)
    assert path.read_text() == "entries: {x: {params: many}}"


def test_several_processes_that_add_at_once_lose_nothing(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tlkit import zoo\n"
        "from tlkit.zoo.users_zoo import write_entry\n"
        "for n in range(5):\n"
        "    entry = zoo.get('resnet50').model_copy(update={'name': f'{sys.argv[1]}{n}'})\n"
        "    write_entry(Path(sys.argv[2]), entry)\n"
    )
    path = str(tmp_path / "zoo.yaml")
    running = [
        subprocess.Popen([sys.executable, "-c", code, name, path], cwd=registry.zoo_file().parent)
        for name in "abc"
    ]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(read_zoo(tmp_path / "zoo.yaml")) == 15
    assert [path.name for path in tmp_path.iterdir()] == ["zoo.yaml"], "nothing else is left behind"
