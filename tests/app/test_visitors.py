"""Visitors apart: each sees only his own runs, pictures, directions and last prompts, and keeps them over a restart."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from app.jobs.queue import JobQueue
from app.library import Library
from app.serving import Serving, serving_of
from app.ui.visits import COOKIE, HEADER
from pipelines.edit.directions import Direction
from tests.support.browser import ask, keep, wait_state
from tests.support.painter import PAINTERS, PainterStudio

NAME = "studio.example"  # stands for a name by which other machines reach this one


@dataclass
class Beyond:
    """A studio that is served beyond this machine, and everything to serve it anew over the same folder."""

    folder: Path
    serving: Serving
    url: str = ""
    queue: Any = None
    blocks: Any = None
    clients: list[httpx.Client] = field(default_factory=list)

    def start(self) -> Beyond:
        from app.ui import page

        studio = PainterStudio()
        self.queue = JobQueue(studio, self.folder, PAINTERS)
        self.blocks = page.build(studio, self.queue, Library(self.folder), self.folder / "none", self.serving)
        _, self.url = page.launch(self.blocks)
        return self

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()
        self.blocks.close(verbose=False)
        self.queue.close()

    def visitor(self, cookies: dict[str, str] | None = None) -> httpx.Client:
        client = httpx.Client(base_url=self.url, headers={"Host": NAME}, cookies=cookies, timeout=30)
        self.clients.append(client)
        if not cookies:
            client.get("/")
        return client

    def call(self, client: httpx.Client, name: str, *data: Any) -> list[Any]:
        """Call a function of the page as its script does."""
        functions = client.get("/config").json()["dependencies"]
        one = next(each for each in functions if each["api_name"] == name)
        body = {"data": data, "fn_index": one["id"], "session_hash": secrets.token_hex(6)}
        answer = client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def generate(self, client: httpx.Client, prompt: str) -> dict[str, Any]:
        """A run by the endpoint for programs: its answer, and the picture's address on the page."""
        sent = client.post(
            "/gradio_api/call/v2/generate", json={"prompt": prompt, "candidates": 2, "keep": 1}
        )
        with client.stream("GET", f"/gradio_api/call/v2/generate/{sent.json()['event_id']}") as answer:
            text = "".join(answer.iter_text())
        _, made = json.loads(re.search(r"event: complete\ndata: (.*)", text)[1])  # type: ignore[index]
        picture = Path(self.queue.job(made["job"]).pictures[0]["path"])
        return {**made, "address": f"/picture/{picture.parent.name}/{picture.name}"}

    def finished(self, job_id: str) -> Any:
        end = time.monotonic() + 30
        while not (job := self.queue.job(job_id)).is_over:
            assert time.monotonic() < end
            time.sleep(0.02)
        return job


def open_to_all(**more: Any) -> Serving:
    return serving_of(allow_host=[NAME], open_to_all=True, environment={}, **more)


@pytest.fixture
def beyond(tmp_path: Path) -> Iterator[Callable[..., Beyond]]:
    made: list[Beyond] = []

    def start(serving: Serving | None = None) -> Beyond:
        made.append(Beyond(tmp_path / "outputs", serving or open_to_all()).start())
        return made[-1]

    yield start
    for one in made:
        if one.blocks.is_running:
            one.stop()


def routes_of(made: dict[str, Any]) -> list[str]:
    return [made["address"], f"/film/{made['job']}.mp4", f"/glimpse/{made['job']}/1.jpg"]


def test_each_visitor_has_his_own(beyond: Callable[..., Beyond]) -> None:
    site = beyond()
    ann, bob = site.visitor(), site.visitor()
    assert ann.cookies[COOKIE] != bob.cookies[COOKIE] and len(ann.cookies[COOKIE]) >= 32
    made = site.generate(ann, "a red heart")
    address = made["address"]
    picture = ann.get(address)
    assert picture.headers["content-type"] == "image/png"
    unknown = bob.get("/picture/2026-01-31/nothing.png")
    for other in (bob, site.visitor()):
        refused = other.get(address)
        assert refused.status_code == unknown.status_code == 404
        assert (
            refused.text.replace(address.removeprefix("/picture/"), "2026-01-31/nothing.png")[:40]
            == unknown.text[:40]
        )
    assert not list(site.folder.glob("*/*.png")) and list(site.folder.glob("visitors/*/*/*.png"))
    assert ann.cookies[COOKIE] not in str(list(site.folder.rglob("*")))
    assert ann.cookies[COOKIE].encode() not in (site.folder / "jobs.sqlite").read_bytes()

    # jobs: looked at, stopped, resumed and shown as last runs by their owner only
    grown = site.queue.submit(
        "optimize", {"prompt": "a slow tree", "steps": 200}, site.queue.job(made["job"]).session
    )
    for client, seen in ((ann, True), (bob, False)):
        assert ("a red heart" in str(site.call(client, "on_load_2", made["job"], "x" * 32, "", ""))) == seen
        assert ("a slow tree" in str(site.call(client, "on_load_1", grown, "x" * 32, ""))) == seen
    site.call(bob, "stop", grown)
    assert not site.queue._live[grown].stop
    until = time.monotonic() + 30
    while not site.queue.journal(grown).steps() and time.monotonic() < until:
        time.sleep(0.02)
    site.call(ann, "stop", grown)
    site.finished(grown)
    assert ann.get(f"/film/{grown}.mp4").status_code == 200
    mine = bob.get(f"/film/{grown}.mp4")
    never = bob.get(f"/film/{'0' * len(grown)}.mp4")
    assert mine.status_code == never.status_code == 404
    assert mine.text.replace(grown, "") == never.text.replace("0" * len(grown), "")
    assert bob.get(f"/glimpse/{grown}/10.jpg").status_code == 404

    # the library
    for words in ("", "red"):
        mine, others = (each.post("/library/find", json={"text": words}) for each in (ann, bob))
        assert mine.status_code == others.status_code == 200
        assert "a red heart" in mine.text and "a red heart" not in others.text
    assert "a red heart" in str(site.call(ann, "search", "red", 12))  # that for programs
    assert "a red heart" not in str(site.call(bob, "search", "red", 12))


