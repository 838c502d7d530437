"""Download one file over https: resumed where it broke off, never more than stated, checked as it arrives."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from tlkit.errors import FetchError

if TYPE_CHECKING:
    import requests

TRIES = 6  # in a row without anything new
BACK_OFF_SECONDS = 0.5  # doubled from try to try, up to the longest wait
TIMEOUT_SECONDS = (10.0, 30.0)  # to connect, and between two pieces
SLOW_SECONDS, SLOW_BYTES = 60.0, 60_000  # less than this in so long is as good as nothing
MAX_BYTES = 50_000_000_000  # of a file whose size nobody states
_LONGEST_WAIT = 60.0
_CHUNK = 1 << 18
_REDIRECTS = 10
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)

Report = Callable[[int, int | None], None]


def download(
    url: str, to: Path, *, sha256: str, size: int | None = None, report: Report | None = None
) -> None:
    """Download `url` to the new file `to`.

    A download that breaks off goes on where it stopped, as long as the server says that it is still the same
    file; otherwise it begins anew. Redirects are followed to https only. `size` (bytes) is the most that is
    taken. `report` is called with the bytes that are there and those that are expected. Proxies and
    certificates are those that `requests` finds in the environment.

    Raises FetchError: the server refuses, keeps breaking off or is too slow, or the file has another size or
    hash. OSError where `to` cannot be written.
    """
    import requests  # here, with urllib3: listing the zoo needs neither
    from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError
    from urllib3.util import Retry

    fresh = Retry(total=TRIES - 1, backoff_factor=BACK_OFF_SECONDS, backoff_max=_LONGEST_WAIT)
    tries, most = fresh, 0
    with requests.Session() as session, _Part(to, report) as part:
        # Even where it follows no redirect itself, it looks for one, and then reads the body of the answer.
        session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
        while True:
            response = None
            try:
                with closing(_open(session, url, part)) as response:
                    _receive(response, part, size)
                if part.hash == sha256:
                    return
                if part.pieces == 1:
                    raise FetchError(f"{shown(url)} has sha256 {part.hash}, the zoo names {sha256}")
                part.restart()
                problem: Exception = _AgainError("it changed while it was downloaded")
            except (requests.ConnectionError, requests.Timeout, HTTPError, _AgainError) as error:
                problem = error
            except requests.RequestException as error:
                raise FetchError(f"{shown(url)} cannot be downloaded: {_reason(error)}") from error
            if "CERTIFICATE_VERIFY_FAILED" in str(problem):
                raise FetchError(
                    f"{shown(url)} cannot be downloaded: its certificate is not trusted. Behind a proxy that "
                    "has its own, set REQUESTS_CA_BUNDLE"
                ) from problem
            if part.received > most + _CHUNK:  # a bad line that brings something may go on being one
                tries, most = fresh, part.received
            try:
                tries = tries.increment("GET", url, error=ProtocolError(str(problem)))
            except MaxRetryError:
                raise FetchError(
                    f"{shown(url)} cannot be downloaded: {_reason(problem)}, after {TRIES} tries. "
                    "Check the network and the address"
                ) from problem
            time.sleep(min(max(tries.get_backoff_time(), _asked_wait(response)), _LONGEST_WAIT))


def shown(url: str) -> str:
    """The address without what may be secret in it: a user, a password, a signed query."""
    parts = urlsplit(url)
    return f"{parts.hostname}{parts.path}"[:200]


class _AgainError(Exception):
    """This try came to nothing; the next one may not."""


class _Part:
    """What has arrived: the file, the hash of it, and what the server said about the whole."""

    def __init__(self, path: Path, report: Report | None) -> None:
        self._path, self._report = path, report
        self._file: Any = None

    def __enter__(self) -> _Part:
        self._file = self._path.open("xb")
        self.restart()
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    @property
    def hash(self) -> str:
        return self._digest.hexdigest()

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.received = self.pieces = 0
        self.total: int | None = None
        self.validator: str | None = None

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.received += len(chunk)
        if self._report is not None:
            self._report(self.received, self.total)

    def flush(self) -> None:
        self._file.flush()


def _open(session: requests.Session, url: str, part: _Part) -> requests.Response:
    """The answer to a request for what is missing, after redirects. Their bodies are not read."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "tlkit"}
    if part.received:
        headers["Range"] = f"bytes={part.received}-"
        if part.validator:
            headers["If-Range"] = part.validator
    asked = url
    for _ in range(_REDIRECTS + 1):
        response = session.get(
            asked, headers=headers, stream=True, timeout=TIMEOUT_SECONDS, allow_redirects=False
        )
        if not response.is_redirect:
            return response
        response.close()
        asked = _redirected(asked, response.headers["location"])
    raise FetchError(f"{shown(url)} redirects more than {_REDIRECTS} times")


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        if urlsplit(target).scheme == "https":
            return target
    except ValueError:  # no address at all
        pass
    raise FetchError(f"{shown(url)} redirects to {location[:200]!r}, which is not https: refused")


