"""What the tests of the page share: a served page over a pipeline without networks, and a headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from app.jobs.queue import JobQueue
from app.library import Library
from tests.support import chromium as browsers
from tests.support.browser import make
from tests.support.painter import PAINTERS, PainterStudio


def pytest_configure() -> None:
    """Each worker looks for free ports in a hundred of its own, or two may find the same one at the same time."""
    from gradio import http_server

    http_server.INITIAL_PORT_VALUE += 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser beside other work is late now and then: its tests may fail once, which the summary tells ("RERUN")."""
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, JobQueue]]:
    """A served page: its address and its queue."""
    from app.ui import page

    folder = tmp_path_factory.mktemp("outputs")
    made = PainterStudio()
    queue = JobQueue(made, folder, PAINTERS)
    examples = tmp_path_factory.mktemp("examples")
    shutil.copy(make(queue, "an example", seed=4), examples / "an-example.png")
    blocks = page.build(made, queue, Library(folder), examples)
    assert sum(block.get_block_name() != "api" for block in blocks.blocks.values()) <= 150
    _, url = page.launch(blocks, port=None)
    yield url, queue
    blocks.close(verbose=False)
    queue.close()


@pytest.fixture
def queue(studio: tuple[str, JobQueue]) -> Iterator[JobQueue]:
    """The queue behind the page; what a test leaves running is stopped."""
    yield studio[1]
    for job in studio[1].jobs(count=10):
        if not job.is_over:
            studio[1].stop(job.id)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = browsers.start(driver)
        if browser is None:
            pytest.fail("no Chromium, Chrome or Edge starts here; python launch.py test installs one")
        yield browser
        browser.close()


@pytest.fixture
def visit(studio: tuple[str, JobQueue], chromium: Any) -> Iterator[Any]:
    """A function that opens the page, or the address `at`, as a new visitor.

    Requests to other machines fail the test, as do script errors.
    """
    url, _ = studio
    contexts: list[Any] = []
    problems: list[str] = []

    def open_page(
        *, lang: str = "en-US", theme: str = "light", width: int = 1280, height: int = 900, at: str = ""
    ) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            locale=lang,
            color_scheme=theme,
            accept_downloads=True,
        )
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(30_000)

        def seen(request: Any) -> None:
            if not request.url.startswith((url.rstrip("/"), "data:", "blob:")):
                problems.append(f"a request left the machine: {request.url}")

        tab.on("request", seen)
        tab.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        tab.goto(at or url, wait_until="domcontentloaded")
        tab.locator("#stage section").wait_for(
            state="attached" if at else "visible"
        )  # it may open another tab
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not problems, problems
