"""The Models tab and a page made for Stable Diffusion, in a real browser, over painters and a false installer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from app.downloads import Downloads
from app.jobs.queue import JobQueue
from app.library import Library
from app.serving import LOCAL, Serving
from pipelines.core.pipeline import Step
from pipelines.errors import BadInput
from pipelines.weights.catalog import needed
from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.open_weights import OPEN_WEIGHTS
from tests.support.browser import ask, keep, make, overflow, wait_state
from tests.support.painter import PAINTERS, PainterStudio

pytestmark = pytest.mark.browser


class Installer:
    """Writes a small file for a model, in three steps, each only when `go` lets it."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.problem = ""

    def __call__(self, entry: Checkpoint) -> Generator[Step, None, list[str]]:
        for done in (100, 200, 300):
            assert self.go.acquire(timeout=20)
            if self.problem:
                raise BadInput(self.problem)
            yield Step("weights.pt", done, 300, {"MB/s": 8.0})
        place(entry)
        return []


class Site:
    """A served page: what a test needs of it."""

    def __init__(self, folder: Path, pack: str, serving: Serving = LOCAL):
        from app.ui import page

        self.studio = PainterStudio()
        self.studio.pack = pack
        self.queue = JobQueue(self.studio, folder, PAINTERS)
        library, examples = Library(folder), folder / "no-examples"
        self.blocks = page.build(self.studio, self.queue, library, examples, serving)
        self.installer = Installer()
        self.blocks.atelier.downloads = Downloads(self.installer)  # type: ignore[attr-defined]
        assert sum(block.get_block_name() != "api" for block in self.blocks.blocks.values()) <= 150
        _, self.url = page.launch(self.blocks, port=None)

    def close(self) -> None:
        self.installer.go.release(100)
        self.blocks.close(verbose=False)
        self.queue.close()


def place(entry: Checkpoint) -> None:
    """A model's file, as far as the catalog looks."""
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    entry.path.write_bytes(b"weights")


def place_pack(pack: str) -> None:
    for one in needed(pack):
        if one.name in OPEN_WEIGHTS:
            place(OPEN_WEIGHTS[one.name])


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("tiny"), "tiny")
    yield site
    site.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Any]:
    """A function that opens a site's tab Models as a new visitor; script errors fail the test."""
    contexts: list[Any] = []
    problems: list[str] = []

    def open_page(
        site: Site, tab_name: str = "models", *, lang: str = "en-US", theme: str = "light", width: int = 1280
    ) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, locale=lang, color_scheme=theme
        )
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        tab.goto(site.url, wait_until="domcontentloaded")
        tab.locator("#stage section").wait_for()
        if tab_name != "generate":
            tab.locator(f"#tab-{tab_name}-button").click()
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not problems, problems


def card(tab: Any, pack: str) -> Any:
    return tab.locator(f".pack:has(details[data-pack='{pack}'])")


def test_every_pack_says_what_it_needs_and_under_which_licence(visit: Any, tiny: Site) -> None:
    tab = visit(tiny)
    assert "in use" in card(tab, "tiny").locator("h3").inner_text()
    full = card(tab, "full")
    assert "0 of 8 models are here" in full.inner_text() and "to download" in full.inner_text()
    full.locator("summary").click()
    row = full.locator("li", has_text="clip-vit-b-32")
    assert "MIT" in row.inner_text() and "354 MB" in row.inner_text() and "1.1 GB" in row.inner_text()
    keep(tab, "models-en-light-1280")
    small = visit(tiny, lang="zh-CN", theme="dark", width=360)
    card(small, "mini").locator("[data-act=ask]").first.click()
    small.locator(".consent h4", has_text="许可").wait_for()
    card(small, "full").locator("summary").click()
    assert overflow(small) == []
    keep(small, "models-consent-zh-dark-360")