def _receive(response: requests.Response, part: _Part, size: int | None) -> None:
    """Add the body of an answer to `part`. Raises _AgainError where another try may help."""
    where = shown(response.url)
    _begin(response, part, where)
    if size is not None and part.total not in (None, size):
        raise FetchError(f"{where} has {part.total:,} bytes, the zoo names {size:,}: refused")
    limit = size or part.total or MAX_BYTES
    since, before = time.monotonic(), part.received
    part.pieces += 1
    # As soon as something is there, and as it was sent: the pinned hash is that of the file.
    while chunk := response.raw.read1(_CHUNK, decode_content=False):
        if part.received + len(chunk) > limit:
            raise FetchError(f"{where} sends more than {limit:,} bytes: refused")
        part.write(chunk)
        if time.monotonic() - since > SLOW_SECONDS:
            if part.received - before < SLOW_BYTES:
                raise _AgainError(
                    f"it sent less than {SLOW_BYTES / 1000:.0f} kB in {SLOW_SECONDS:.0f} seconds"
                )
            since, before = time.monotonic(), part.received
    part.flush()
    expected = size or part.total
    if expected is not None and part.received < expected:
        raise _AgainError(f"it broke off after {part.received:,} of {expected:,} bytes")


def _begin(response: requests.Response, part: _Part, where: str) -> None:
    """Read what the headers say; start anew where what comes is not the rest of what is there."""
    status, headers = response.status_code, response.headers
    if status == 206:
        first, total = _range(headers.get("Content-Range", ""))
        same = headers.get("ETag") in (None, part.validator) or not str(part.validator).startswith('"')
        if first != part.received or not same or (part.total and total not in (None, part.total)):
            part.restart()
            raise _AgainError("it changed while it was downloaded")
        part.total = total or part.total
    elif status == 200:
        part.restart()
        length = headers.get("Content-Length", "")
        part.total = int(length) if length.isdecimal() else None
        tag = headers.get("ETag", "")
        part.validator = tag if tag.startswith('"') else headers.get("Last-Modified")
    elif status == 416 and part.received:
        part.restart()
        raise _AgainError("it became shorter while it was downloaded")
    elif status in _TRY_AGAIN:
        raise _AgainError(f"the server answers {status} {_reason(response.reason)}".rstrip())
    else:
        raise FetchError(
            f"{where} cannot be downloaded: the server answers {status} {_reason(response.reason)}"
        )


def _range(header: str) -> tuple[int | None, int | None]:
    """The first byte and the size of the whole, from `bytes 5-9/10`."""
    unit, _, rest = header.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal():
        return None, None
    return int(first), int(total) if total.isdecimal() else None


def _asked_wait(response: requests.Response | None) -> float:
    """The seconds that a busy server asks to be left alone for."""
    wait = "" if response is None else response.headers.get("Retry-After", "")
    return float(wait) if wait.isdecimal() and len(wait) < 20 else 0.0


def _reason(problem: object) -> str:
    """One printable line of what went wrong, without the layers that it passed through."""
    text = " ".join(str(problem or "").split())
    text = "".join(letter for letter in text if letter.isprintable())
    return text[:200] or type(problem).__name__
