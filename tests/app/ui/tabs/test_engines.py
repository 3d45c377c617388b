"""The Generate tab where the pack has two engines, in a browser: choosing one, seeds, a mask."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.jobs.queue import JobQueue
from app.library import Library
from app.ui import page
from pipelines.diffuse.settings import PACES
from pipelines.io.images import open_picture
from tests.support.browser import ask, keep, overflow, unfold, wait_state
from tests.support.painter import PAINTERS, PainterStudio

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, JobQueue]]:
    """A page over a pack with both engines."""
    folder = tmp_path_factory.mktemp("outputs")
    made = PainterStudio()
    made.pack = "tiny"
    queue = JobQueue(made, folder, PAINTERS)
    blocks = page.build(made, queue, Library(folder), tmp_path_factory.mktemp("examples"))
    assert sum(block.get_block_name() != "api" for block in blocks.blocks.values()) <= 150
    _, url = page.launch(blocks, port=None)
    yield url, queue
    blocks.close(verbose=False)
    queue.close()


def test_the_largest_seed_stays_exact_on_the_page(visit: Any, queue: JobQueue) -> None:
    tab, seed = visit(), str(2**64 - 1)
    field = tab.locator("#knob-seed").locator("input, textarea").first
    tab.locator("#roll input").uncheck()
    field.fill(seed)
    ask(tab, "a red heart")
    wait_state(tab, "done")
    assert queue.jobs(count=1)[0].settings["seed"] == 2**64 - 1 and field.input_value() == seed
    field.fill("7")
    tab.locator("#earlier [data-act=open]").last.click()
    tab.locator("#stage .done").wait_for()
    tab.wait_for_function(
        "(seed) => document.querySelector('#knob-seed').querySelector('input, textarea').value === seed",
        arg=seed,
    )


def test_an_engine_is_chosen_and_draws(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    dalle, diffusion = tab.locator("#knob-candidates"), tab.locator("#diffuse-candidates")
    dalle.locator("input").fill("5")
    diffusion.wait_for(state="hidden")
    tab.locator("#engine input[value=generate]").focus()
    tab.keyboard.press("ArrowRight")
    diffusion.wait_for()
    dalle.wait_for(state="hidden")
    assert tab.evaluate("document.activeElement.value") == "diffuse"
    keep(tab, "engine-diffuse-en-light-1280")
    unfold(tab, "#advanced")
    guidance = tab.locator("#advanced .only-diffuse [name=guidance]")
    assert guidance.input_value() == "" and guidance.get_attribute("placeholder") == "auto"
    tab.locator("#advanced select[name=sampler]").select_option("heun")
    tab.locator("#diffuse-width-group select[name=pace]").select_option("fast")
    diffusion.locator("input").fill("3")
    ask(tab, "a red heart")
    assert "drawn by diffusion" in wait_state(tab, "done").inner_text()
    made = queue.jobs(count=1)[0]
    assert (made.pipeline, made.settings["candidates"]) == ("diffuse", 3)
    assert made.settings["width"] is None and made.settings["guidance"] is None  # what the model likes, not 0
    assert (made.settings["sampler"], made.settings["pace"]) == ("heun", "fast")

    tab.locator("#engine label", has_text="DALL·E").click()
    dalle.wait_for()
    diffusion.wait_for(state="hidden")
    assert dalle.locator("input").input_value() == "5"
    assert tab.locator("#prompt textarea").input_value() == "a red heart"
    tab.locator("#go").click()
    tab.locator("#stage .done", has_text="drawn by DALL·E").wait_for()
    made = queue.jobs(count=1)[0]
    assert (made.pipeline, made.settings["candidates"]) == ("generate", 5)
    keep(tab, "engine-dalle-en-light-1280")
    tab.locator("#earlier [data-act=open]").last.click()
    tab.locator("#stage .done", has_text="drawn by diffusion").wait_for()
    diffusion.wait_for()
    tab.locator("#engine input[value=diffuse]:checked").wait_for(state="attached")
    assert diffusion.locator("input").input_value() == "3"
    assert tab.locator("#advanced select[name=sampler]").input_value() == "heun"
    tab.evaluate("localStorage.removeItem('atelier-job'); localStorage.setItem('atelier-engine', 'diffuse')")
    tab.goto(tab.url.split("?")[0], wait_until="domcontentloaded")
    diffusion.wait_for()  # what was chosen last


@pytest.mark.parametrize(("lang", "theme", "width"), [("zh-CN", "dark", 1280), ("en-US", "light", 360)])
def test_the_chip_fits(visit: Any, queue: JobQueue, lang: str, theme: str, width: int) -> None:
    tab = visit(lang=lang, theme=theme, width=width)
    tab.locator("#engine label").last.click()
    tab.locator("#diffuse-width-group").wait_for()
    assert tab.locator("#engine").inner_text().split() == [
        "DALL·E",
        "扩散" if lang == "zh-CN" else "Diffusion",
    ]
    for fold in ("#from-picture", "#advanced"):
        unfold(tab, fold)
    assert overflow(tab) == []
    keep(tab, f"engine-diffuse-{lang[:2]}-{theme}-{width}")
    tab.locator("#engine label").first.click()
    tab.locator("#advanced [name=temperature]").wait_for()
    assert overflow(tab) == []
    keep(tab, f"engine-dalle-{lang[:2]}-{theme}-{width}")


def test_a_mask_is_painted_over_the_picture_or_read_from_a_file(
    visit: Any, queue: JobQueue, tmp_path: Path
) -> None:
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "start.png")
    clear = Image.new("RGBA", (96, 64), (9, 9, 9, 0))
    clear.paste((9, 9, 9, 255), (0, 0, 48, 64))
    clear.save(tmp_path / "mask.png")
    tab = visit()
    tab.locator("#engine label").last.click()
    unfold(tab, "#from-picture")
    tab.locator("#draw-brush").wait_for(state="hidden")
    tab.locator("#diffuse-image input[type=file]").set_input_files(tmp_path / "start.png")
    tab.locator("#draw-brush [data-paint]").click()
    tab.locator("#draw-brush .mask").scroll_into_view_if_needed()
    place = tab.locator("#draw-brush .mask").bounding_box()
    tab.mouse.move(place["x"] + place["width"] * 0.7, place["y"] + place["height"] * 0.3)
    tab.mouse.down()
    tab.mouse.move(place["x"] + place["width"] * 0.8, place["y"] + place["height"] * 0.7, steps=3)
    tab.mouse.up()
    tab.locator("#draw-brush .masked").wait_for()
    assert overflow(tab) == []
    keep(tab, "generate-mask-en-light-1280")
    ask(tab, "a red heart")
    wait_state(tab, "done")
    first = queue.jobs(count=1)[0]
    mask = open_picture(queue.job(first.id).settings["mask"]).convert("L")
    assert mask.size == (96, 64) and mask.getpixel((5, 5)) == 0 and mask.getpixel((72, 32)) == 255
    tab.locator("#draw-brush [type=file]").set_input_files(tmp_path / "mask.png")
    tab.wait_for_function("document.querySelector('[name=mask]').value.length > 50")
    tab.locator("#go").click()
    while (again := queue.jobs(count=1)[0]).id == first.id or not again.is_over:
        time.sleep(0.05)
    mask = open_picture(queue.job(again.id).settings["mask"]).convert("L")
    assert mask.getpixel((5, 5)) == 255 and mask.getpixel((72, 32)) == 0  # its opacity
    tab.locator("#diffuse-image button[aria-label='Remove Image']").click()
    tab.locator("#draw-brush").wait_for(state="hidden")
    assert tab.evaluate("document.querySelector('#from-picture [name=mask]').value") == ""


def test_options_and_empty_fields_follow_the_language(visit: Any) -> None:
    tab = visit(lang="zh-CN")
    tab.locator("#engine [value=diffuse]").check()
    pace, width = (
        tab.locator("#diffuse-width-group [name=pace]"),
        tab.locator("#diffuse-width-group [name=width]"),
    )
    chinese, english = ([pair[index] for pair in PACES.values()] for index in (1, 0))
    assert pace.locator("option").all_text_contents() == chinese
    assert width.get_attribute("placeholder") == "自动"
    pace.select_option(label="细致")
    tab.locator("#tab-optimize-button").click()
    tab.locator("#opt-engine [value=guide]").check()
    assert "左右" in tab.locator("#opt-guide [name=symmetry] option").all_text_contents()
    tab.locator("[data-set-lang=en]").click()
    assert "vertical" in tab.locator("#opt-guide [name=symmetry] option").all_text_contents()
    tab.locator("#tab-generate-button").click()
    assert pace.locator("option").all_text_contents() == english and pace.input_value() == "careful"
    assert width.get_attribute("placeholder") == "auto"