def test_models_of_ones_own_are_listed_with_the_words_that_use_them(
    visit: Any, tiny: Site, models: Path
) -> None:
    models.mkdir()
    save_file({"x": torch.zeros(2_000_000)}, models / "mine.safetensors", {"kind": "openai-clip"})
    (models / "no name.safetensors").write_bytes(b"put there by hand")
    own = visit(tiny).locator(".models .own")
    said = own.locator("li").inner_text()
    assert "mine" in said and "8 MB" in said and "--use clip=mine" in said
    assert overflow(visit(tiny, lang="zh-CN", theme="dark", width=360)) == []


def test_a_model_of_ones_own_takes_a_part_without_a_restart(visit: Any, tiny: Site, models: Path) -> None:
    models.mkdir()
    facts = json.dumps({"licence": "CC-BY-4.0, by me"})
    held = {"kind": "openai-clip", "facts": facts}
    save_file({"x": torch.zeros(10)}, models / "mine.safetensors", held)
    tab = visit(tiny)
    own = tab.locator(".models .own li", has_text="mine")
    assert "CC-BY-4.0, by me" in own.inner_text() and own.locator(".badge").count() == 0
    own.get_by_role("button", name="Use as critic").click()
    own.locator(".badge").wait_for()
    assert tiny.studio.use == {"critic": "mine"}
    own.get_by_role("button", name="Use as CLIP").press("Enter")
    own.get_by_role("button", name="Back to the pack's CLIP").wait_for()
    assert tiny.studio.use == {"critic": "mine", "clip": "mine"}
    for part in ("CLIP", "critic"):
        own.get_by_role("button", name=f"Back to the pack's {part}").click()
        own.get_by_role("button", name=f"Use as {part}").wait_for()
    assert tiny.studio.use == {}


def test_every_open_model_is_listed_by_what_it_does(visit: Any, tiny: Site) -> None:
    """Whether a pack has it or not: its licence, size, memory and what it is good for."""
    place(OPEN_WEIGHTS["clip-vit-l-14"])
    tab = visit(tiny)
    for role in dict.fromkeys(one.role for one in OPEN_WEIGHTS.values()):
        shown = card(tab, f"all-{role}")
        shown.locator("summary").click()
        rows = shown.locator("details li")
        entries = [one for one in OPEN_WEIGHTS.values() if one.role == role]
        assert rows.count() == len(entries)
        for text, entry in zip(rows.all_inner_texts(), entries, strict=True):
            assert entry.name in text and entry.about in text and entry.licence in text, entry.name
            assert ("memory" in text) == (entry.memory > 0), entry.name
    large = card(tab, "all-clip").locator("li", has_text="clip-vit-l-14 ")
    large.get_by_role("button", name="Use as CLIP").click()
    large.locator(".badge").wait_for()
    assert tiny.studio.use == {"clip": "clip-vit-l-14"}
    tiny.studio.use = {}
    dvae = card(tab, "all-vqgan").locator("li", has_text="openai-dvae")
    dvae.locator("[data-act=ask]").click()
    card(tab, "all-vqgan").locator(".consent", has_text="asks to say that it was used").wait_for()
    keep(tab, "models-all-en-light-1280")
    small = visit(tiny, lang="zh-CN", theme="dark", width=360)
    card(small, "all-clip").locator("summary").click()
    assert overflow(small) == []
    keep(small, "models-all-zh-dark-360")


def test_licences_come_first_then_progress_then_it_is_here(visit: Any, tiny: Site) -> None:
    tab = visit(tiny)
    chinese = card(tab, "chinese")
    chinese.locator("summary").click()
    chinese.locator("li", has_text="clip-vit-b-32").locator("[data-act=ask]").click()
    consent = chinese.locator(".consent")
    consent.locator("h4").wait_for()
    assert "MIT" in consent.inner_text() and "354 MB" in consent.inner_text()
    assert tiny.blocks.atelier.downloads.now is None  # type: ignore[attr-defined]
    consent.get_by_role("button", name="I agree, download").click()
    shown = tab.locator(".fetching.running")
    shown.wait_for()
    tiny.installer.go.release()
    tab.locator(".fetching", has_text="100 of 300 MB").wait_for()
    assert tab.locator(".fetching progress").get_attribute("value") == "33"
    assert "Getting clip-vit-b-32" in tab.locator(".fetching [role=status]").text_content()
    assert chinese.locator("details").get_attribute("open") is not None  # looking again closes nothing
    assert tab.evaluate("document.activeElement.classList.contains('fetching')")
    keep(tab, "models-fetching-en-light-1280")
    tab.close()  # the download is the server's
    other = visit(tiny)
    other.locator(".fetching.running").wait_for()
    assert other.locator(".pack [data-act=ask][data-asked*='/']").count() == 0  # one at a time
    tiny.installer.go.release(2)
    other.locator(".fetching.done", has_text="clip-vit-b-32 is here").wait_for()
    card(other, "chinese").locator("summary").click()
    card(other, "chinese").locator("li", has_text="clip-vit-b-32").locator(".here").wait_for()


