"""The registry: reading, validating, finding."""

import subprocess
import sys
from pathlib import Path

import pytest

from tlkit import zoo
from tlkit.errors import ConfigError, UnknownNameError
from tlkit.zoo import registry

ENTRY = """
  small:
    family: tiny
    source: {kind: keras}
    constructor: {arguments: {application: VGG16}}
    input: {image_size: 64}
    params: 10
"""
FAMILY = """
families:
  tiny:
    modality: image
    constructor: {builder: keras_application}
    input: {min_image_size: 32, scaling: {mean: [1, 2, 3], std: [4, 5, 6], order: bgr}}
    layer_groups: {stem: stem.*, top: top.*}
    license: MIT
entries:
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "zoo.yaml"
    path.write_text(text)
    return path


def test_the_offline_entries_are_there_and_verified():
    for name in (
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
        "mobilenet_v2_torchvision",
    ):
        entry = zoo.get(name)
        assert entry.source.kind == "wheel"
        assert entry.verified


def test_every_keras_application_has_an_entry():
    import keras

    known = {name for name in dir(keras.applications) if name[0].isupper()}
    listed = {
        entry.constructor.arguments["application"] for entry in zoo.entries() if entry.source.kind == "keras"
    }
    assert listed == known


def test_names_are_unique_and_every_reference_names_its_source():
    names = [entry.name for entry in zoo.entries()]
    assert len(set(names)) == len(names)
    for entry in zoo.entries():
        assert all(reference.source.startswith("https://") for reference in entry.reference)


def test_every_licence_of_weights_names_where_it_was_read():
    for entry in zoo.entries():
        if entry.source.kind == "none":
            assert entry.license_source is None
            continue
        assert "https://" in entry.license_source, entry.name
        assert entry.license not in ("BSD", "unknown", "not stated"), entry.name


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"'efficentnet_lite0'\. Did you mean 'efficientnet_lite0'\?.*zoo list"
    ):
        zoo.get("efficentnet_lite0")


def test_search_needs_every_word():
    found = {entry.name for entry in zoo.search("Lite wheel")}
    assert found == {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}
    assert zoo.search("no such thing") == ()


def test_an_entry_takes_its_family_s_fields_and_merges_mappings(tmp_path):
    (entry,) = zoo.entries(write(tmp_path, FAMILY + ENTRY))
    assert entry.constructor.model_dump() == {
        "builder": "keras_application",
        "arguments": {"application": "VGG16"},
    }
    assert (entry.input.image_size, entry.input.min_image_size) == (64, 32)
    assert entry.input.scaling.order == "bgr"
    assert list(entry.layer_groups) == ["stem", "top"]


def test_a_zoo_file_of_ones_own_lies_over_the_shipped_one(tmp_path, monkeypatch):
    shipped = len(zoo.entries())
    monkeypatch.setenv("TLKIT_ZOO", str(write(tmp_path, FAMILY + ENTRY)))
    assert len(zoo.entries()) == shipped + 1
    assert zoo.get("small").license == "MIT"
    monkeypatch.setenv("TLKIT_ZOO", str(tmp_path / "missing.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        zoo.entries()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("params: 10", "params: many"), "small.params"),
        (("params: 10", "parms: 10"), "small.parms.*small.params|small.params.*small.parms"),
        (("std: [4, 5, 6]", "std: [4, 0, 6]"), "small.input.image.scaling.std.*above 0"),
        (("stem: stem.*", "stem: 'stem(.*'"), "small.layer_groups.*'stem' is not a regular expression"),
        (("kind: keras", "kind: ftp"), "small.source.*ftp"),
        (("entries:\n", "entry:\n"), "unknown key 'entry'"),
        (("license: MIT", "license: [}"), "not valid YAML"),
    ],
)
def test_a_malformed_zoo_names_entry_and_key(tmp_path, change, message):
    path = write(tmp_path, (FAMILY + ENTRY).replace(*change))
    with pytest.raises(ConfigError, match=message) as caught:
        zoo.entries(path)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_listed_at_once(tmp_path):
    text = (
        FAMILY
        + ENTRY.replace("params: 10", "params: -1")
        + ENTRY.replace("small:", "other:").replace("64", "big")
    )
    with pytest.raises(ConfigError, match=r"small\.params.*; other\.input\.image\.image_size"):
        zoo.entries(write(tmp_path, text))


def test_a_missing_zoo_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        zoo.entries(tmp_path / "nowhere.yaml")


def test_the_zoo_is_found_inside_an_installed_package(tmp_path, monkeypatch):
    inside = tmp_path / "site-packages" / "tlkit" / "model_zoo.yaml"
    inside.parent.mkdir(parents=True)
    inside.write_text("entries: {}")
    monkeypatch.setattr(registry, "__file__", str(inside.parent / "zoo" / "registry.py"))
    assert registry.zoo_file() == inside


def test_an_entry_survives_its_plain_form():
    for entry in zoo.entries():
        assert zoo.ZooEntry.model_validate(entry.to_dict()) == entry


def test_listing_the_zoo_loads_no_tensorflow():
    code = (
        "import sys; from tlkit import zoo; zoo.entries(); print({'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_samples_know_their_licence_citation_and_rules():
    assert [sample.name for sample in zoo.samples()] == ["elpv", "digits", "bbc_news"]
    elpv = zoo.get_sample("elpv")
    assert elpv.license == "CC-BY-NC-SA-4.0"
    assert (elpv.label.threshold, elpv.label.classes) == (0.5, ("functional", "defective"))
    assert (elpv.split.test, elpv.split.validation, elpv.split.stratify_by) == (0.25, 0.1, "probability")
    assert all(sample.citation for sample in zoo.samples())
    with pytest.raises(UnknownNameError, match="Did you mean 'elpv'"):
        zoo.get_sample("elvp")


def test_mirrors_are_of_kinds_that_are_fetched():
    fields = zoo.get("resnet50").to_dict()
    wheel = zoo.get("minilm_l6").to_dict()["source"]
    with pytest.raises(ValueError, match="have mirrors, received 'keras'"):
        zoo.ZooEntry.model_validate({**fields, "mirrors": [wheel]})
    assert zoo.ZooEntry.model_validate({**fields, "source": wheel, "mirrors": [wheel]}).mirrors


def test_a_family_that_a_zoo_file_does_not_have_is_named(tmp_path):
    (tmp_path / "z.yaml").write_text("entries: {x: {family: resnet, params: 5}}")
    with pytest.raises(ConfigError, match="x: this file's families have no 'resnet' to take fields from"):
        zoo.entries(tmp_path / "z.yaml")
