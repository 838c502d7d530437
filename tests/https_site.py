"""A web site on this machine, over TLS, that misbehaves as a test tells it to."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, with the ways there are to answer it."""

    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        self.close_connection = True
        self.number = len(self.server.asked)
        self.server.asked.append(dict(self.headers))
        self.server.answer(self)

    def first_byte(self) -> int:
        """Where the asked range begins; 0 where there is none."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found else 0

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def whole(self, content: bytes, **headers: object) -> None:
        self.head(200, Content_Length=len(content), **headers)
        self.wfile.write(content)

    def rest(self, content: bytes, upto: int | None = None, tag: str = '"1"') -> None:
        """What was asked for of `content`, with an ETag; the connection ends before byte `upto`."""
        first = self.first_byte()
        if first and self.headers.get("If-Range", tag) == tag:
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self.head(206, Content_Length=len(content) - first, Content_Range=span, ETag=tag)
        else:
            first = 0
            self.head(200, Content_Length=len(content), ETag=tag)
        self.wfile.write(content[first:upto])

    def log_message(self, *_arguments: object) -> None:
        pass


class Site(ThreadingHTTPServer):
    """`answer` is what is done with every request; `asked` are the headers of those that came."""

    answer: Answer

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.asked: list[dict[str, str]] = []
        self.context = context
        self.url = f"https://127.0.0.1:{self.server_address[1]}"

    def finish_request(self, request, client_address) -> None:
        with self.context.wrap_socket(request, server_side=True) as secured:
            secured.settimeout(20)
            super().finish_request(secured, client_address)

    def handle_error(self, *_arguments: object) -> None:
        """Clients that hang up in the middle are meant."""


@contextmanager
def serve(folder: Path) -> Iterator[tuple[Site, Path]]:
    """A site, and the file of the authority that its certificate is from."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = folder / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    with Site(context) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site, trusted
        finally:
            site.shutdown()
            thread.join()


def drip(request: Request, content: bytes, seconds: float) -> None:
    """Send `content` byte by byte, with a pause after each."""
    for byte in content:
        request.wfile.write(bytes([byte]))
        request.wfile.flush()
        time.sleep(seconds)
