"""Plays the part of every server that models are fetched from, on 127.0.0.1: redirects, ETags, ranges, and faults.

`ModelHub.opener` takes requests for the true addresses and opens them here, so that the catalog stays as it is.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import secrets
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from pipelines.weights import download
from pipelines.weights.checkpoint import Checkpoint

REFUSALS = {"gone": 404, "gated": 401, "busy": 503, "limited": 429}
CUT = 100  # bytes after which a cut connection ends
PAGE = b"<!DOCTYPE html><title>Sign in</title>" + b" " * 500


class ModelHub:
    """Files by their addresses, and what goes wrong at some of them.

    Faults are joined by "+". One is a key of REFUSALS, or "dead" (no answer), "page" (a web page in its place), "wrong"
    (other bytes), "short" (fewer bytes, honestly told), "longer" (more than told), "cut" (each connection ends after CUT
    bytes), "cut once", "stuck" (every connection ends at its first byte), "untold" (no length: it ends when the
    connection does), "chunked", "drip" (a few bytes at a time), "no ranges", "other range" (it begins elsewhere than
    asked, and says so), "lying range" (it begins at 0 and says as asked), "vague range" (206 without a Content-Range),
    "packed" (gzip), "packed in silence" (gzip that is not told), "new etags", "weak", "moved" (a redirect to plain http
    elsewhere), or "loop" (a redirect to itself).
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []  # address, Range
        self.tokens: set[str | None] = set()  # that came with requests
        hub = self

        class Handler(_Handler):
            def do_GET(self) -> None:
                hub.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def opener(self, request: urllib.request.Request, timeout: float) -> Any:
        """Opens a request for https://HOST/PATH at http://127.0.0.1:PORT/HOST/PATH, by the rules of the real one."""
        here = f"{self.origin}/{request.full_url.removeprefix('https://')}"
        headers = {name: value for name, value in request.header_items() if name != "Host"}
        return _OPEN(urllib.request.Request(here, headers=headers), timeout)

    def offer(self, entry: Checkpoint, contents: Mapping[str, bytes]) -> Checkpoint:
        """Serve an entry's files at all their addresses, and the entry that pins as much of them as the catalog does.

        `contents` are bytes by the files' paths.
        """
        files = []
        for file in entry.files:
            data = contents[file.path]
            self.files |= dict.fromkeys(file.urls, data)
            sha256 = hashlib.sha256(data).hexdigest() if file.sha256 else None
            files.append(replace(file, sha256=sha256, size=None if file.size is None else len(data)))
        return replace(entry, files=tuple(files))

    def answer(self, request: _Handler) -> None:
        """The Hub sends its readers elsewhere, with an absolute or a relative address; others give the file at once."""
        stored = request.path.startswith("/stored/")
        url = "https://" + request.path.removeprefix("/stored").removeprefix("/")
        fault, data = self.faults.get(url, "").split("+"), self.files.get(url)
        if not stored:
            self.asked.append((url, request.headers.get("Range")))
            self.tokens.add(request.headers.get("Authorization"))
        refused = [REFUSALS[one] for one in fault if one in REFUSALS]
        if "dead" in fault:
            request.close_connection = True
        elif data is None or refused:
            request.send_error(refused[0] if refused else 404)
        elif "moved" in fault:
            request.redirect(f"http://{urlsplit(url).hostname}/elsewhere")
        elif "loop" in fault:
            request.redirect(self.origin + request.path)
        elif not stored and urlsplit(url).hostname == "huggingface.co":
            inside = f"/stored{request.path}"
            request.redirect(inside if len(data) < 2000 else self.origin + inside)
        else:
            request.send(data, fault, url)
            if "cut once" in fault:
                self.faults[url] = "+".join(one for one in fault if one != "cut once")


_OPEN = download._open


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def redirect(self, place: str) -> None:
        self.send_response(302)
        self.send_header("Location", place)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, data: bytes, fault: list[str], url: str) -> None:
        data = _spoilt(data, fault)
        mark = secrets.token_hex(4) if "new etags" in fault else hashlib.md5(url.encode()).hexdigest()
        etag = ("W/" if "weak" in fault else "") + f'"{mark}"'
        begin, wanted = 0, self.headers.get("Range")
        if wanted and "no ranges" not in fault and self.headers.get("If-Range", etag) == etag:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        if begin >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        rest = data[begin:]
        if begin and "vague range" not in fault:
            told = begin - 10 if "other range" in fault else begin
            rest = data if "lying range" in fault else data[told:]
            self.send_header("Content-Range", f"bytes {told}-{len(data) - 1}/{len(data)}")
        if "packed" in fault:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("ETag", etag)
        if "chunked" in fault:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in filter(None, (rest[:100], rest[100:])):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")
            return
        if "untold" in fault:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(rest) - 20 * ("longer" in fault)))
        self.end_headers()
        self._write(rest, fault)

    def _write(self, rest: bytes, fault: list[str]) -> None:
        ends = next(
            (count for name, count in (("cut", CUT), ("cut once", CUT), ("stuck", 0)) if name in fault), None
        )
        rest = rest[:ends]
        if "drip" in fault:
            for k in range(0, len(rest), 16):
                self.wfile.write(rest[k : k + 16])
                self.wfile.flush()
                threading.Event().wait(0.001)
        else:
            self.wfile.write(rest)
        if ends is not None or "untold" in fault or "longer" in fault:
            self.close_connection = True


def _spoilt(data: bytes, fault: list[str]) -> bytes:
    """What is sent instead of a file."""
    if "page" in fault:
        return PAGE
    if "wrong" in fault:
        return bytes(len(data))
    if "short" in fault:
        return data[:-1]
    return gzip.compress(data) if "packed" in fault or "packed in silence" in fault else data
