"""Files on the web: a server on this machine does everything that servers should not do."""

import hashlib
import io
import tarfile
import time
import zipfile

import pytest

from tlkit.errors import FetchError, StorageError
from tlkit.zoo import download as downloading
from tlkit.zoo.download import download
from tlkit.zoo.source import UrlSource
from tlkit.zoo.url import fetch_url, url_path

from https_site import drip, serve

CONTENT = bytes(range(256)) * 8000  # 2 MB
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("site")) as both:
        yield both


@pytest.fixture
def site(served, tmp_path, monkeypatch):
    """The server, trusted, with an empty cache folder and no time to lose."""
    site, trusted = served
    site.asked.clear()
    site.answer = lambda request: request.whole(CONTENT)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(downloading, "BACK_OFF_SECONDS", 0)
    monkeypatch.setattr(downloading, "TIMEOUT_SECONDS", (5, 0.5))
    return site


@pytest.fixture
def source(site):
    return UrlSource(kind="url", url=f"{site.url}/models/w.pth", sha256=HASH, size=len(CONTENT))


def refusal(source, match, **changes):
    """The one line that fetching is refused with; nothing is left of what was downloaded."""
    with pytest.raises(FetchError, match=match) as caught:
        fetch_url(source.model_copy(update=changes), print)
    assert "\n" not in str(caught.value)
    slot = url_path(source).parent
    assert [path.name for path in slot.rglob("*")] in ([], [".lock"])
    return str(caught.value)


def test_a_file_is_downloaded_once(site, source):
    lines = []
    path = fetch_url(source, lines.append)
    assert (path.name, path.read_bytes()) == ("w.pth", CONTENT)
    assert fetch_url(source) == path
    assert len(site.asked) == 1
    assert lines == ["Downloading 127.0.0.1/models/w.pth (2 MB)"]


def test_offline_says_so_and_asks_nobody(site, source, monkeypatch):
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    refusal(source, "TLKIT_OFFLINE forbids downloads")
    assert site.asked == []


def test_a_broken_download_goes_on_where_it_stopped(site, source):
    stops = [500_000, 1_300_000, None]
    site.answer = lambda request: request.rest(CONTENT, upto=stops[request.number])
    assert fetch_url(source, print).read_bytes() == CONTENT
    assert [asked.get("Range") for asked in site.asked] == [None, "bytes=500000-", "bytes=1300000-"]
    assert [asked.get("If-Range") for asked in site.asked] == [None, '"1"', '"1"']


def test_a_server_that_knows_no_ranges_sends_it_anew(site, source):
    def answer(request):
        if request.number:
            request.whole(CONTENT)
        else:
            request.rest(CONTENT, upto=500_000)

    site.answer = answer
    assert fetch_url(source, print).read_bytes() == CONTENT


def test_content_that_changes_between_two_tries_is_not_pieced_together(site, source):
    """The server honours If-Range: the second answer is the whole of the new content."""
    old = b"x" * len(CONTENT)
    site.answer = lambda request: (
        request.rest(CONTENT, tag='"2"') if request.number else request.rest(old, upto=700_000)
    )
    assert fetch_url(source, print).read_bytes() == CONTENT
    assert len(site.asked) == 2


@pytest.mark.parametrize("tag", ['"2"', '"1"'], ids=["told by its ETag", "told by nothing but the hash"])
def test_a_server_that_goes_on_with_other_content_is_asked_anew(site, source, tag):
    def answer(request):
        if request.number == 0:
            return request.rest(b"x" * len(CONTENT), upto=700_000)
        if request.number == 1:  # in spite of If-Range
            span = f"bytes 700000-{len(CONTENT) - 1}/{len(CONTENT)}"
            request.head(206, Content_Length=len(CONTENT) - 700_000, Content_Range=span, ETag=tag)
            return request.wfile.write(CONTENT[700_000:])
        return request.whole(CONTENT)

    site.answer = answer
    assert fetch_url(source, print).read_bytes() == CONTENT
    assert site.asked[2].get("Range") is None


def test_a_range_that_was_not_asked_for_is_not_taken(site, source):
    def answer(request):
        if request.number == 0:
            return request.rest(CONTENT, upto=700_000)
        if request.number == 1:
            span = f"bytes 900000-{len(CONTENT) - 1}/{len(CONTENT)}"
            request.head(206, Content_Length=len(CONTENT) - 900_000, Content_Range=span, ETag='"1"')
            return request.wfile.write(CONTENT[900_000:])
        return request.whole(CONTENT)

    site.answer = answer
    assert fetch_url(source, print).read_bytes() == CONTENT


def test_a_file_that_became_shorter_is_asked_for_anew(site, source):
    def answer(request):
        if request.number == 0:
            request.rest(CONTENT, upto=700_000)
        elif request.first_byte():
            request.head(416, Content_Range="bytes */10", Content_Length=0)
        else:
            request.whole(CONTENT)

    site.answer = answer
    assert fetch_url(source, print).read_bytes() == CONTENT