def test_directions_are_their_owners(beyond: Callable[..., Beyond]) -> None:
    site = beyond()
    ann, bob = site.visitor(), site.visitor()
    facts = {
        "source": "a face",
        "target": "an angry face",
        "base": "painter",
        "clip": "painter",
        "mode": "quick",
    }
    facts |= {"rank": 4, "return_step": 400, "updates": 5, "figures": {}}
    direction = Direction({"conv.lora_A.weight": torch.ones(4, 4, dtype=torch.float16)}, facts)
    sent = ann.post("/gradio_api/upload", files={"files": ("a.safetensors", direction.to_bytes())}).json()[0]
    form = {"path": sent, "meta": {"_type": "gradio.FileData"}}
    answer = str(site.call(ann, "set_start_image_1", "", "x" * 32, form, "{}"))
    name = re.search(r"direction/([\w-]+\.safetensors)", answer)[1]  # type: ignore[index]
    assert ann.get(f"/direction/{name}").content == direction.to_bytes()
    assert bob.get(f"/direction/{name}").status_code == 404
    assert "angry face" in str(site.call(ann, "on_load", "", "x" * 32, ""))
    assert "angry face" not in str(site.call(bob, "on_load", "", "x" * 32, ""))


def test_two_hundred_guesses_find_nothing(beyond: Callable[..., Beyond]) -> None:
    site = beyond()
    ann, bob = site.visitor(), site.visitor()
    made = site.generate(ann, "a red heart")
    stamp, _, tail = made["job"].partition("-")
    assert len(tail) * 4 >= 128
    known = routes_of(made)
    for number in range(200):
        guess = f"{stamp}-{secrets.token_hex(16)}" if number % 2 else f"{stamp}-{int(tail, 16) + number:032x}"
        for path in known:
            assert bob.get(path.replace(made["job"], guess)).status_code == 404
    for path in known:  # nor does the very id
        assert bob.get(path).status_code == 404
    for _ in range(200):  # nor a made-up visitor; without verify=False each call would read all certificates
        headers = {"Host": NAME, HEADER: secrets.token_hex(16)}
        assert httpx.get(site.url + known[0][1:], headers=headers, verify=False).status_code == 404


def test_a_restart_keeps_what_is_whose(beyond: Callable[..., Beyond]) -> None:
    site = beyond()
    ann = site.visitor()
    cookies = dict(ann.cookies)
    made = site.generate(ann, "a red heart")
    waiting = site.queue.submit(
        "optimize", {"prompt": "a slow tree", "steps": 400}, site.queue.job(made["job"]).session
    )
    site.stop()
    shutil.rmtree(site.folder / "library", ignore_errors=True)
    site = beyond()
    ann, bob = site.visitor(cookies), site.visitor()
    address = made["address"]
    assert (ann.get(address).status_code, bob.get(address).status_code) == (200, 404)
    assert "a red heart" in str(site.call(ann, "on_load_2", "", "x" * 32, "", ""))
    assert "a red heart" not in str(site.call(bob, "on_load_2", "", "x" * 32, "", ""))
    assert site.queue.job(waiting).session == site.queue.job(made["job"]).session


def test_who_keeps_no_cookies_is_known_by_what_he_tells(beyond: Callable[..., Beyond]) -> None:
    site = beyond()
    told = secrets.token_hex(16)
    page = httpx.Client(base_url=site.url, headers={"Host": NAME, HEADER: told}, timeout=30)
    site.clients.append(page)
    made = site.generate(page, "a red heart")
    address = made["address"]
    assert page.get(address).status_code == 200
    plain = {"Host": NAME}
    assert httpx.get(f"{site.url}{address[1:]}?visitor={told}", headers=plain).status_code == 200
    assert httpx.get(f"{site.url}{address[1:]}?download&visitor={told}", headers=plain).status_code == 200
    assert httpx.get(f"{site.url}{address[1:]}", headers=plain).status_code == 404
    assert httpx.get(f"{site.url}{address[1:]}?visitor=short", headers=plain).status_code == 404
    assert httpx.get(f"{site.url}visitor", headers=plain).json() == {"cookie": False}

    # a program that neither keeps cookies nor tells anything: what it was told of can be fetched
    forgetful = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    program = httpx.Client(base_url=site.url, headers=plain, cookies=forgetful, timeout=30)
    site.clients.append(program)
    made = site.generate(program, "a green cup")
    file = made["pictures"][0]["file"]["path"]
    assert not program.cookies and program.get(f"/gradio_api/file={file}").status_code == 200


