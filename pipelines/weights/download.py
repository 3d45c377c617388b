"""Downloads one large file: tries its addresses in order, resumes, checks the SHA-256, and deletes a wrong file."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from pipelines.errors import BadInput, Message, one_line, reason_of
from pipelines.io.files import cannot_save, write_atomically
from pipelines.models.checkpoint import file_hash

BLOCK = 1 << 18  # bytes read at once, and between two steps of progress
TOKEN_HOST = "huggingface.co"  # that HF_TOKEN is for
TIMEOUT = 30.0  # seconds without a single byte
TRIES = 4  # connections in a row that bring nothing
SPARE = 64 << 20  # bytes of disk that are left free
ANY = "*"  # stands for an ETag where another server gave the part

Opener = Callable[[urllib.request.Request, float], Any]


class Unavailable(BadInput):
    """An address cannot give the file. Another may have it."""


def fetch(
    url: str | Sequence[str],
    path: Path,
    sha256: str | None = None,
    size: int | None = None,
    opener: Opener | None = None,
) -> Generator[tuple[int, int], None, str]:
    """Download a file to `path`. Yields (bytes so far, bytes in all) and returns the file's SHA-256 in hexadecimal.

    `url` is its address, or several that are tried in this order: https, or http on 127.0.0.1. `sha256` (hexadecimal) and
    `size` (bytes) are the file's, if known. Without a SHA-256 only the first address is asked, since nothing would prove
    that another has the same file. `opener` opens a request within a number of seconds; None is urllib's, restricted to
    https. Where nobody tells the size, the bytes in all are those so far.

    The bytes are kept in path.part, which stays when the generator is closed or the connection breaks. The next call or
    address resumes from there, unless the server now offers another file. The complete part is hashed before it is
    renamed to `path`; when its hash is wrong it is deleted.

    BadInput when an address is refused, the disk has too little room, or no server can be reached, has the file and sends
    it whole. CannotSave when the file cannot be written.
    """
    addresses = [url] if isinstance(url, str) else list(url)
    for address in addresses:
        check_address(address)
    sha256 = sha256.lower() if sha256 else None
    if path.is_file() and sha256 and file_hash(path) == sha256:
        return sha256
    addresses = addresses if sha256 else addresses[:1]
    problems: list[Unavailable] = []
    for address in addresses:
        try:
            return (yield from _fetch_from(_Part(address, path, addresses), sha256, size, opener or _open))
        except Unavailable as problem:
            problems.append(problem)
    if len(problems) == 1:
        raise problems[0]
    reasons = reduce(
        lambda before, then: Message("weights.and_then", {"before": before, "then": then}),
        (problem.message for problem in problems),
    )
    raise BadInput("weights.no_address", file=path.name, count=len(problems), reasons=reasons)


def _fetch_from(
    part: _Part, sha256: str | None, size: int | None, opener: Opener
) -> Generator[tuple[int, int], None, str]:
    """Download from one address, as `fetch` does. Unavailable when it cannot give the file."""
    yield from _receive(part, size, opener)
    digest = file_hash(part.file)
    if sha256 and digest != sha256 and part.continued and len(part.addresses) > 1:
        part.drop()  # perhaps only what came from the other address is wrong
        yield from _receive(part, size, opener)
        digest = file_hash(part.file)
    if sha256 and digest != sha256:
        part.drop()
        raise Unavailable(
            "weights.wrong_hash", file=part.path.name, host=part.host, found=digest[:12], expected=sha256[:12]
        )
    try:
        part.file.replace(part.path)
    except OSError as error:
        raise cannot_save(part.path, error) from error
    part.drop()
    return digest


def _receive(part: _Part, size: int | None, opener: Opener) -> Generator[tuple[int, int], None, None]:
    """Download all that a part lacks, over as many connections as that takes while they bring something.

    Yields as `fetch` does.
    """
    misses = best = 0
    while True:
        best = max(best, part.size)  # a part may have to be begun anew
        try:
            yield from part.receive(opener, size)
            return
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            misses = 0 if part.size > best else misses + 1
            if misses >= TRIES:
                raise Unavailable(
                    "weights.broken_off",
                    host=part.host,
                    megabytes=part.size / 1e6,
                    reason=one_line(reason_of(error)),
                ) from error
            time.sleep(0.2 * misses)


def check_address(url: str) -> None:
    """BadInput for an address that is neither https nor http on 127.0.0.1."""
    parts = urlsplit(url)
    if not (parts.scheme == "https" and parts.hostname) and not (
        parts.scheme == "http" and parts.hostname == "127.0.0.1"
    ):
        raise BadInput("weights.not_https", url=url[:80])


class _Part:
    """A download that is not complete: path.part, and path.part.json, which identifies the file on the server.

    A part that was begun at another of the `addresses`, which are those of one file, is continued.
    """

    def __init__(self, url: str, path: Path, addresses: Sequence[str]):
        self.url, self.path, self.host = url, path, urlsplit(url).hostname
        self.addresses = addresses
        self.continued = False  # whether bytes of an earlier connection are in it
        self.file = path.with_name(path.name + ".part")
        self.note = path.with_name(path.name + ".part.json")

    @property
    def size(self) -> int:
        """The number of bytes that have been downloaded."""
        return self.file.stat().st_size if self.file.is_file() else 0

    def drop(self) -> None:
        """Delete both files."""
        for file in (self.file, self.note):
            with suppress(FileNotFoundError):
                file.unlink()

    def receive(self, opener: Opener, size: int | None) -> Generator[tuple[int, int], None, None]:
        """Download the rest over one connection; yields as `fetch` does. ConnectionError when the connection breaks.

        Unavailable when the server refuses, cannot be reached, or sends another file; CannotSave when the disk fails.
        """
        begin, validators = self._known()
        self.continued |= begin > 0
        if begin and begin == (size or validators.get("total")):
            return  # it was closed after its last byte
        request = urllib.request.Request(
            self.url, headers={"User-Agent": "Atelier", "Accept-Encoding": "identity"}
        )
        if token := token_for(self.url):
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        if begin:
            request.add_header("Range", f"bytes={begin}-")
            if validators.get("etag") not in (None, ANY):
                request.add_header("If-Range", validators["etag"])
        try:
            answer = opener(request, TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code == 416 and begin:  # there is no more, or the server has another file now
                if begin == validators.get("total"):
                    return
                self.drop()
                raise ConnectionError("the file on the server changed") from error
            raise _refusal(error.code, self.path.name, self.host) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, (ConnectionError, TimeoutError)) and begin:
                raise ConnectionError(one_line(reason_of(error.reason))) from error
            raise Unavailable(
                "weights.unreachable",
                host=self.host,
                reason=one_line(reason_of(error.reason)),
                file=self.path.name,
            ) from error
        with answer:
            try:
                now, start = _offer(answer, self.path.name, self.host)
            except ConnectionError:  # it cannot go on, so it is asked for all of it
                self.drop()
                raise
            if start != begin or (begin and not _same(now, validators)):
                self.drop()  # another file, or a server that cannot go on
                if start:
                    raise ConnectionError("the server sent another part than it was asked for")
            # An answer in chunks marks its own end, so that it needs no length.
            total = self._total(now, size, needed=not getattr(answer, "chunked", False))
            self._room((total or 0) - start)
            yield from self._write(answer, now, total)
        if total is not None and self.size > total:
            self.drop()
            raise Unavailable("weights.sent_too_much", host=self.host, total=total, file=self.path.name)
        if total is not None and self.size < total:
            raise ConnectionError("it ended too early")

    def _write(
        self, answer: Any, offer: dict[str, Any], total: int | None
    ) -> Generator[tuple[int, int], None, None]:
        """Append the answer's bytes to the part, at most one block more than `total`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.note, json.dumps({"url": self.url, **offer}).encode())
            with open(self.file, "ab", buffering=0) as file:
                yield self.size, self.size if total is None else total
                while (total is None or self.size <= total) and (block := _block(answer)):
                    if total is None:
                        self._room(len(block))
                    file.write(block)
                    yield self.size, self.size if total is None else total
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            raise cannot_save(self.path, error) from error

    def _known(self) -> tuple[int, dict[str, Any]]:
        """The number of bytes that are there, and the note on their file. A part of another file is deleted."""
        try:
            note = json.loads(self.note.read_text("utf-8"))
            begun_at = note.pop("url")
            if begun_at in self.addresses and self.size:
                if begun_at != self.url:
                    note["etag"] = ANY  # each server has its own
                return self.size, note
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            pass
        self.drop()
        return 0, {}

    def _total(self, offer: dict[str, Any], size: int | None, needed: bool) -> int | None:
        total = offer["total"]
        if total is None:
            total = size
        if total is None and needed:
            raise Unavailable("weights.size_unknown", host=self.host, file=self.path.name)
        if size is not None and total != size:
            raise Unavailable(
                "weights.wrong_size", host=self.host, file=self.path.name, total=total, expected=size
            )
        return total

    def _room(self, needed: int) -> None:
        folder = next(parent for parent in self.path.absolute().parents if parent.is_dir())
        free = shutil.disk_usage(folder).free
        if needed + SPARE > free:
            raise BadInput("weights.disk_too_full", file=self.path.name, needed=needed / 1e6, free=free / 1e6)