def test_a_refused_range_that_nobody_asked_for_is_an_error(site, source):
    site.answer = lambda request: request.head(416, Content_Length=0)
    refusal(source, "the server answers 416")
    assert len(site.asked) == 1


def test_what_is_missing_is_said_at_once(site, source):
    site.answer = lambda request: request.head(404, Content_Length=0)
    refusal(source, r"127\.0\.0\.1/models/w\.pth cannot be downloaded: the server answers 404 Not Found")
    assert len(site.asked) == 1


def test_a_server_in_trouble_is_asked_again(site, source):
    site.answer = lambda request: (
        request.head(500, Content_Length=0) if request.number < 3 else request.whole(CONTENT)
    )
    assert fetch_url(source, print).read_bytes() == CONTENT
    assert len(site.asked) == 4


def test_a_server_that_stays_in_trouble_is_given_up(site, source):
    site.answer = lambda request: request.head(500, Content_Length=0)
    refusal(source, "the server answers 500 Internal Server Error, after 6 tries")
    assert len(site.asked) == downloading.TRIES


def test_tries_wait_longer_and_longer_and_as_asked(site, source, monkeypatch):
    waits = []
    monkeypatch.setattr(downloading, "BACK_OFF_SECONDS", 0.5)
    monkeypatch.setattr(downloading.time, "sleep", waits.append)
    busy = [{}, {}, {}, {"Retry_After": 7}, {"Retry_After": 10**9}]
    site.answer = lambda request: (
        request.head(503, Content_Length=0, **busy[request.number])
        if request.number < len(busy)
        else request.whole(CONTENT)
    )
    fetch_url(source, print)
    assert waits == [0, 1, 2, 7, 60]


def test_a_line_that_keeps_breaking_but_brings_something_is_kept_at(site, source):
    step = 300_000
    site.answer = lambda request: request.rest(CONTENT, upto=request.first_byte() + step)
    assert fetch_url(source, print).read_bytes() == CONTENT
    assert len(site.asked) > downloading.TRIES


def test_a_line_that_keeps_breaking_and_brings_nothing_is_given_up(site, source):
    site.answer = lambda request: request.rest(CONTENT, upto=request.first_byte() + 1)
    refusal(source, "after 6 tries")


def test_a_server_that_announces_another_size_sends_nothing(site, source):
    site.answer = lambda request: request.whole(CONTENT + b"!")
    refusal(source, r"has 2,048,001 bytes, the zoo names 2,048,000")


def test_a_length_that_is_longer_than_the_file_is_not_believed(site, source):
    site.answer = lambda request: (request.head(200, Content_Length=9_000_000), request.wfile.write(CONTENT))
    refusal(source, "has 9,000,000 bytes")
    refusal(source, "after 6 tries", size=None)


def test_a_length_that_is_shorter_than_the_file_is_not_believed(site, source):
    site.answer = lambda request: (request.head(200, Content_Length=1000), request.wfile.write(CONTENT))
    refusal(source, "has 1,000 bytes")
    refusal(source, "has sha256 [0-9a-f]{64}, the zoo names", size=None)


def test_a_server_that_does_not_stop_is_stopped(site, source):
    sent = []

    def answer(request):
        request.head(200)  # no length: the end is where the connection ends
        for _ in range(500):
            request.wfile.write(CONTENT)
            sent.append(1)

    site.answer = answer
    refusal(source, "sends more than 2,048,000 bytes")
    assert len(sent) < 100


def test_a_file_without_a_stated_size_has_a_limit(site, source, monkeypatch):
    monkeypatch.setattr(downloading, "MAX_BYTES", 1_000_000)
    site.answer = lambda request: (request.head(200), request.wfile.write(CONTENT))
    refusal(source, "sends more than 1,000,000 bytes", size=None)


def test_another_content_is_refused(site, source):
    site.answer = lambda request: request.whole(b"x" * len(CONTENT))
    refusal(source, f"has sha256 [0-9a-f]{{64}}, the zoo names {HASH}")
    assert len(site.asked) == 1


def test_content_that_is_packed_for_the_way_is_taken_as_it_is_sent(site, source):
    site.answer = lambda request: request.whole(CONTENT, Content_Encoding="gzip")
    assert fetch_url(source, print).read_bytes() == CONTENT
    assert site.asked[0]["Accept-Encoding"] == "identity"


def test_redirects_are_followed_to_https(site, source):
    def answer(request):
        if request.path == "/models/w.pth":
            request.head(302, Location="/elsewhere/1", Content_Length=0)
        else:
            request.rest(CONTENT, upto=None if request.first_byte() else 900_000)

    site.answer = answer
    assert fetch_url(source, print).read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["http://127.0.0.1/w.pth", "file:///etc/passwd", "ftp://x/y", "https://["])
def test_redirects_elsewhere_are_refused(site, source, target):
    site.answer = lambda request: request.head(302, Location=target, Content_Length=0)
    assert repr(target) in refusal(source, "is not https")