def test_a_download_can_be_stopped_and_gone_on_with_and_says_why_it_failed(visit: Any, tiny: Site) -> None:
    tab = visit(tiny)
    button = card(tab, "sd-turbo").locator(".top").first.get_by_role("button", name="Get what is missing")
    button.press("Enter")
    consent = card(tab, "sd-turbo").locator(".consent")
    consent.locator("h4").wait_for()
    assert (
        "Stability AI Non-Commercial Research Community License" in consent.inner_text()
        and "Apache-2.0" in consent.inner_text()
    )
    assert button.get_attribute("aria-expanded") == "true"
    consent.get_by_role("button", name="I agree, download").press("Enter")
    tab.locator(".fetching [data-act=stop-fetch]").click()
    tab.locator(".fetching.running", has_text="Stopping at sd-turbo").wait_for()
    tiny.installer.go.release()
    tab.locator(".fetching.stopped").wait_for()
    tiny.installer.problem = "hub.example cannot be reached (no route); check the connection"
    tab.locator(".fetching").get_by_role("button", name="Go on").click()
    tiny.installer.go.release()
    tab.locator(".fetching.failed", has_text="Hub.example cannot be reached").wait_for()
    assert "then clip-vit-b-32" in tab.locator(".fetching").inner_text()
    keep(tab, "models-failed-en-light-1280")
    tiny.installer.problem = ""


def test_an_answer_that_comes_late_does_not_stay_on_the_page(visit: Any, tiny: Site) -> None:
    tab = visit(tiny)
    late: list[Any] = []

    def hold(route: Any) -> None:
        if not late and '"watch"' in (route.request.post_data or ""):
            late.append(route)
            late.append(route.fetch())
        else:
            route.continue_()

    card(tab, "sd-turbo").locator(".top").first.get_by_role("button", name="Get what is missing").click()
    tab.route("**/*", hold)
    while len(late) < 2:  # the page as it was before the download
        tab.wait_for_timeout(50)
    card(tab, "sd-turbo").locator(".consent").get_by_role("button", name="I agree, download").click()
    tab.locator(".fetching.running").wait_for()
    late[0].fulfill(response=late[1])
    tab.locator(".fetching.running").wait_for(state="detached")
    tab.locator(".fetching.running").wait_for()
    tab.locator(".fetching [data-act=stop-fetch]").click()
    tab.locator(".fetching.running", has_text="Stopping at").wait_for()
    tiny.installer.go.release()
    tab.locator(".fetching.stopped").wait_for()


