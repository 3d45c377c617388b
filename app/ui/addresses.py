"""No address is fetched for a caller: pictures come as uploads or as data URIs.

Gradio would fetch the address inside its own form of a file, {"path": "http://...", "meta": ...}, and the one in
"file=http://...", before any of our code sees them. They are refused at the door, without looking any name up.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import gradio.processing_utils
import safehttpx
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.serving import Serving
from app.ui.door import in_both
from pipelines.errors import BadInput

MAX_BODY_BYTES = 64_000_000  # of a call's JSON; uploads, which are larger, are no JSON
MAX_VALUES = 500_000  # of a call's JSON, which take many times their bytes when they are read
NO_BODY = ("GET", "HEAD", "OPTIONS")
# a scheme that names another machine or a file of this one, any scheme with slashes, or slashes alone
ADDRESS = re.compile(
    r"[\s\x00-\x20]*(?:(?:https?|ftps?|file|wss?|gopher):|[a-z][a-z0-9+.-]*://|[/\\]{2})", re.IGNORECASE
)
FETCHED = re.compile(r"/gradio_api/(?:file[=/]|proxy=)(.*)", re.DOTALL)


class NoAddresses:
    """ASGI middleware: calls that would have Gradio fetch an address are answered with a sentence."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self.app, self.serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, sentence = 400, ""
        headers = Headers(scope=scope)
        asked = FETCHED.search(unquote(scope["path"]))
        if asked and (is_address(asked[1]) or "/proxy=" in asked[0]):
            sentence = "no_address"
        elif scope["method"] not in NO_BODY and not is_upload(headers):
            body = await _read(receive)
            if body is None:
                status, sentence = 413, "too_long"
            elif _values(body) > MAX_VALUES:
                status, sentence = 413, "too_many_values"
            elif names_address(body, _own(headers, self.serving)):
                sentence = "no_address"
            else:
                receive = _again(body, receive)
        if sentence:
            message = in_both(sentence, megabytes=MAX_BODY_BYTES // 1_000_000, most=MAX_VALUES)
            await JSONResponse({"error": message, "detail": message}, status)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_address(text: str) -> bool:
    """Whether a text names something to be fetched. Data URIs and paths of uploads do not."""
    return ADDRESS.match(text) is not None


def names_address(body: bytes, own: set[str]) -> bool:
    """Whether a form of a file, anywhere in a JSON text, has an address in the place of its path.

    Beside the path of an upload the page also tells the upload's address here, under one of the names `own`.
    What is no JSON is left to Gradio, which refuses it.
    """
    try:
        pending: list[Any] = [json.loads(body)] if body.strip() else []
    except RecursionError:
        return True
    except ValueError:
        return False
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            pending += node.values()
            path, url = (
                value if isinstance(value := node.get(name), str) else "" for name in ("path", "url")
            )
            if is_address(path) or (is_address(url) and not (path and _is_own(url, path, own))):
                return True
    return False


def _is_own(url: str, path: str, own: set[str]) -> bool:
    """Whether an address is that of an upload here."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.netloc in own and unquote(parts.path).endswith(f"/gradio_api/file={unquote(path)}")


def _own(headers: Headers, serving: Serving) -> set[str]:
    """Host and port under which the caller knows this page."""
    names = {headers.get("host", ""), urlsplit(serving.root).netloc}
    if serving.proxied:
        names.add(headers.get("x-forwarded-host", "").split(",")[0].strip())
    return names - {""}


def is_upload(headers: Headers) -> bool:
    """Whether a request brings files: they are read in parts, and `UploadLimits` counts them."""
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None when it is too long."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the caller went away
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            break
    return b"".join(parts)


def _values(body: bytes) -> int:
    """How many values a JSON text has, at most."""
    return sum(body.count(mark) for mark in (b",", b"[", b"{"))


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` that gives a body which has been read already, then what comes after it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return pending.pop() if pending else await receive()

    return give


def forbid_fetching() -> None:
    """The last guard: what Gradio fetches with cannot call out any more, whoever asks for it."""

    async def refuse(*_: Any, **__: Any) -> NoReturn:
        raise BadInput("app.no_fetching")

    def refuse_now(*_: Any, **__: Any) -> NoReturn:
        raise BadInput("app.no_fetching")

    for name in ("async_ssrf_protected_get", "async_ssrf_protected_download"):
        setattr(gradio.processing_utils, name, refuse)
    for name in ("unsafe_download", "ssrf_protected_download", "save_url_to_cache"):
        setattr(gradio.processing_utils, name, refuse_now)
    for name in ("get", "async_validate_url"):
        setattr(safehttpx, name, refuse)