def test_a_shared_library_is_everybodys(beyond: Callable[..., Beyond]) -> None:
    site = beyond(open_to_all(shared_library=True))
    ann, bob = site.visitor(), site.visitor()
    made = site.generate(ann, "a red heart")
    assert bob.get(made["address"]).status_code == 200
    assert "a red heart" in bob.post("/library/find", json={}).text
    assert COOKIE not in bob.cookies


@pytest.mark.browser
def test_two_browsers_are_two_visitors(beyond: Callable[..., Beyond], chromium: Any) -> None:
    serving = serving_of(allow_host=[NAME], environment={})
    site = beyond(serving)
    contexts = [chromium.new_context(viewport={"width": 1280, "height": 900}) for _ in range(2)]
    try:
        one, two = (context.new_page() for context in contexts)
        one.goto(site.url)
        assert "private" in one.locator("body").inner_text()
        keep(one, "door-link-1280")
        for tab in (one, two):
            tab.set_default_timeout(30_000)
            tab.goto(f"{site.url}?token={serving.secret}", wait_until="domcontentloaded")
            tab.locator("#stage section").wait_for()
            assert "token" not in tab.url
        assert "whoever has its link" in one.locator("#served").inner_text()
        ask(one, "a violet moth")
        wait_state(one, "done")
        keep(one, "beyond-done-1280")
        address = one.url
        picture = one.locator("#stage figure img").first
        assert picture.evaluate("image => image.naturalWidth") > 0
        ask(two, "a green leaf")
        wait_state(two, "done")
        two.goto(address, wait_until="domcontentloaded")  # a leaked link: as one of a job that never was
        two.locator("#earlier [data-act=open]").wait_for()
        assert "a violet moth" not in two.locator("main").inner_text()
        for tab, own, other in (
            (one, "a violet moth", "a green leaf"),
            (two, "a green leaf", "a violet moth"),
        ):
            tab.locator("#tab-library-button").click()
            tab.locator("#library .shot img").first.wait_for()
            alts = tab.locator("#library .shot img").evaluate_all("all => all.map((one) => one.alt)")
            assert own in alts and other not in alts
            assert other not in tab.locator("main").inner_text()
    finally:
        for context in contexts:
            context.close()


@pytest.fixture
def elsewhere() -> Iterator[Callable[[str], str]]:
    """Serves a page of another site on this machine: its HTML -> its address."""
    said: list[str] = []

    async def answer(_: Request) -> HTMLResponse:
        return HTMLResponse(said[-1])

    config = uvicorn.Config(Starlette(routes=[Route("/", answer)]), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def serve(html: str) -> str:
        said.append(html)
        return f"http://localhost:{port}/"  # browsers take this for another site than 127.0.0.1

    yield serve
    server.should_exit = True
    thread.join(10)


@pytest.mark.browser
def test_a_browser_that_refuses_cookies_still_sees_its_own(
    beyond: Callable[..., Beyond],
    elsewhere: Callable[[str], str],
    chromium: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.ui.origins.guard", lambda *_: None)  # as a Space's frame, any page may hold it
    site = beyond()
    context = chromium.new_context()
    try:
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        # inside another site's page a browser keeps no such cookie
        around = f'<iframe src="{site.url}" style="width:1200px;height:800px"></iframe>'
        tab.goto(elsewhere(around))
        inside = tab.frame_locator("iframe")
        inside.locator("#stage section").wait_for()
        inside.locator("#prompt textarea").fill("a violet moth")
        inside.locator("#prompt textarea").press("Control+Enter")
        inside.locator("#stage section.done").wait_for()
        picture = inside.locator("#stage figure img").first
        picture.evaluate(
            "image => new Promise(done => image.naturalWidth ? done() : image.addEventListener('load', done))"
        )
        assert inside.locator("#earlier [data-act=open]").count() == 1
        assert COOKIE not in {one["name"] for one in context.cookies()}
    finally:
        context.close()


@pytest.mark.browser
def test_the_password_opens_the_studio(beyond: Callable[..., Beyond], chromium: Any) -> None:
    site = beyond(serving_of(allow_host=[NAME], password="芝麻 sesame", environment={}))
    context = chromium.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    try:
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.goto(site.url)
        keep(tab, "door-password-dark-360")
        tab.keyboard.type("no")  # the field has the focus
        tab.keyboard.press("Enter")
        tab.locator("[role=alert]").wait_for()
        tab.locator("input").fill("芝麻 sesame")
        tab.locator("button").click()
        tab.locator("#stage section").wait_for()
        keep(tab, "beyond-empty-360")
        assert "knows its password" in tab.locator("#served").inner_text()
    finally:
        context.close()
