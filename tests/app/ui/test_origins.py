"""Other sites' pages can neither ask for anything nor show what is answered here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.jobs.queue import JobQueue
from app.serving import LOCAL, Serving, serving_of
from app.ui.door import Door
from app.ui.origins import Origins, is_own
from app.ui.pictures import Pictures

FOREIGN = (
    "https://evil.example",
    "null",
    "http://127.0.0.1:8000",
    "http://127.0.0.1.evil.example:7860",
    "file://",
    "",
)


def of(environment: dict[str, str] | None = None, **flags: Any) -> Serving:
    return serving_of(environment=environment or {}, **flags)


def site(serving: Serving, host: str) -> TestClient:
    async def told(request: Request) -> PlainTextResponse:
        return PlainTextResponse("done")

    async def socket_of(websocket: Any) -> None:
        await websocket.accept()
        await websocket.close()

    routes = [
        WebSocketRoute("/socket", socket_of),
        Route("/{rest:path}", told, methods=["GET", "POST", "DELETE"]),
    ]
    guards = [Middleware(guard, serving=serving) for guard in (Origins, Door)]  # type: ignore[arg-type]
    return TestClient(Starlette(routes=routes, middleware=guards), base_url=f"http://{host}")


@pytest.mark.parametrize("origin", FOREIGN)
def test_what_another_page_sends_is_refused(origin: str) -> None:
    page = site(LOCAL, "127.0.0.1:7860")
    for method in ("POST", "DELETE"):
        refused = page.request(method, "/gradio_api/upload", headers={"Origin": origin})
        assert refused.status_code == 403 and "not this studio's" in refused.json()["error"]
    with (
        pytest.raises(WebSocketDisconnect),
        page.websocket_connect("ws://127.0.0.1:7860/socket", headers={"Origin": origin}),
    ):
        pass
    assert page.get("/", headers={"Origin": origin}).status_code == 200


@pytest.mark.parametrize("site_of", ["cross-site", "same-site"])  # the second is another port of this machine
def test_gradios_api_is_not_even_read_by_another_page(site_of: str) -> None:
    page, cross = site(LOCAL, "127.0.0.1:7860"), {"Sec-Fetch-Site": site_of}
    assert page.get("/gradio_api/deep_link", headers=cross).status_code == 403
    assert page.get("/?r=abc", headers=cross).status_code == 200  # a link to the page itself
    link, shown = ({**cross, "Sec-Fetch-Mode": mode} for mode in ("navigate", "no-cors"))
    assert page.get("/?r=abc", headers=link).status_code == 200
    assert page.get("/picture/a.png", headers=shown).status_code == 403  # as a picture of that page
    assert page.get("/gradio_api/deep_link", headers=link).status_code == 403
    assert page.post("/stop/a", headers=cross).status_code == 403  # no origin is named
    assert page.get("/gradio_api/deep_link", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_the_page_itself_and_programs_are_answered() -> None:
    page = site(LOCAL, "127.0.0.1:7860")
    assert page.post("/a").status_code == 200
    assert page.post("/a", headers={"Referer": "http://127.0.0.1:7860/?r=a"}).status_code == 200
    assert page.post("/a", headers={"Referer": "https://evil.example/127.0.0.1:7860"}).status_code == 403
    assert page.post("/a", headers={"Origin": "http://127.0.0.1:7860"}).status_code == 200
    with page.websocket_connect("ws://127.0.0.1:7860/socket", headers={"Origin": "http://127.0.0.1:7860"}):
        pass


def test_behind_a_proxy_the_browsers_name_of_the_page_counts() -> None:
    whole, path = (
        of(root_path="https://example.org/studio", open_to_all=True),
        of(root_path="/studio", allow_host=["a.example"]),
    )
    space = of({"SPACE_ID": "somebody/atelier", "SPACE_HOST": "somebody-atelier.hf.space"})
    inside = {"host": "127.0.0.1:7860"}
    good = [
        (whole, {**inside, "origin": "https://example.org"}),
        (path, {**inside, "origin": "https://a.example"}),
        (path, {**inside, "origin": "https://b.example", "x-forwarded-host": "b.example"}),
        (path, {**inside, "origin": "https://b.example", "sec-fetch-site": "same-origin"}),
        (space, {"host": "somebody-atelier.hf.space", "origin": "https://somebody-atelier.hf.space"}),
    ]
    bad = [
        (whole, {**inside, "origin": "https://example.com"}),
        (path, {**inside, "origin": "https://evil.example", "x-forwarded-host": "a.example"}),
        (LOCAL, {**inside, "origin": "https://evil.example", "x-forwarded-host": "evil.example"}),
        (space, {"host": "somebody-atelier.hf.space", "origin": "https://evil.hf.space"}),
    ]
    assert all(is_own(Headers(headers), serving) for serving, headers in good)
    assert not any(is_own(Headers(headers), serving) for serving, headers in bad)


@pytest.mark.parametrize(
    "serving", [LOCAL, of(allow_host=["127.0.0.1"], password="x"), of({"SPACE_ID": "a/b"})]
)
def test_every_answer_keeps_out_of_other_pages(serving: Serving) -> None:
    for path in ("/", "/config", "/picture/a.png"):
        answer = site(serving, "127.0.0.1:7860").get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        frames = next(
            one for one in answer.headers.get_list("content-security-policy") if "frame-ancestors" in one
        )
        assert ("https://huggingface.co" in frames) == bool(serving.space) and "'self'" in frames


def test_a_file_that_only_says_it_is_a_picture_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"<html><script>alert(1)</script>")
    (tmp_path / "b.png").write_bytes(b"")
    app = Starlette(routes=[Mount("/", routes=Pictures(lambda: tmp_path, tmp_path).routes())])
    for address in ("/picture/a.png", "/example/a.png", "/picture/b.png", "/picture/a.png?download=bare"):
        answer = TestClient(app).get(address)
        assert answer.status_code == 404 and "html" not in answer.headers["content-type"]


def test_the_served_page_refuses_calls_and_uploads_of_other_pages(studio: tuple[str, JobQueue]) -> None:
    url, _ = studio
    calls: list[tuple[str, dict[str, Any]]] = [
        ("gradio_api/queue/join", {"json": {"data": [], "fn_index": 0, "session_hash": "s"}}),
        ("gradio_api/upload", {"files": {"files": ("a.png", b"x")}}),
    ]
    for path, body in calls:
        refused = httpx.post(url + path, headers={"Origin": "https://evil.example"}, **body)
        assert refused.status_code == 403 and refused.headers["x-content-type-options"] == "nosniff"
    own = httpx.post(
        url + "gradio_api/upload", headers={"Origin": url.rstrip("/")}, files={"files": ("a.png", b"x")}
    )
    assert own.status_code == 200
