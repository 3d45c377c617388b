"""Behind a proxy under a path: pictures, films, directions, downloads and live updates all find their way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from app.jobs.queue import JobQueue
from app.library import Library
from app.serving import serving_of
from tests.support.browser import ask, wait_state
from tests.support.painter import PAINTERS, PainterStudio

PATH = "/some/studio"


class Proxy:
    """A small reverse proxy that serves one site under PATH, which it takes off; everything else is 404."""

    def __init__(self, target: str) -> None:
        self.client = httpx.AsyncClient(base_url=target, timeout=60)
        methods = ["GET", "POST", "HEAD"]
        app = Starlette(routes=[Route("/{rest:path}", self.answer, methods=methods)])
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.origin = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        self.strayed: list[str] = []

    async def answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode()
        if not path.startswith(PATH + "/"):
            self.strayed.append(path)
            return PlainTextResponse("not here", 404)
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        headers |= {"x-forwarded-host": request.headers["host"], "x-forwarded-proto": "http"}
        query = request.url.query
        sent = self.client.build_request(
            request.method,
            path.removeprefix(PATH) + (f"?{query}" if query else ""),
            headers=headers,
            content=await request.body(),
        )
        got = await self.client.send(sent, stream=True)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for part in got.aiter_raw():
                    yield part
            finally:
                await got.aclose()

        answer = StreamingResponse(body(), got.status_code)
        answer.raw_headers = [one for one in got.headers.raw if one[0].lower() != b"transfer-encoding"]
        return answer

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Proxy, str, JobQueue]]:
    from app.ui import page

    studio = PainterStudio()
    serving = serving_of(root_path=PATH, environment={})
    queue = JobQueue(studio, tmp_path / "outputs", PAINTERS)
    blocks = page.build(studio, queue, Library(queue.folder), serving=serving)
    _, url = page.launch(blocks)
    proxy = Proxy(url)
    yield proxy, serving.secret, queue
    proxy.close()
    blocks.close(verbose=False)
    queue.close()


@pytest.mark.browser
def test_everything_works_behind_a_proxy_under_a_path(
    site: tuple[Proxy, str, JobQueue], chromium: Any
) -> None:
    proxy, token, queue = site
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    problems: list[str] = []
    try:
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.on(
            "response", lambda one: problems.append(f"{one.status} {one.url}") if one.status >= 400 else None
        )
        tab.on("pageerror", lambda error: problems.append(str(error)))
        assert httpx.get(f"{proxy.origin}{PATH}/").status_code == 401
        tab.goto(f"{proxy.origin}{PATH}/?token={token}", wait_until="domcontentloaded")
        tab.locator("#stage section").wait_for()
        assert tab.url == f"{proxy.origin}{PATH}/"
        assert tab.locator("#stage [data-act=example] img").first.evaluate(
            "image => image.decode().then(() => true)"
        )
        ask(tab, "a slow red heart")
        wait_state(tab, "running")
        wait_state(tab, "done")
        assert tab.locator("#stage figure img").first.evaluate("image => image.decode().then(() => true)")
        with tab.expect_download() as download:
            tab.locator("#stage figure:not([hidden]) a[download]").first.click()
        assert Path(download.value.path()).read_bytes()[:4] == b"\x89PNG"

        tab.locator(
            "#stage figure:not([hidden]) [data-act=optimize]"
        ).click()  # a run, its film and a look back
        tab.locator("#canvas .ready").wait_for()
        tab.locator("#opt-steps input").fill("40")
        tab.locator("#optimize-buttons [data-act=start]").click()
        tab.locator("#canvas section.done").wait_for()
        job = tab.locator("#canvas section").get_attribute("data-job")
        tab.locator("#timeline .tick").first.click()
        tab.wait_for_function("() => document.querySelector('#canvas img.glimpse')?.naturalWidth > 0")
        with tab.expect_download() as download:
            tab.locator("#canvas figure:not([hidden]) a[href$='.webp']").click()
        assert (
            job in download.value.suggested_filename
            and Path(download.value.path()).read_bytes()[:4] == b"RIFF"
        )
        picture = Path(queue.job(job).pictures[0]["path"])
        tab.locator("#tab-generate-button").click()
        tab.locator("#drop input[type=file]").set_input_files(picture)  # an upload
        tab.locator("#note", has_text="optimize").wait_for()
        assert not problems, problems
        assert set(proxy.strayed) <= {"/favicon.ico"}, proxy.strayed  # which browsers ask for by themselves
    finally:
        context.close()


def test_a_program_streams_behind_a_proxy(site: tuple[Proxy, str, JobQueue]) -> None:
    from gradio_client import Client

    proxy, token, queue = site
    client = Client(f"{proxy.origin}{PATH}/", headers={"Authorization": f"Bearer {token}"}, verbose=False)
    best, made = client.predict(prompt="a cup", candidates=2, keep=1, api_name="/generate")
    assert Path(best).read_bytes()[:4] == b"\x89PNG"  # streamed through the proxy
    picture = Path(queue.job(made["job"]).pictures[0]["path"])
    address = f"{proxy.origin}{PATH}/picture/{picture.parent.name}/{picture.name}"
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(address, headers=headers, cookies=client.cookies).content[:4] == b"\x89PNG"
    assert httpx.get(address, headers=headers).status_code == 404  # another visitor
    assert httpx.get(address).status_code == 401


def test_the_page_opens_whatever_proxy_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.ui import page

    named = {
        "http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "nonsense://proxy", "ALL_PROXY": "socks5://127.0.0.1:9",
        "all_proxy": "127.0.0.1:9", "NO_PROXY": "example.org", "SSL_CERT_FILE": str(tmp_path / "gone.pem"),
    }  # fmt: skip
    monkeypatch.delenv("no_proxy", raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    queue = JobQueue(PainterStudio(), tmp_path / "outputs", PAINTERS)
    blocks = page.build(PainterStudio(), queue, Library(queue.folder))
    try:
        _, url = page.launch(blocks)
        assert {name: os.environ.get(name) for name in named} == named and "no_proxy" not in os.environ
        with httpx.Client(trust_env=False) as direct:
            assert direct.get(url).status_code == 200
    finally:
        blocks.close(verbose=False)
        queue.close()
