"""The door: which names are answered, whose word on where a request came from is believed, and who may come in."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from html import escape
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.serving import Serving, host_name
from app.ui import theme
from app.ui.i18n import LANGUAGES, say

STARTING = "/gradio_api/startup-events"  # Gradio asks this of itself before anybody has come
ENTER = "/enter"  # where the page that asks for the password sends it
MOST_WRONG, MOST_WRONG_OF_ALL, WRONG_SECONDS = 5, 60, 60.0  # tries of one address, and of all together
MAX_FORM_BYTES = 4096
FORWARDED = ("x-forwarded-", "forwarded", "x-real-ip")  # beginnings of headers that a proxy writes
UNSAFE = b"x-gradio-server"  # Gradio would take any caller's word for its own address


class Door:
    """ASGI middleware before everything else. It keeps nothing of those who come in but their wrong tries."""

    def __init__(self, app: ASGIApp, serving: Serving, clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self.serving = app, serving
        self._key = secrets.token_urlsafe(32)  # what the cookie holds; another one at each start
        self._cookie = f"atelier_door_{serving.port or 0}"  # browsers keep one jar for all ports
        self._tries = Tries(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        scope = forwarded(scope, self.serving)
        request = Request({**scope, "type": "http"}, receive)
        refusal = self._name(request) or await self._entry(request)
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    def _name(self, request: Request) -> Response | None:
        """A sentence when the studio is called by a name that is not its own."""
        called = [request.headers.get("host", "")]
        if self.serving.proxied and (by_proxy := request.headers.get("x-forwarded-host")):
            called.append(by_proxy.split(",")[0])
        for host in called:
            if not self.serving.answers(host):
                return PlainTextResponse(in_both("door_name", name=host[:120] or "?"), 400)
        return None

    async def _entry(self, request: Request) -> Response | None:
        """None for those who may come in, else what they get instead."""
        serving = self.serving
        if serving.protection == "none" or same(request.cookies.get(self._cookie, ""), self._key):
            return None
        path = request.scope["path"]
        if path == STARTING:
            return None
        scheme, _, word = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._try(request, word.strip())
        if serving.protection == "token":
            token = request.query_params.get("token", "")
            return self._welcome(request) if token and same(token, serving.secret) else page("door_link")
        if request.scope.get("method") == "POST" and path == ENTER:
            refusal = self._try(request, await _password(request))
            return refusal or self._welcome(request)
        return page("door_ask", form=serving.path + ENTER)

    def _try(self, request: Request, word: str) -> Response | None:
        """None when it is the right word; after too many wrong ones no word is."""
        who = request.client.host if request.client else ""
        form = self.serving.path + ENTER if self.serving.protection == "password" else ""
        if not self._tries.may(who):
            return page("door_wait", form=form, status=429)
        if same(word, self.serving.secret):
            return None
        self._tries.note(who)
        return page("door_wrong" if form else "door_link", form=form)

    def _welcome(self, request: Request) -> Response:
        """The cookie, and the way on without the token in the address."""
        path = "/" if request.scope["path"] == ENTER else "/" + request.scope["path"].lstrip("/")
        query = parse_qsl(request.scope["query_string"].decode("latin-1"))
        kept = urlencode([(name, value) for name, value in query if name != "token"])
        answer = RedirectResponse(self.serving.path + quote(path) + (f"?{kept}" if kept else ""), 303)
        answer.headers["Set-Cookie"] = cookie(self._cookie, self._key, request.scope, self.serving)
        answer.headers["Cache-Control"] = "no-store"
        return answer


class Tries:
    """Wrong tries of the last minute: so many of one address, and of all together, and none is heard any more."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: deque[tuple[float, str]] = deque(maxlen=MOST_WRONG_OF_ALL)

    def may(self, who: str) -> bool:
        since = self._clock() - WRONG_SECONDS
        recent = [address for when, address in self._wrong if when > since]
        return recent.count(who) < MOST_WRONG and len(recent) < MOST_WRONG_OF_ALL

    def note(self, who: str) -> None:
        self._wrong.append((self._clock(), who))


