"""The Optimize tab in a real browser, over a fake that grows a shape and keeps a real journal."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.jobs.queue import Job, JobQueue
from pipelines.core.record import read_texts
from pipelines.io.images import open_picture
from tests.support.browser import enlarge, keep, make, overflow, unfold

pytestmark = pytest.mark.browser


def enter(tab: Any) -> None:
    tab.locator("#tab-optimize-button").click()
    tab.locator("#canvas section").wait_for()


def start(tab: Any, prompt: str, steps: int = 40) -> None:
    """Type a prompt and press Ctrl+Enter inside the box."""
    tab.locator("#opt-steps input").fill(str(steps))
    tab.locator("#opt-prompt textarea").fill(prompt)
    tab.locator("#opt-prompt textarea").press("Control+Enter")


def wait_canvas(tab: Any, state: str) -> Any:
    place = tab.locator(f"#canvas section.{state}")
    place.wait_for()
    return place


def press(tab: Any, act: str) -> None:
    tab.locator(f"#optimize-buttons [data-act={act}]").click()


def newest(queue: JobQueue) -> Job:
    for _ in range(500):
        if jobs := [job for job in queue.jobs(count=50) if job.pipeline == "optimize"]:
            return queue.job(jobs[0].id)
        time.sleep(0.02)
    raise AssertionError("no run of Optimize was begun")


def wait_for_steps(tab: Any, queue: JobQueue, least: int) -> str:
    """Wait until the run that the tab watches has come so far; its id.

    The newest run may still be one of an earlier test: the page has its answer only after the key was pressed.
    """
    tab.locator("#canvas section[data-job]").wait_for()
    job_id = tab.locator("#canvas section").get_attribute("data-job")
    for _ in range(1500):
        if queue.job(job_id).done >= least:
            return job_id
        time.sleep(0.02)
    raise AssertionError(queue.job(job_id))


def test_a_picture_grows_under_the_eyes_and_its_film_can_be_had(
    visit: Any,
    queue: JobQueue,
    tmp_path: Path,
) -> None:
    tab = visit()
    enter(tab)
    keep(tab, "optimize-empty-en-light-1280")
    start(tab, "a slow castle", steps=24)
    wait_canvas(tab, "running").locator("img.now[src^='data:image/jpeg']").wait_for()
    tab.locator("#timeline .tick").first.wait_for()
    keep(tab, "optimize-running-en-light-1280")
    done = wait_canvas(tab, "done")
    assert done.locator("figure").count() == 2
    assert "best by critic (step 12)" in done.locator(".switch").inner_text()
    assert done.locator("figure:not([hidden])").get_attribute("data-figure") == "0"
    done.locator("[data-view='1']").click()
    assert "step 24" in done.locator("figure:not([hidden])").inner_text()
    assert tab.locator("#timeline polyline").count() == 2
    keep(tab, "optimize-done-en-light-1280")
    for kind, mark in (("mp4", b"ftyp"), ("webp", b"WEBP")):
        with tab.expect_download() as download:
            done.locator(f"figure:not([hidden]) a[href$='.{kind}']").click()
        download.value.save_as(tmp_path / f"film.{kind}")
        assert mark in (tmp_path / f"film.{kind}").read_bytes()[:16]
    tab.reload(wait_until="domcontentloaded")  # the address brings back the run and its tab
    wait_canvas(tab, "done")
    assert tab.locator("#opt-prompt textarea").input_value() == "a slow castle"


def test_pause_keeps_the_picture_and_resume_finishes(visit: Any, queue: JobQueue) -> None:
    tab = visit(theme="dark")
    enter(tab)
    start(tab, "a slow moon", steps=30)
    job_id = wait_for_steps(tab, queue, 6)
    press(tab, "pause")
    paused = wait_canvas(tab, "stopped")
    assert "everything was kept" in paused.inner_text()
    paused.locator("figure:not([hidden]) img.now").wait_for()
    stopped_at = queue.job(job_id).pictures[-1]["step"]
    assert queue.journal(job_id).steps()[-1] == stopped_at
    keep(tab, "optimize-paused-en-dark-1280")
    with queue._lock:  # as a server that was killed leaves it
        queue._live[job_id].job = replace(queue.job(job_id), state="interrupted", pictures=[])
    tab.reload(wait_until="domcontentloaded")
    assert f"kept up to step {stopped_at}" in wait_canvas(tab, "interrupted").inner_text()
    tab.wait_for_function(
        "() => document.querySelector('#canvas img.now').naturalWidth > 0"
    )  # its last snapshot
    tab.locator("#opt-prompt textarea").press("Control+Enter")  # the next thing to do is to resume
    wait_canvas(tab, "running")
    wait_canvas(tab, "done")
    assert newest(queue).id == job_id and queue.job(job_id).pictures[-1]["step"] == 30


def test_words_and_steps_change_in_mid_run(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    enter(tab)
    start(tab, "a slow apple", steps=120)
    first = wait_for_steps(tab, queue, 4)
    press(tab, "apply")
    tab.locator("#opt-note", has_text="Nothing has changed").wait_for()
    tab.locator("#opt-seed input").fill("9")
    tab.locator("#opt-prompt textarea").fill("a slow pear")
    press(tab, "apply")
    tab.locator("#opt-note", has_text="seed").wait_for()  # what cannot change is said
    tab.locator("#timeline .scenes li", has_text="a slow pear").wait_for()
    second = newest(queue)
    assert second.id != first and queue.job(first).state == "stopped"
    ((step, change),) = json.loads(second.settings["changes"]).items()
    assert change == {"prompt": "a slow pear"} and int(step) == queue.journal(first).steps()[-1]
    assert second.settings["prompt"] == "a slow apple" and second.settings["seed"] == 0
    press(tab, "pause")
    wait_canvas(tab, "stopped")
    tab.locator("#opt-steps input").fill("100")  # changed while paused: resuming takes it along
    tab.locator("#opt-prompt textarea").fill("a pear")
    press(tab, "resume")
    wait_canvas(tab, "done")
    assert newest(queue).pictures[-1]["step"] == 100
    press(tab, "more")
    wait_canvas(tab, "running")
    wait_canvas(tab, "done")
    assert newest(queue).pictures[-1]["step"] == 150
    assert tab.locator("#opt-steps input").input_value() == "150"


def test_the_timeline_looks_back_and_forks(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    enter(tab)
    start(tab, "a cup", steps=30)
    wait_canvas(tab, "done")
    job_id = newest(queue).id
    tab.locator("#timeline .tick[data-scrub='10']").click()
    tab.wait_for_function("() => document.querySelector('#canvas .glimpse')?.naturalWidth > 0")
    assert tab.locator("#canvas .glimpse").get_attribute("src") == f"glimpse/{job_id}/10.jpg"
    assert tab.locator("#timeline .scrubbed .at").inner_text() == "step 10"
    tab.locator("#timeline input").press("ArrowRight")
    assert tab.locator("#timeline .scrubbed .at").inner_text() == "step 20"
    tab.locator("#optimize-buttons [data-back]").click()
    assert tab.locator("#timeline .scrubbed .at").inner_text() == "step 10"
    keep(tab, "optimize-scrubbed-en-light-1280")
    tab.locator("#opt-prompt textarea").fill("a green cup")
    tab.locator("#timeline [data-act=fork]").click()
    tab.wait_for_function(
        "job => (document.querySelector('#canvas section.done')?.dataset.job ?? job) !== job", arg=job_id
    )
    fork = newest(queue)
    assert json.loads(fork.settings["changes"]) == {"10": {"prompt": "a green cup"}}
    assert not tab.locator("#canvas .glimpse").count()
    assert tab.locator("#timeline .flag").count() == 1


def test_rows_show_the_prompt_and_sliders_write_it(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    enter(tab)
    box = tab.locator("#opt-prompt textarea")
    box.fill("a castle at 10:30 | fog:0.5 | blur:-0.3:0.7 ^ a ruin @20")
    tab.locator("#opt-rows .target").nth(3).wait_for()
    assert tab.locator("#opt-rows .text").all_inner_texts() == ["a castle at 10:30", "fog", "blur", "a ruin"]
    assert "step 20" in tab.locator("#opt-rows").inner_text()
    slider = tab.locator("#opt-rows .target").nth(1).locator("input")
    slider.focus()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    assert box.input_value() == "a castle at 10:30 | fog:0.6 | blur:-0.3:0.7 ^ a ruin @20"
    tab.locator("#opt-rows .target").nth(1).locator(".eye").click()
    assert "fog:0 |" in box.input_value()
    tab.locator("#opt-rows .target").nth(1).locator(".drop").click()
    assert box.input_value() == "a castle at 10:30 | blur:-0.3:0.7 ^ a ruin @20"
    box.press("Control+Enter")
    wait_canvas(tab, "running")
    assert newest(queue).settings["prompt"] == "a castle at 10:30 | blur:-0.3:0.7 ^ a ruin @20"


def test_rows_of_an_older_prompt_change_nothing_on_a_slow_line(visit: Any) -> None:
    tab = visit()
    enter(tab)
    box, rows = tab.locator("#opt-prompt textarea"), tab.locator("#opt-rows .target")
    box.fill("a | b")
    rows.nth(1).wait_for()
    held: list[Any] = []

    def hold(route: Any) -> None:
        data = (route.request.post_data_json or {}).get("data", [])
        if data in (["a | b | c"], ["a | b | c | d"]):
            held.append(route)
        else:
            route.continue_()

    def wait_for_held(count: int) -> None:
        for _ in range(500):
            if len(held) == count:
                return
            tab.wait_for_timeout(20)
        raise AssertionError(held)

    tab.route("**/run/predict*", hold)
    box.fill("a | b | c")
    wait_for_held(1)
    box.fill("a | b | c | d")
    rows.nth(0).locator("input").press("ArrowRight")
    rows.nth(1).locator(".drop").click()
    assert box.input_value() == "a | b | c | d" and rows.count() == 2
    held[0].continue_()
    wait_for_held(2)
    tab.wait_for_timeout(200)
    assert rows.count() == 2  # the answer about three came too late
    held[1].continue_()
    rows.nth(3).wait_for()
    assert box.input_value() == "a | b | c | d"


def test_rows_are_there_when_the_tab_is_opened_later(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    enter(tab)
    start(tab, "a castle | fog:0.5", steps=10)
    wait_canvas(tab, "done")
    other = tab.context.new_page()
    other.add_init_script("localStorage.removeItem('atelier-job')")  # Generate is opened first
    with other.expect_response(
        lambda response: (
            "run/predict" in response.url
            and response.request.post_data_json["data"] == ["a castle | fog:0.5"]
        )
    ):
        other.goto(tab.url.split("?")[0], wait_until="domcontentloaded")
    other.wait_for_timeout(300)  # the prompt was filled in and parsed while the tab is closed
    assert not other.locator("#opt-prompt").count()
    enter(other)
    other.locator("#opt-rows .target").nth(1).wait_for()


def test_a_mask_is_painted_over_the_start_picture(visit: Any, queue: JobQueue, tmp_path: Path) -> None:
    Image.new("RGB", (96, 64), "navy").save(tmp_path / "start.png")
    tab = visit()
    enter(tab)
    tab.locator("#opt-image input[type=file]").set_input_files(tmp_path / "start.png")
    wait_canvas(tab, "ready").locator("img.now").wait_for()
    tab.locator("#brush [data-paint]").click()
    place = tab.locator("#canvas .mask").bounding_box()
    tab.mouse.move(place["x"] + place["width"] * 0.6, place["y"] + place["height"] * 0.2)
    tab.mouse.down()
    tab.mouse.move(place["x"] + place["width"] * 0.9, place["y"] + place["height"] * 0.8, steps=4)
    tab.mouse.up()
    tab.locator("#brush .masked").wait_for()
    keep(tab, "optimize-mask-en-light-1280")
    start(tab, "a slow sail", steps=240)
    wait_for_steps(tab, queue, 1)
    settings = newest(queue).settings
    mask = open_picture(settings["mask"]).convert("L")
    assert mask.size == open_picture(settings["image"]).size == (96, 64)
    assert mask.getpixel((5, 5)) == 0 and mask.getpixel((72, 32)) == 255
    wait_canvas(tab, "running").locator(".mask").wait_for()  # it stays over the live picture
    tab.locator("#brush [data-invert]").click()
    press(tab, "apply")
    tab.locator("#timeline .flag").first.wait_for()
    ((_, change),) = json.loads(newest(queue).settings["changes"]).items()
    assert open_picture(change["mask"]).convert("L").getpixel((5, 5)) == 255
    press(tab, "pause")
    wait_canvas(tab, "stopped")
    tab.locator("#brush [data-clear]").click()
    assert tab.locator("#opt-mask textarea, #opt-mask input").input_value() == ""


def test_a_drafts_own_file_is_handed_over(visit: Any, queue: JobQueue) -> None:
    picture = make(queue, "a red kite", seed=12)
    tab = visit()
    tab.locator("#prompt textarea").fill("a red kite")
    tab.locator("#prompt textarea").press("Control+Enter")
    tab.locator("#stage section.done figure:not([hidden]) [data-act=optimize]").click()
    wait_canvas(tab, "ready").locator("img.now").wait_for()
    assert tab.locator("#opt-prompt textarea").input_value() == "a red kite"
    assert tab.locator("#opt-steps input").input_value() == "30"
    tab.locator("#opt-prompt textarea").press("Control+Enter")
    wait_canvas(tab, "done")
    made = newest(queue)
    draft = next(
        job for job in queue.jobs(count=20) if job.pipeline == "generate" and job.session == made.session
    )
    given, kept = (read_texts(one) for one in (made.settings["image"], draft.pictures[0]["path"]))
    assert given["atelier"] == kept["atelier"] and "parameters" not in given  # the file itself, record inside

    tab.reload(wait_until="domcontentloaded")  # each tab finds its own again
    wait_canvas(tab, "done")
    tab.locator("#tab-generate-button").click()
    assert tab.locator("#stage section.done figure:not([hidden]) img").get_attribute("alt") == "a red kite"
    enlarge(tab, picture.name).locator("[data-to=optimize]").click()
    wait_canvas(tab, "ready").locator("img.now").wait_for()
    enlarge(tab, Path(made.pictures[0]["path"]).name).locator("[data-to=reuse]").click()
    tab.locator("#opt-note", has_text="settings of the picture").wait_for()


def test_failures_are_told_in_a_sentence_and_nothing_is_lost(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    enter(tab)
    press(tab, "start")
    tab.locator("#opt-note", has_text="The prompt is empty").wait_for()
    start(tab, "cat:-1")
    tab.locator("#opt-note", has_text="no positive weight").wait_for()
    start(tab, "a crash")
    failed = wait_canvas(tab, "failed")
    assert "ZeroDivisionError" in failed.inner_text() and "secret" not in failed.inner_text()
    assert "kept up to step 10" in failed.inner_text()
    tab.locator("#opt-prompt textarea").fill("a calm sea")
    press(tab, "resume")
    wait_canvas(tab, "done")
    unfold(tab, "#opt-advanced")
    tab.locator("#opt-advanced [name=regions]").fill("a sun @ /etc/hostname")
    press(tab, "start")
    tab.locator("#opt-note", has_text="The region's place '/etc/hostname' is not one of").wait_for()


def test_a_run_is_watched_from_the_start_on_a_slow_line(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    enter(tab)
    tab.wait_for_timeout(500)
    slow: list[Any] = []

    def hold(route: Any) -> None:
        if not slow and (route.request.post_data_json or {}).get("data", [])[2:] == ["empty"]:
            slow.append(route)  # a look at the empty canvas
        else:
            route.continue_()

    tab.route("**/run/predict*", hold)
    press(tab, "start")
    tab.locator("#opt-note", has_text="The prompt is empty").wait_for()
    while not slow:
        tab.wait_for_timeout(20)
    start(tab, "a moon")
    for _ in range(500):
        if newest(queue).settings["prompt"] == "a moon":
            break
        tab.wait_for_timeout(20)
    tab.wait_for_timeout(500)
    slow[0].continue_()
    wait_canvas(tab, "done")


def test_pleasing_only_clip_is_said(visit: Any, queue: JobQueue) -> None:
    tab = visit(lang="zh-CN")
    enter(tab)
    start(tab, "drift", steps=60)
    wait_canvas(tab, "done")
    tab.locator("#timeline .drift", has_text="只是在讨好 CLIP").wait_for()


@pytest.mark.parametrize("lang", ["en-US", "zh-CN"])
def test_nothing_sticks_out_at_360_pixels(visit: Any, queue: JobQueue, lang: str) -> None:
    tab = visit(lang=lang, width=360, height=740)
    enter(tab)
    assert overflow(tab) == []
    keep(tab, f"optimize-empty-{lang[:2]}-light-360")
    start(
        tab,
        "a slow castle in a very long sentence of fog | blur:-0.3 | anda-very-long-word-that-does-not-break",
        24,
    )
    tab.locator("#timeline .tick").first.wait_for()
    unfold(tab, "#opt-advanced")
    tab.locator("#opt-advanced [name=step_size]").wait_for()
    assert overflow(tab) == []
    wait_canvas(tab, "done")
    tab.locator("#timeline .tick").first.click()
    tab.locator("#brush [data-paint]").click()
    assert overflow(tab) == []
    keep(tab, f"optimize-done-{lang[:2]}-light-360")
    told = tab.locator("#optimize-controls").inner_text() + tab.locator("#optimize-view").inner_text()
    words = (
        ("时间轴", "再走 50 步", "起始图片", "步幅", "涂出可以改变的地方")
        if lang == "zh-CN"
        else ("Timeline", "start picture")
    )
    assert [word for word in words if word not in told] == []
    if lang == "zh-CN":
        english = [
            text
            for text in tab.locator("#optimize-controls label span:visible").all_inner_texts()
            if re.fullmatch(r"[a-z ]{4,}", text)
        ]
        assert english == []


def test_films_and_glimpses_answer_only_for_runs(studio: tuple[str, JobQueue]) -> None:
    import httpx

    url, queue = studio
    make(queue, "no journal")
    plain = next(job for job in queue.jobs(count=5) if job.pipeline == "generate").id
    for name in (
        f"film/{plain}.mp4",
        "film/nothing.mp4",
        "film/..%2f..%2fx.mp4",
        "film/a.txt",
        f"glimpse/{plain}/1.jpg",
        f"film/{'a' * 5000}.mp4",
        f"glimpse/{'a' * 5000}/1.jpg",
    ):
        assert httpx.get(url + name).status_code == 404, name


def test_every_setting_has_words_in_both_languages() -> None:
    from app.ui.i18n import KNOBS
    from app.ui.tabs.optimize.tab import HIDDEN
    from pipelines.optimize.settings import OptimizeSettings

    for knob in OptimizeSettings.knobs():
        assert knob.name in HIDDEN or all(KNOBS[knob.name]), knob.name
