"""Who is asking: a secret in a cookie that the server gives, or the page's own where cookies are refused."""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from gradio.context import LocalContext
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.owners import SECRET, home_of, owner_of
from app.serving import Serving
from app.ui.door import STARTING, cookie

COOKIE, HEADER, QUERY = "atelier_visitor", "x-atelier-visitor", "visitor"
DAYS = 400  # what browsers keep a cookie for, at most


@dataclass(frozen=True)
class Visit:
    """Who sends one request. `given` tells how he is known: "cookie", "told" by the page, or "" for the first time."""

    secret: str
    given: str


_now: ContextVar[Visit | None] = ContextVar("visit", default=None)
_address: ContextVar[str] = ContextVar("address", default="")


class Callers:
    """ASGI middleware: notes the network address of each request, as the door knows it."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == STARTING:  # as in Visits
            await self.app(scope, receive, send)
            return
        token = _address.set(scope["client"][0] if scope.get("client") else "")
        try:
            await self.app(scope, receive, send)
        finally:
            _address.reset(token)


def calling() -> str:
    """The network address of whoever asks; "" when nobody does."""
    event = getattr(LocalContext.request.get(None), "request", None)
    client = getattr(event, "client", None)
    return client.host if client else _address.get()


class Visits:
    """ASGI middleware: notes who sends each request, and gives a cookie to whom it does not know yet."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self.app, self.serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # the queue is started by one request and lives in its context ever after: it must not take everybody for that one
        if scope["type"] != "http" or scope["path"] == STARTING:
            await self.app(scope, receive, send)
            return
        visit = visit_of(Request(scope))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start" and not visit.given:
                header = cookie(COOKIE, visit.secret, scope, self.serving, DAYS)
                MutableHeaders(scope=message).append("Set-Cookie", header)
            await send(message)

        token = _now.set(visit)
        try:
            # in the scope too: what waits in Gradio's queue runs in another context, but keeps its request
            await self.app({**scope, "atelier.visit": visit}, receive, marked)
        finally:
            _now.reset(token)


def visit_of(request: Request) -> Visit:
    """By the cookie, by what the page's script tells, or by a new secret."""
    if SECRET.fullmatch(secret := request.cookies.get(COOKIE, "")):
        return Visit(secret, "cookie")
    page_secret = request.headers.get(HEADER) or request.query_params.get(QUERY) or ""
    if SECRET.fullmatch(page_secret):
        return Visit(page_secret, "told")
    return Visit(secrets.token_urlsafe(24), "")


def visit() -> Visit | None:
    """Whose request this code answers; None when it answers none."""
    event = getattr(LocalContext.request.get(None), "request", None)
    return event.scope.get("atelier.visit") if event is not None else _now.get()


def asking() -> str:
    """The owner, as things are kept under; a name that owns nothing when nobody asks."""
    visitor = visit()
    return owner_of(visitor.secret if visitor else secrets.token_urlsafe(24))


@dataclass(frozen=True)
class House:
    """The outputs folder, in which each visitor has a room of his own when they are `apart`."""

    folder: Path
    apart: bool

    def home(self) -> Path:
        """The folder of whoever asks."""
        return home_of(self.folder, asking()) if self.apart else self.folder

    def key(self) -> str:
        """What an address needs besides, so that a program which keeps no cookies can fetch what it was just told of."""
        visitor = visit() if self.apart else None
        return f"?{QUERY}={visitor.secret}" if visitor and not visitor.given else ""

    def routes(self) -> list[Route]:
        """/visitor, which tells the page's script whether its cookie came along."""

        def answer(_: Request) -> JSONResponse:
            visitor = visit()
            known = visitor is not None and visitor.given == "cookie"
            return JSONResponse({"cookie": known}, headers={"Cache-Control": "no-store"})

        return [Route("/visitor", answer)] if self.apart else []