def forwarded(scope: Scope, serving: Serving) -> Scope:
    """The request as its sender made it: what a proxy says of it is believed only where there is one.

    The path loses the part that the proxy serves the page under, where it did not take that off itself.
    """
    headers = [(name, value) for name, value in scope["headers"] if name != UNSAFE]
    if not serving.proxied:
        kept = [header for header in headers if not header[0].decode("latin-1").startswith(FORWARDED)]
        return {**scope, "headers": kept}
    scope = {**scope, "headers": headers}
    fields = Headers(raw=headers)
    if fields.get("x-forwarded-proto", "").split(",")[0].strip() == "https":
        scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"
    said = ",".join(fields.getlist("x-forwarded-for"))  # some proxies add a line of their own
    if sender := host_name(said.split(",")[-1]):  # the last is our own proxy's word, with some its port too
        scope["client"] = (sender, 0)
    if serving.path and scope["path"].startswith(serving.path + "/"):
        scope["path"] = scope["path"][len(serving.path) :]
        scope["raw_path"] = quote(scope["path"]).encode("ascii")
    return scope


def cookie(name: str, value: str, scope: Scope, serving: Serving, days: int = 0) -> str:
    """A Set-Cookie header that no script can read; it ends with the browser unless `days` are given.

    A Space is shown inside another site's page, where only such a cookie is kept as is meant for that.
    """
    parts = [f"{name}={value}", f"Path={serving.path or '/'}", "HttpOnly"]
    parts += [f"Max-Age={days * 86_400}"] if days else []
    if serving.space:
        parts += ["SameSite=None", "Secure", "Partitioned"]
    else:
        secure = scope["scheme"] in ("https", "wss") or serving.root.startswith("https://")
        parts += ["SameSite=Lax", *(["Secure"] if secure else [])]
    return "; ".join(parts)


def same(secret: str, other: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing of where they differ."""
    return secrets.compare_digest(secret.encode(), other.encode())


def in_both(key: str, **facts: object) -> str:
    """Plain text: the sentence in English, then in Chinese."""
    return " ".join(say(key, language).format(**facts) for language in LANGUAGES)


async def _password(request: Request) -> str:
    """The word that the form sent; empty when there is none."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            return ""
    return parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]


def page(key: str, *, form: str = "", status: int = 401) -> Response:
    """A page of one sentence in both languages; with `form`, where a password is sent, it asks for one."""
    light, dark = ("".join(f"--{name}:{pair[at]};" for name, pair in theme.TOKENS.items()) for at in (0, 1))
    sentence = "".join(
        f'<p lang="{"zh-CN" if language == "zh" else "en"}">{escape(say(key, language))}</p>'
        for language in LANGUAGES
    )
    asked = ""
    if form:
        label, enter = (
            " · ".join(say(word, language) for language in LANGUAGES)
            for word in ("door_password", "door_enter")
        )
        asked = (
            f'<form method="post" action="{escape(form)}"><label for="password">{escape(label)}</label>'
            '<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>'
            f"<button>{escape(enter)}</button></form>"
        )
    trouble = ' class="trouble" role="alert"' if key in ("door_wrong", "door_wait") else ""
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Atelier</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>:root{{{light}color-scheme:light}}@media(prefers-color-scheme:dark){{:root{{{dark}color-scheme:dark}}}}"
        f"{STYLE}</style></head><body><main><h1><i></i>Atelier</h1><div{trouble}>{sentence}</div>{asked}</main></body></html>"
    )
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'",
        "Referrer-Policy": "same-origin",  # with "no-referrer" a browser hides where the form comes from
        "X-Content-Type-Options": "nosniff",
    }
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return HTMLResponse(html, status, headers)


STYLE = """
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:24px;background:var(--paper);color:var(--ink);
font:15px/1.6 system-ui,-apple-system,"Segoe UI","PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif}
main{width:100%;max-width:400px;padding:32px;background:var(--card);border:1px solid var(--line);border-radius:10px;
box-shadow:var(--shadow)}
h1{margin:0 0 24px;font-size:18px;display:flex;align-items:center;gap:8px}
h1 i{width:12px;height:12px;border-radius:50%;background:var(--accent)}
p{margin:0 0 8px}p+p{color:var(--quiet)}.trouble p:first-child{color:var(--accent-text)}
form{display:grid;gap:8px;margin-top:24px}label{font-size:13px;color:var(--quiet)}
input,button{font:inherit;min-height:40px;border-radius:10px;padding:8px 12px}
input{width:100%;background:var(--card);color:var(--ink);border:1px solid var(--edge)}
button{margin-top:8px;border:0;background:var(--accent-fill);color:var(--on-accent);cursor:pointer}
button:hover{background:var(--accent-hover)}
:focus-visible{outline:2px solid var(--focus);outline-offset:2px}
"""