def test_another_pack_is_used_only_when_no_job_is_left(visit: Any, tiny: Site) -> None:
    place_pack("mini")
    tab = visit(tiny, "generate")
    ask(tab, "a slow heart")
    wait_state(tab, "running")
    tab.locator("#tab-models-button").click()
    use = card(tab, "mini").locator("[data-act=switch]")
    use.click()
    tab.locator(".models .trouble", has_text="A job runs or waits").wait_for()
    assert tiny.studio.pack == "tiny"
    for job in tiny.queue.jobs():
        tiny.queue.stop(job.id)
    while not all(job.is_over for job in tiny.queue.jobs()):
        time.sleep(0.02)
    use.click()
    card(tab, "mini").locator(".badge").wait_for()
    assert tiny.studio.pack == "mini"
    place_pack("sd-turbo")
    tab.locator("#tab-generate-button").click()
    tab.locator("#engine .engines").wait_for(state="hidden")  # mini has one engine
    tab.locator("#tab-models-button").click()
    card(tab, "sd-turbo").locator("[data-act=switch]").click()
    card(tab, "sd-turbo").locator(".badge").wait_for()
    tab.locator("#tab-generate-button").click()
    tab.locator("#diffuse-width-group").wait_for()  # the other engine, without another page
    tab.locator("#advanced [name=top_k]").wait_for(state="hidden")
    tiny.studio.pack = "tiny"


def test_what_is_missing_leads_to_the_models_and_is_gone_when_they_are_here(visit: Any, tiny: Site) -> None:
    tiny.studio.pack = "full"
    tab = visit(tiny, "generate")
    missing = tab.locator("#stage .missing")
    assert "dalle-mega" in missing.inner_text()
    missing.get_by_role("button", name="Open Models").click()
    card(tab, "full").locator(".badge").wait_for()
    place_pack("full")
    tab.locator("#tab-optimize-button").click()
    tab.locator("#canvas .plate.empty").wait_for()
    tab.locator("#tab-generate-button").click()
    tab.locator("#stage .empty").wait_for()
    tiny.studio.pack = "tiny"


def test_on_a_space_models_are_only_shown(visit: Any, tmp_path: Path) -> None:
    place_pack("mini")
    site = Site(tmp_path / "outputs", "tiny", Serving(space="somebody/atelier"))
    try:
        tab = visit(site)
        tab.locator(".models .note", has_text="shared").wait_for()
        assert tab.locator("#models button").count() == 0
        tab.evaluate(
            """() => { const forged = document.createElement('button');
                 Object.assign(forged.dataset, {act: 'switch', pack: 'mini'});
                 document.querySelector('#models .models').append(forged); forged.click(); }"""
        )
        tab.wait_for_timeout(500)
        assert site.studio.pack == "tiny"
    finally:
        site.close()


def test_a_pack_of_stable_diffusion_has_its_own_form(visit: Any, tmp_path: Path) -> None:
    place_pack("sd-1.5")
    site = Site(tmp_path / "outputs", "sd-1.5")
    try:
        drawn = make(site.queue, "a brown nut", seed=3)  # by DALL·E, another day
        tab = visit(site, "generate", lang="zh-CN")
        assert "不要出现" in tab.locator("#generate-controls").inner_text()
        tab.locator("#engine .engines").wait_for(state="hidden")
        tab.locator("#knob-candidates").wait_for(state="hidden")
        tab.locator("#diffuse-width-group [name=width]").fill("100")
        ask(tab, "一只猫")
        tab.locator("#note", has_text="宽 100 不是 8 的倍数，可以用 96 或 104").wait_for()
        tab.locator("#diffuse-width-group [name=width]").fill("192")
        tab.locator("#diffuse-negative_prompt textarea").fill("blur")
        ask(tab, "一只猫")
        wait_state(tab, "done")
        keep(tab, "diffuse-zh-light-1280")
        assert site.queue.jobs()[0].pipeline == "diffuse"
        assert site.queue.jobs()[0].settings["negative_prompt"] == "blur"
        tab.locator("#stage figure:not([hidden]) [data-act=vary]").click()
        tab.wait_for_function("() => document.querySelector('#diffuse-image img')")
        wait_state(tab, "done")
        tab.locator("#drop input[type=file]").set_input_files(drawn)
        tab.locator("#note", has_text="由另一种模型绘制").wait_for()
        assert tab.locator("#prompt textarea").input_value() == "a brown nut"

        from gradio_client import Client

        client = Client(site.url, verbose=False)
        _, made = client.predict(prompt="a cup", width=128, candidates=1, api_name="/generate")
        assert made["settings"]["width"] == 128 and len(made["pictures"]) == 1
    finally:
        site.close()
