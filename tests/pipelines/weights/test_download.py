"""Downloads from a server on this machine: whole, resumed, cut off, wrong, refused."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import json
import random
import shutil
import threading
import urllib.error
import urllib.request
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import BadInput, CannotSave
from pipelines.weights import download as module
from pipelines.weights.download import fetch

DATA = random.Random(5).randbytes(1_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA; what it can and what goes wrong is set on it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.etag = DATA, '"one"'
        self.ranges = True  # whether it goes on in the middle
        self.says_length = True
        self.breaks_at: list[int] = []  # bytes after which the next connections end
        self.status = 200
        self.redirect = ""
        self.asked: list[str | None] = []  # the Range of each request
        self.url = f"http://127.0.0.1:{self.server_port}/weights.pt"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        if server.redirect and not self.path.endswith("/moved"):
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if begin and self.headers.get("If-Range", server.etag) != server.etag:
            begin = 0
        if begin >= len(server.data):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.data) - 1}/{len(server.data)}")
        if server.says_length:
            self.send_header("Content-Length", str(len(server.data) - begin))
        self.send_header("ETag", server.etag)
        self.end_headers()
        end = server.breaks_at.pop(0) if server.breaks_at else len(server.data)
        self.wfile.write(server.data[begin:end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models" / "weights.pt"


def finish(url: str, path: Path, **words: Any) -> tuple[list[tuple[int, int]], str]:
    """Run a download to its end: its progress and its SHA-256."""
    steps, events = [], fetch(url, path, **words)
    while True:
        try:
            steps.append(next(events))
        except StopIteration as end:
            return steps, end.value


def only(path: Path) -> bool:
    """Whether the whole file, and nothing else, is there."""
    return list(path.parent.iterdir()) == [path] and path.read_bytes() == DATA


def test_a_file_comes_whole_with_its_progress(server: Server, path: Path) -> None:
    steps, found = finish(server.url, path, sha256=SHA256, size=len(DATA))
    assert found == SHA256 and only(path)
    assert steps[0] == (0, len(DATA)) and steps[-1] == (len(DATA), len(DATA)) and len(steps) > 3
    assert steps == sorted(steps)
    assert finish(server.url, path, sha256=SHA256) == ([], SHA256)  # it is there already
    assert server.asked == [None]


def test_the_hash_is_told_when_it_was_not_known(server: Server, path: Path) -> None:
    assert finish(server.url, path)[1] == SHA256
    assert only(path)


def stop_halfway(server: Server, path: Path) -> int:
    events = fetch(server.url, path, SHA256)
    while next(events)[0] < 400_000:
        pass
    events.close()
    assert not path.exists()
    return path.with_name("weights.pt.part").stat().st_size


def test_a_closed_download_goes_on_where_it_ended(server: Server, path: Path) -> None:
    size = stop_halfway(server, path)
    steps, _ = finish(server.url, path, sha256=SHA256)
    assert server.asked == [None, f"bytes={size}-"] and steps[0] == (size, len(DATA))
    assert only(path)


def test_a_server_without_ranges_starts_over(server: Server, path: Path) -> None:
    server.ranges = False
    stop_halfway(server, path)
    steps, _ = finish(server.url, path, sha256=SHA256)
    assert steps[0][0] == 0 and only(path)


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_on_the_server_starts_over(
    honours_if_range: bool, server: Server, path: Path
) -> None:
    server.data = bytes(len(DATA))
    stop_halfway(server, path)
    server.data = DATA
    if honours_if_range:
        server.etag = '"two"'
    else:
        note = path.with_name("weights.pt.part.json")
        note.write_text(json.dumps(json.loads(note.read_text()) | {"etag": None, "total": 7}))
    finish(server.url, path, sha256=SHA256)
    assert only(path)


def test_a_shorter_file_than_the_part_starts_over(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("weights.pt.part").write_bytes(bytes(2 * len(DATA)))
    note = {"url": server.url, "etag": None, "total": 3 * len(DATA)}
    path.with_name("weights.pt.part.json").write_text(json.dumps(note))
    finish(server.url, path, sha256=SHA256)
    assert only(path)


@pytest.mark.parametrize(
    "note", ["", "[]", '{"url": "https://elsewhere/weights.pt", "etag": null, "total": 9}']
)
def test_a_part_of_unknown_origin_is_not_used(note: str, server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("weights.pt.part").write_bytes(b"something else")
    path.with_name("weights.pt.part.json").write_text(note)
    finish(server.url, path, sha256=SHA256)
    assert server.asked == [None] and only(path)


def test_a_connection_that_breaks_off_is_taken_up_again(server: Server, path: Path) -> None:
    server.breaks_at = [300_000, 700_000]
    steps, _ = finish(server.url, path, sha256=SHA256)
    assert server.asked == [None, "bytes=300000-", "bytes=700000-"]
    assert only(path) and steps == sorted(steps)


def test_a_server_that_always_breaks_off_ends_in_a_sentence_and_keeps_the_part(
    server: Server, path: Path
) -> None:
    server.breaks_at = [300_000] * 9
    with pytest.raises(BadInput, match=r"127\.0\.0\.1 broke off after 0\.3 MB .* run it again"):
        finish(server.url, path, sha256=SHA256)
    server.breaks_at = []
    assert not path.exists()
    finish(server.url, path, sha256=SHA256)
    assert server.asked[-1] == "bytes=300000-" and only(path)


def test_wrong_bytes_never_get_the_name(server: Server, path: Path) -> None:
    server.data = bytes(len(DATA))
    with pytest.raises(BadInput, match=r"weights\.pt from 127\.0\.0\.1 has the SHA-256 .* was expected"):
        finish(server.url, path, sha256=SHA256, size=len(DATA))
    assert list(path.parent.iterdir()) == []


def test_wrong_bytes_in_a_resumed_part_are_noticed(server: Server, path: Path) -> None:
    stop_halfway(server, path)
    part = path.with_name("weights.pt.part")
    part.write_bytes(b"\x00" + part.read_bytes()[1:])
    with pytest.raises(BadInput, match="SHA-256"):
        finish(server.url, path, sha256=SHA256)
    finish(server.url, path, sha256=SHA256)
    assert only(path)


def test_an_old_file_stays_until_the_new_one_is_proved(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"old")
    server.data = bytes(5)
    with pytest.raises(BadInput):
        finish(server.url, path, sha256=SHA256)
    assert path.read_bytes() == b"old"


def test_another_size_is_refused_before_a_byte_is_kept(server: Server, path: Path) -> None:
    with pytest.raises(BadInput, match=r"1,000,000 bytes where 5 were expected"):
        finish(server.url, path, size=5)
    assert not path.parent.exists() or list(path.parent.iterdir()) == []


def test_a_server_that_tells_no_length(server: Server, path: Path) -> None:
    server.says_length = False
    with pytest.raises(BadInput, match="does not say how large"):
        finish(server.url, path, sha256=SHA256)
    finish(server.url, path, sha256=SHA256, size=len(DATA))
    assert only(path)


def test_more_bytes_than_were_told_are_refused(server: Server, path: Path) -> None:
    server.says_length = False
    with pytest.raises(BadInput, match="sent more than the 1,000 bytes"):
        finish(server.url, path, size=1000)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, r"does not have weights\.pt any more"),
        (403, r"does not give weights\.pt to everybody"),
        (503, "try again later"),
    ],
)
def test_a_refusal_is_one_sentence(status: int, words: str, server: Server, path: Path) -> None:
    server.status = status
    with pytest.raises(BadInput, match=rf"127\.0\.0\.1 .*{words}"):
        finish(server.url, path)


def test_no_network_is_one_sentence(path: Path) -> None:
    with pytest.raises(BadInput, match=r"127\.0\.0\.1 cannot be reached \(connection refused\)"):
        finish("http://127.0.0.1:9/weights.pt", path)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.pt",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "https://",
        "a.pt",
        "http://localhost/a",
    ],
)
def test_only_https_is_fetched(url: str, path: Path) -> None:
    with pytest.raises(BadInput, match="is not https"):
        finish(url, path)


def test_redirects_lead_only_to_https(server: Server, path: Path) -> None:
    server.redirect = "http://example.org/a.pt"
    with pytest.raises(BadInput, match=r"redirects to 'http://example\.org/a\.pt', which is not https"):
        finish(server.url, path)
    server.redirect = "file:///etc/passwd"
    with pytest.raises(BadInput, match="could not send"):
        finish(server.url, path)
    server.redirect = f"http://127.0.0.1:{server.server_port}/moved"
    finish(server.url, path, sha256=SHA256)
    assert only(path)


def test_a_full_disk_is_noticed_first(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(BadInput, match=r"needs 1 MB and the disk has 1 MB free"):
        finish(server.url, path)
    assert not path.parent.exists()


def test_a_disk_that_fills_up_meanwhile_is_one_sentence(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    path.with_name("weights.pt.part").symlink_to("/dev/full")
    monkeypatch.setattr(module._Part, "_known", lambda _: (0, {}))
    with pytest.raises(CannotSave, match="the disk is full"):
        finish(server.url, path)


@pytest.mark.parametrize(
    ("url", "token", "sent"),
    [
        ("https://huggingface.co/a/b/resolve/main/c.pt", " hf_secret\n", "Bearer hf_secret"),
        ("https://huggingface.co/a/b/resolve/main/c.pt", "", None),
        ("https://huggingface.co/a/b/resolve/main/c.pt", "hf\r\nX: y", None),
        ("https://huggingface.co.example.org/c.pt", "hf_secret", None),
        ("https://cdn.example.org/c.pt", "hf_secret", None),
    ],
)
def test_a_token_goes_to_the_hub_alone(
    url: str, token: str, sent: str | None, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    asked: list[urllib.request.Request] = []

    def refuse(request: urllib.request.Request, _: float) -> Any:
        asked.append(request)
        raise urllib.error.HTTPError(url, 401, "no", http.client.HTTPMessage(), None)

    with pytest.raises(BadInput, match="HF_TOKEN"):
        finish(url, path, opener=refuse)
    assert asked[0].unredirected_hdrs.get("Authorization") == sent
    assert "Authorization" not in asked[0].headers  # which are sent on when the Hub redirects
