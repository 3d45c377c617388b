"""Other sites' pages: what they send is refused, and no answer is shown inside them or taken for what it is not."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.serving import ANY, Serving, host_name
from app.ui.door import in_both

READING = ("GET", "HEAD", "OPTIONS")
ELSEWHERE = (
    "cross-site",
    "same-site",
)  # what browsers say of a page's site; the second: another port of this machine
SPACE_FRAMES = "https://huggingface.co https://*.huggingface.co"  # whose pages show a Space


class Origins:
    """ASGI middleware: a request that changes something must come from this page, or from a program.

    Browsers name the page's origin with every POST and every socket; programs name none. All answers get the headers
    that keep them out of other pages.
    """

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self.app, self.serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                guard(MutableHeaders(scope=message), self.serving)
            await send(message)

        socket = scope["type"] == "websocket"
        headers = Headers(scope=scope)
        changing = socket or scope["method"] not in READING
        if (changing and not is_own(headers, self.serving)) or self._is_looked_into(scope, headers):
            if socket:
                await send({"type": "websocket.close", "code": 1008})
                return
            sentence = in_both("foreign_page", origin=headers.get("origin", "?")[:120])
            answer = JSONResponse({"error": sentence, "detail": sentence}, 403)
            await answer(scope, receive, guarded)
        else:
            await self.app(scope, receive, guarded)

    def _is_looked_into(self, scope: Scope, headers: Headers) -> bool:
        """Whether another site's page reads from here. It may link to the page, and that is all.

        Of Gradio's API some addresses do something when they are read, so they are no aims of links.
        """
        if headers.get("sec-fetch-site") not in ELSEWHERE or self.serving.space:
            return False
        return headers.get("sec-fetch-mode", "navigate") != "navigate" or "/gradio_api/" in scope["path"]


def is_own(headers: Headers, serving: Serving) -> bool:
    """Whether a request comes from this page, or from no page at all.

    A browser that names no origin may name the page. A proxy may hide under which name the browser knows the page: then
    the names that are answered count.
    """
    site, told = headers.get("sec-fetch-site"), headers.get("origin", headers.get("referer") or None)
    if site == "same-origin" or (told is None and site not in ELSEWHERE):
        return True
    try:
        origin = urlsplit(told or "")
    except ValueError:
        return False
    if origin.scheme not in ("http", "https") or not origin.netloc:
        return False  # "null" is a page that hides where it is from
    names = {headers.get("host", ""), urlsplit(serving.root).netloc, serving.space_host}
    if serving.proxied:
        names.add(headers.get("x-forwarded-host", "").split(",")[0].strip())
        if ANY not in serving.names and host_name(origin.netloc) in serving.names:
            return True
    return origin.netloc.lower() in {name.lower() for name in names - {""}}


def guard(headers: MutableHeaders, serving: Serving) -> None:
    """Add what every answer says: its type is what it says, it is shown in no other page, and addresses stay here."""
    frames = f"'self' {SPACE_FRAMES}" if serving.space else "'self'"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
    headers.append("Content-Security-Policy", f"frame-ancestors {frames}")
    if not serving.space:
        headers["X-Frame-Options"] = "SAMEORIGIN"