def test_redirects_without_end_are_refused(site, source):
    site.answer = lambda request: request.head(302, Location="/models/w.pth", Content_Length=0)
    refusal(source, "redirects more than 10 times")
    assert len(site.asked) == 11


def test_the_body_of_a_redirect_is_not_read(site, source):
    sent = []

    def answer(request):
        if request.path == "/models/w.pth":
            request.head(302, Location="/elsewhere", Content_Length=10**12)
            for _ in range(100):
                request.wfile.write(CONTENT)
                sent.append(1)
        else:
            request.whole(CONTENT)

    site.answer = answer
    assert fetch_url(source, print).read_bytes() == CONTENT
    assert len(sent) < 100


def test_a_server_that_says_nothing_is_given_up(site, source):
    site.answer = lambda request: (request.head(200, Content_Length=len(CONTENT)), time.sleep(1))
    refusal(source, "timed out.* after 6 tries")


def test_a_server_that_drips_is_given_up(site, source, monkeypatch):
    monkeypatch.setattr(downloading, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(downloading, "TRIES", 2)
    site.answer = lambda request: (
        request.head(200, Content_Length=len(CONTENT)),
        drip(request, CONTENT[:20], 0.05),
    )
    refusal(source, "it sent less than 60 kB in 0 seconds, after 2 tries")


def test_a_server_that_is_not_who_it_says_is_not_asked_again(site, source, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    refusal(source, "its certificate is not trusted.*REQUESTS_CA_BUNDLE")


def test_nobody_at_the_address_is_one_line(site, source):
    refusal(source, "cannot be downloaded.*after 6 tries", url="https://127.0.0.1:1/w.pth")


def test_secrets_in_an_address_are_not_shown(site, source):
    site.answer = lambda request: request.head(404, Content_Length=0)
    url = site.url.replace("https://", "https://me:secret@") + "/w.pth?signature=secret"
    assert "secret" not in refusal(source, "404", url=url)


def test_plain_http_is_no_source():
    with pytest.raises(ValueError, match="url"):
        UrlSource(kind="url", url="http://example.org/w.pth", sha256=HASH)


def test_a_full_disk_is_a_storage_error(site, source, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloading._Part, "write", full)
    with pytest.raises(StorageError, match="No space left on device"):
        fetch_url(source, print)


def test_the_bytes_that_arrive_are_reported(site, tmp_path):
    seen = []
    download(f"{site.url}/w", tmp_path / "w", sha256=HASH, report=lambda *both: seen.append(both))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


@pytest.mark.parametrize("path", ["/.lock", "/a%2F..%2F..%2Fetc", "/..", "/%00", "/a b<script>"])
def test_the_name_of_a_file_cannot_lead_elsewhere(site, source, path):
    there = fetch_url(source.model_copy(update={"url": f"{site.url}/x{path}"}), print)
    assert there.parent == url_path(source).parent
    assert not there.name.startswith(".")
    assert there.read_bytes() == CONTENT


def packed(kind):
    files = {"model/a.txt": b"a" * 1000, "model/sub/b.txt": b"b", "readme": b"r"}
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz"])
@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("model/", ["a.txt", "sub", "sub/b.txt"]),
        ("/", ["model", "model/a.txt", "model/sub", "model/sub/b.txt", "readme"]),
        ("model/a.txt", []),
    ],
)
def test_members_of_an_archive_are_kept_and_mended(site, source, kind, member, expected):
    content = packed(kind)
    site.answer = lambda request: request.whole(content)
    digest = hashlib.sha256(content).hexdigest()
    source = source.model_copy(update={"sha256": digest, "size": len(content), "member": member})
    path = fetch_url(source, print)
    assert sorted(item.relative_to(path).as_posix() for item in path.rglob("*")) == expected
    assert fetch_url(source, print) == path
    assert len(site.asked) == 1
    damaged = path if path.is_file() else next(item for item in path.rglob("*.txt"))
    damaged.write_bytes(b"damaged")
    fetch_url(source, print)
    assert damaged.read_bytes() != b"damaged"
    assert len(site.asked) == 2


def test_a_member_with_another_hash_is_refused(site, source):
    content = packed("zip")
    site.answer = lambda request: request.whole(content)
    digest = hashlib.sha256(content).hexdigest()
    changes = {"sha256": digest, "size": None, "member": "model/a.txt", "member_sha256": "0" * 64}
    with pytest.raises(FetchError, match="model/a.txt in .* has sha256 [0-9a-f]{64}, the zoo names 000"):
        fetch_url(source.model_copy(update=changes), print)


@pytest.mark.parametrize("member", ["../a", "/etc/passwd", "model/../../a", ""])
def test_a_member_outside_of_the_archive_is_refused(source, member):
    with pytest.raises(FetchError, match="a path inside it"):
        fetch_url(source.model_copy(update={"member": member}), print)