def token_for(url: str) -> str:
    """The user's own token of the Hub, from HF_TOKEN, for files behind a licence; "" without one and for other servers.

    It is not sent to where the Hub redirects.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    at_hub = urlsplit(url).scheme == "https" and urlsplit(url).hostname == TOKEN_HOST
    return token if at_hub and token.isascii() and token.isprintable() else ""


def _block(answer: Any) -> bytes:
    """The next bytes of an answer. ConnectionError for every OSError, to tell it from an error of the disk."""
    try:
        return answer.read(BLOCK)
    except OSError as error:
        raise ConnectionError(one_line(reason_of(error))) from error


def _same(offer: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a server's offer is the file of which a part is there, as far as both tell."""
    totals = {offer["total"], before.get("total")} - {None}
    return len(totals) < 2 and before.get("etag") in (offer["etag"], ANY)


def _offer(answer: Any, file: str, host: str | None) -> tuple[dict[str, Any], int]:
    """{"etag", "total"} of the whole file that the server offers, and the byte at which this answer begins.

    Unavailable when the server packed the file, though it was asked not to.
    """
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Unavailable("weights.sent_packed", host=host, file=file)
    etag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    etag = None if etag and etag.startswith("W/") else etag  # a weak one does not promise equal bytes
    if answer.status == 206:
        with suppress(ValueError):
            span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            whole = None if total == "*" else int(total)
            return {"etag": etag, "total": whole}, int(span.partition("-")[0])
        raise ConnectionError("the server does not say which part it sends")
    length = answer.headers.get("Content-Length")
    return {"etag": etag, "total": int(length) if length and length.isdecimal() else None}, 0


def _refusal(status: int, file: str, host: str | None) -> Unavailable:
    """What an HTTP status means."""
    if status in (404, 410):
        return Unavailable("weights.gone", host=host, file=file, status=status)
    if status in (401, 403):
        return Unavailable("weights.not_for_everybody", host=host, file=file, status=status)
    return Unavailable("weights.not_sent", host=host, file=file, status=status)


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to https, or from this machine to itself."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request that follows a redirect to `newurl`. BadInput when that is neither https nor this machine."""
        parts = urlsplit(newurl)
        local = parts.scheme == "http" and parts.hostname == "127.0.0.1" == urlsplit(req.full_url).hostname
        if parts.scheme != "https" and not local:
            raise Unavailable(
                "weights.redirect_not_https", host=urlsplit(req.full_url).hostname, url=newurl[:80]
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request, timeout: float) -> Any:
    return urllib.request.build_opener(_OnlyHttps).open(request, timeout=timeout)
