"""The page in a real browser: a headless Chromium drives it over a pipeline that paints without networks."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.jobs.queue import JobQueue
from pipelines.core.record import read_record
from tests.support.browser import ask, enlarge, keep, make, overflow, unfold, wait_state
from tests.support.painter import PAINTERS

pytestmark = pytest.mark.browser


def test_a_prompt_becomes_ranked_pictures(visit: Any, tmp_path: Path) -> None:
    tab = visit()
    keep(tab, "empty-en-light-1280")
    ask(tab, "a slow red heart")
    wait_state(tab, "running").locator("img").first.wait_for()
    assert tab.locator("#stage .tiles img").count() == 16
    assert "tokens 4 of 12" in tab.locator("#reading").inner_text()
    keep(tab, "running-en-light-1280")
    wait_state(tab, "done")
    big = tab.locator("#stage figure:not([hidden]) .frame img")
    assert big.get_attribute("alt") == "a slow red heart"
    assert tab.locator("#sheet > * > .ranked .tile, #sheet .sheet > .ranked .tile").count() >= 3
    assert "The first 2 are within noise" in tab.locator("#sheet").inner_text()
    keep(tab, "done-en-light-1280")

    seed = tab.locator("#knob-seed input").input_value()
    assert seed in tab.locator("#stage").inner_text()
    tab.locator("#sheet [data-look='1']").click()
    assert tab.locator("#stage figure:not([hidden])").get_attribute("data-figure") == "1"
    with tab.expect_download() as download:
        tab.locator("#stage figure:not([hidden]) a[download]").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    record = read_record(saved, PAINTERS)
    assert record.settings["prompt"] == "a slow red heart" and record.picture["rank"] == 2
    with Image.open(saved) as picture:
        assert "a slow red heart" in picture.info["parameters"]


def test_stop_answers_and_the_next_job_works(visit: Any) -> None:
    tab = visit(theme="dark")
    ask(tab, "a slow moon")
    wait_state(tab, "running").locator("img").first.wait_for()
    tab.locator("#stop").click()
    wait_state(tab, "stopped")
    keep(tab, "stopped-en-dark-1280")
    tab.locator("#stop").wait_for(state="hidden")
    ask(tab, "a quick moon")
    wait_state(tab, "done")


def test_a_run_that_is_begun_before_the_page_was_answered_is_watched(visit: Any) -> None:
    tab = visit()
    arrival = tab.evaluate("gradio_config.dependencies.find((one) => one.api_name === 'on_load_2').id")
    slow: list[Any] = []

    def hold(route: Any) -> None:
        if not slow and (route.request.post_data_json or {}).get("fn_index") == arrival:
            slow.append(route)  # the first answer of Generate, on a slow line
        else:
            route.continue_()

    tab.route("**/run/predict*", hold)
    tab.goto(tab.url.split("?")[0], wait_until="domcontentloaded")
    tab.locator("#stage section").wait_for()
    while not slow:
        tab.wait_for_timeout(20)
    ask(tab, "a slow comet")
    wait_state(tab, "running")
    slow[0].continue_()
    wait_state(tab, "done")
    assert tab.locator("#stage figure img").first.get_attribute("alt") == "a slow comet"


def test_a_cut_line_is_waited_for_and_nothing_typed_is_lost(visit: Any) -> None:
    tab = visit()
    ask(tab, "a slow lighthouse")
    wait_state(tab, "running")
    tab.evaluate("window.before = true")  # a reload would forget it
    tab.context.set_offline(True)
    tab.locator("#cut").wait_for()
    assert "nothing typed is lost" in tab.locator("#cut").inner_text()
    tab.locator("#prompt textarea").fill("a quick lighthouse")
    tab.locator("#knob-candidates input").fill("3")
    tab.wait_for_timeout(1500)
    tab.locator("#go").click()  # waits, too
    tab.wait_for_timeout(1000)
    tab.context.set_offline(False)
    tab.locator("#cut").wait_for(state="hidden")
    tab.wait_for_function(
        "() => document.querySelector('#stage figure img')?.alt === 'a quick lighthouse'", timeout=30_000
    )
    assert tab.evaluate("window.before")
    assert tab.locator("#prompt textarea").input_value() == "a quick lighthouse"
    assert tab.locator("#knob-candidates input").input_value() == "3"
    assert tab.locator("text=Connection Lost").count() == 0


@pytest.mark.parametrize("lang", ["zh-CN", "zh", "zh-HK"])
def test_every_chinese_browser_reads_labels_in_chinese(lang: str, visit: Any) -> None:
    tab = visit(lang=lang)
    tab.wait_for_function("() => document.querySelector('#tab-generate-button').innerText === '生成'")
    assert tab.locator("html").get_attribute("lang") == "zh-CN"


def test_a_reload_and_a_new_tab_find_the_job_again(visit: Any) -> None:
    tab = visit()
    ask(tab, "a slow tree")
    wait_state(tab, "running")
    tab.wait_for_url(re.compile("job="))
    tab.reload(wait_until="domcontentloaded")
    assert "a slow tree" in wait_state(tab, "running").inner_text()
    assert tab.locator("#prompt textarea").input_value() == "a slow tree"
    address = tab.url
    other = tab.context.new_page()
    tab.close()
    other.goto(address.split("?")[0], wait_until="domcontentloaded")
    other.locator("#stage section.done").wait_for()
    assert other.locator("#stage figure img").first.get_attribute("alt") == "a slow tree"


def test_two_visitors_wait_in_line_and_see_their_own(visit: Any) -> None:
    one, two = visit(), visit()
    ask(one, "a slow fox")
    wait_state(one, "running")
    ask(two, "two quick owls")
    assert "You are next" in wait_state(two, "queued").inner_text()
    keep(two, "queued-en-light-1280")
    one.locator("#stop").click()
    wait_state(two, "done")
    assert "two quick owls" in two.locator("#stage").inner_text()
    assert "owls" not in one.locator("main").inner_text()


def test_chinese_at_run_time_and_by_the_browser(visit: Any) -> None:
    tab = visit()
    assert tab.locator("#go").inner_text() == "Generate"
    tab.get_by_role("button", name="中文").click()
    tab.locator("#go", has_text="生成").wait_for()
    assert tab.locator("#tabs button[role=tab]").first.inner_text() == "生成"
    assert "写下你想看到的画面" in tab.locator("#stage").inner_text()
    tab.reload(wait_until="domcontentloaded")
    tab.locator("#go", has_text="生成").wait_for()

    native = visit(lang="zh-CN", theme="dark")
    native.locator("#go", has_text="生成").wait_for()
    assert native.evaluate("document.documentElement.lang") == "zh-CN"
    ask(native, "生日蛋糕")
    wait_state(native, "done")
    assert "种子" in native.locator("#stage").inner_text()
    keep(native, "done-zh-dark-1280")
    native.locator("#knob-candidates input").fill("0")
    ask(native, "生日蛋糕")
    native.locator("#note", has_text="候选数 0 太小，最小为 1").wait_for()


def test_dark_follows_the_system_and_the_button(visit: Any) -> None:
    tab = visit(theme="dark")

    def colour() -> str:
        return tab.evaluate("getComputedStyle(document.querySelector('.gradio-container')).backgroundColor")

    assert colour() == "rgb(22, 20, 15)"
    tab.locator("[data-set-theme]").click()
    assert colour() == "rgb(250, 248, 244)"
    tab.reload(wait_until="domcontentloaded")
    tab.locator("#stage section").wait_for()
    assert colour() == "rgb(250, 248, 244)"


TOP = """() => [...document.querySelectorAll('[role=tab], .queue-status, .masthead .name, .masthead button')].filter(
    (one) => one.offsetParent && !one.closest('.visually-hidden')).map((one) => one.getBoundingClientRect()).map(
    ({left, right, top, bottom}) => [left, right, top, bottom])"""


def test_the_masthead_fits_every_width(visit: Any) -> None:
    tab = visit(width=300)
    for width in (640, 700, 900, 1100, 1160, 1280):
        tab.set_viewport_size({"width": width, "height": 800})
        tab.wait_for_function(
            "document.querySelectorAll('[role=tab]').length === 7"
        )  # none stays in the menu
        places = tab.evaluate(TOP)
        assert all(left >= 0 and right <= width for left, right, _, _ in places)
        for k, (left, right, top, bottom) in enumerate(places):
            assert not any(
                left < other[1] - 1 and other[0] < right - 1 and top < other[3] - 1 and other[2] < bottom - 1
                for other in places[k + 1 :]
            ), width


@pytest.mark.parametrize("lang", ["en-US", "zh-CN"])
def test_nothing_sticks_out_at_360_pixels(visit: Any, lang: str) -> None:
    tab = visit(lang=lang, width=360, height=740)
    for fold in ("#from-picture", "#advanced"):
        unfold(tab, fold)
    tab.locator("#advanced [name=temperature]").first.wait_for()
    keep(tab, f"advanced-{lang[:2]}-light-360")
    assert overflow(tab) == []
    ask(tab, "a red heart and-a-very-long-word-that-does-not-want-to-break-anywhere-at-all")
    wait_state(tab, "done")
    keep(tab, f"done-{lang[:2]}-light-360")
    assert overflow(tab) == []
    for tab_name in ("library", "models"):
        tab.locator(f"#tab-{tab_name}-button").click()
        tab.locator("#library .shot" if tab_name == "library" else "#models .pack").first.wait_for()
        assert overflow(tab) == []
        keep(tab, f"{tab_name}-{lang[:2]}-light-360")


def test_a_dropped_picture_brings_its_settings(
    visit: Any, studio: tuple[str, JobQueue], tmp_path: Path
) -> None:
    picture = make(studio[1], "a green <b>leaf</b>", seed=77, temperature=0.5)
    tab = visit()
    tab.locator("#drop input[type=file]").set_input_files(picture)
    tab.locator("#note", has_text="Settings loaded from the picture").wait_for()
    assert tab.locator("#prompt textarea").input_value() == "a green <b>leaf</b>"
    assert tab.locator("#knob-seed input").input_value() == "77"
    tab.locator("#roll input:not(:checked)").wait_for(state="attached")
    assert "<b>leaf</b>" in tab.locator("#note").inner_text()  # shown as text, not as HTML

    foreign, forged = tmp_path / "foreign.png", tmp_path / "forged.png"
    Image.new("RGB", (8, 8)).save(foreign)
    texts = PngInfo()
    texts.add_text("atelier", json.dumps({"pipeline": "generate", "settings": {"prompt": ["no"]}}))
    Image.new("RGB", (8, 8)).save(forged, pnginfo=texts)
    for file, sentence in ((foreign, "The picture holds no record"), (forged, "The picture's record")):
        tab.locator("#drop input[type=file]").set_input_files(file)
        tab.locator("#note .trouble", has_text=sentence).wait_for()
    assert tab.locator("#prompt textarea").input_value() == "a green <b>leaf</b>"  # nothing lost

    data = base64.b64encode(make(studio[1], "a brown nut", seed=3).read_bytes()).decode()
    tab.evaluate(
        """data => {
             const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
             const files = new DataTransfer();
             files.items.add(new File([bytes], 'nut.png', {type: 'image/png'}));
             document.querySelector('#generate-view').dispatchEvent(
               new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true}));
           }""",
        data,
    )  # anywhere on the page
    tab.locator("#note", has_text="a brown nut").wait_for()


def test_wrong_input_is_answered_in_a_sentence(visit: Any) -> None:
    tab = visit()
    tab.locator("#go").click()
    tab.locator("#note", has_text="The prompt is empty").wait_for()
    ask(tab, "long " * 500)
    tab.locator("#note", has_text="the most is 2,000").wait_for()
    tab.locator("#knob-candidates input").fill("900")
    ask(tab, "a red heart")
    tab.locator("#note", has_text="Candidates 900 is too large; the most is 512").wait_for()
    tab.locator("#knob-candidates input").fill("16")
    ask(tab, "a crash of xqz waves {{oops}} ${alert(1)} <img src=x onerror=alert(1)>")
    assert "never seen in training: xqz" in tab.locator("#reading .warn").first.inner_text()
    failed = wait_state(tab, "failed")
    assert "ZeroDivisionError" in failed.inner_text() and "secret" not in failed.inner_text()
    assert "{{oops}} ${alert(1)} <img src=x" in failed.inner_text()
    keep(tab, "failed-en-light-1280")


def test_a_picture_that_cannot_be_opened_is_refused_in_a_sentence(visit: Any, tmp_path: Path) -> None:
    giant = bytearray(b"\x89PNG\r\n\x1a\n")
    for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IEND", b"")):
        giant += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    tab = visit()
    unfold(tab, "#from-picture")
    tab.locator("#prompt textarea").fill("a red heart")
    for name, data, sentence in (
        ("giant.png", bytes(giant), "the most is 64,000,000"),
        ("text.png", b"hello", "not a PNG, JPEG or WebP picture"),
    ):
        (tmp_path / name).write_bytes(data)
        tab.locator("#knob-image input[type=file]").set_input_files(tmp_path / name)
        tab.locator("#knob-image img").wait_for(state="attached")
        tab.locator("#go").click()
        tab.locator("#note .trouble", has_text=sentence).wait_for()
        tab.locator("#knob-image button[aria-label='Remove Image']").click()
    tab.locator("#go").click()
    wait_state(tab, "done")


def test_an_example_shows_how_it_was_made(visit: Any) -> None:
    tab = visit()
    tab.locator("#stage [data-act=example]").click()
    tab.locator("#note", has_text="settings of the picture").wait_for()
    assert tab.locator("#prompt textarea").input_value() == "an example"
    assert tab.locator("#knob-seed input").input_value() == "4"


def test_the_whole_way_by_keyboard(visit: Any) -> None:
    tab = visit()
    assert tab.evaluate("document.activeElement.closest('#prompt') !== null")
    tab.keyboard.type("a red heart")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "go"
    tab.keyboard.press("Enter")
    wait_state(tab, "done")
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.dataset.look === '1'"):
            break
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab.keyboard.press("Enter")
    assert tab.locator("#stage figure:not([hidden])").get_attribute("data-figure") == "1"
    assert tab.locator("#announce").get_attribute("aria-live") == "polite"
    assert "a red heart" in tab.locator("#announce").text_content()


def test_what_can_be_done_with_a_picture(visit: Any) -> None:
    tab = visit()
    ask(tab, "a red heart")
    wait_state(tab, "done")
    first = tab.locator("#knob-seed input").input_value()
    figure = tab.locator("#stage figure:not([hidden])")
    figure.locator("[data-act=seed]").click()
    tab.locator("#note", has_text=f"The seed is {first}").wait_for()
    tab.locator("#roll input:not(:checked)").wait_for(state="attached")
    figure.locator("[data-act=vary]").click()
    tab.wait_for_function("() => document.querySelector('#knob-image img')")
    wait_state(tab, "running")
    wait_state(tab, "done")
    tab.locator("#stage figure:not([hidden]) [data-act=redraw]").click()
    tab.wait_for_function("() => document.querySelectorAll('#stage figure').length === 1")
    assert tab.locator("#knob-candidates input").input_value() == "16"  # the form stays
    tab.locator("#earlier [data-act=open]").last.click()
    tab.wait_for_function("() => document.querySelectorAll('#stage figure').length === 4")


def test_the_library_searches_by_what_is_seen(visit: Any, studio: tuple[str, JobQueue]) -> None:
    make(studio[1], "something to be found", seed=5)
    tab = visit(theme="dark")
    tab.locator("#tab-library-button").click()
    tab.locator("#library .shot").first.wait_for()
    tab.locator("#library [type=search]").fill("red")
    tab.locator("#library [type=search]").press("Enter")
    tab.locator("#library .shot .nearness").first.wait_for()
    keep(tab, "library-en-dark-1280")
    prompt = tab.locator("#library .shot img").first.get_attribute("alt")
    enlarge(tab).locator("[data-to=reuse]").click()
    tab.locator("#note", has_text="settings of the picture").wait_for()
    assert tab.locator("#prompt textarea").input_value() == prompt


def test_contrast_is_enough_in_both_themes() -> None:
    from app.ui.theme import TOKENS

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    texts = [
        (text, ground)
        for text in ("ink", "quiet", "accent-text", "good")
        for ground in ("paper", "card", "well")
    ]
    for text, ground in [*texts, ("on-accent", "accent-fill"), ("on-accent", "accent-hover")]:
        for index, theme in enumerate(("light", "dark")):
            high, low = sorted((luminance(TOKENS[name][index]) for name in (text, ground)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground, theme)


def test_files_stay_closed(studio: tuple[str, JobQueue]) -> None:
    import httpx

    url, queue = studio
    make(queue, "a cup")
    assert httpx.get(url, headers={"Host": "elsewhere.example"}).status_code == 400
    for name in ("jobs.sqlite", "../jobs.sqlite", "%2e%2e/%2e%2e/etc/passwd", "nothing.png", "a%00.png"):
        assert httpx.get(url + "picture/" + name).status_code == 404
    for path in (queue.folder / "jobs.sqlite", *queue.folder.glob("*/*.png")):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404)


def test_an_interrupted_job_is_offered_again(visit: Any, studio: tuple[str, JobQueue]) -> None:
    from dataclasses import replace

    _, queue = studio
    tab = visit()
    ask(tab, "a slow boat")
    wait_state(tab, "running")
    tab.locator("#stop").click()
    wait_state(tab, "stopped")
    job_id = re.search("job=([^&]+)", tab.url)[1]  # type: ignore[index]
    with queue._lock:  # as a server that was killed leaves it
        queue._live[job_id].job = replace(queue._live[job_id].job, state="interrupted")
    tab.reload(wait_until="domcontentloaded")
    wait_state(tab, "interrupted")
    keep(tab, "interrupted-en-light-1280")
    tab.locator("[data-act=again]").click()
    wait_state(tab, "running")
    tab.locator("#stop").click()
