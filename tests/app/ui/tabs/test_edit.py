"""The Edit tab in a real browser, over a fake that mixes colours into a picture and keeps a real journal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.jobs.queue import Job, JobQueue
from pipelines.core.record import read_record
from pipelines.io.images import open_picture
from tests.support.browser import enlarge, keep, make, overflow
from tests.support.painter import PAINTERS

pytestmark = pytest.mark.browser


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    picture = Image.linear_gradient("L").resize((96, 64))
    Image.merge("RGB", (picture, picture.rotate(180), Image.new("L", (96, 64), 160))).save(path)
    return path


UPLOAD = "input[type=file]:has(+ #edit-upload)"


LARGEST = str(2**64 - 1)  # a seed that JavaScript's numbers cannot hold


def enter(tab: Any) -> None:
    tab.locator("#tab-edit-button").click()
    tab.locator("#proof section").wait_for()


def lay(tab: Any, path: Path) -> None:
    tab.locator(UPLOAD).set_input_files(path)
    wait_proof(tab, "ready").locator("img.now").wait_for()


def say(tab: Any, source: str, target: str) -> None:
    tab.locator("#edit-form [name=source]").fill(source)
    tab.locator("#edit-form [name=prompt]").fill(target)


def choose(tab: Any, mode: str) -> None:
    tab.locator(f".mode:has([value={mode}])").click()


def press(tab: Any, act: str) -> None:
    tab.locator(f"#edit-buttons [data-act={act}]").click()


def wait_proof(tab: Any, state: str) -> Any:
    place = tab.locator(f"#proof section.{state}")
    place.wait_for()
    return place


def newest(queue: JobQueue) -> Job:
    return queue.job(next(job.id for job in queue.jobs(count=50) if job.pipeline == "edit"))


def wait_for_updates(queue: JobQueue, least: int) -> Job:
    for _ in range(500):
        time.sleep(0.02)
        job = next((one for one in queue.jobs(count=50) if one.pipeline == "edit"), None)
        if job and job.state == "running" and job.stage == "learn" and job.done >= least:
            return job
    raise AssertionError(newest(queue))


def fill_in(tab: Any, photo: Path) -> None:
    """The picture, the way and the two texts, and what the page estimates of them."""
    lay(tab, photo)
    choose(tab, "quick")
    say(tab, "a gradient", "a slow sunset")
    estimate = tab.locator("#edit-estimate .estimate", has_text="gradient")
    estimate.wait_for()
    assert (
        "93 %" in estimate.inner_text()
        and "77 %" in estimate.inner_text()
        and "12 s" in estimate.inner_text()
    )
    tab.evaluate(f"document.querySelector('#edit-controls [name=seed]').value = '{LARGEST}'")
    keep(tab, "edit-ready-en-light-1280")


def return_with(tab: Any, direction: Path) -> None:
    """A reload, after which the address brings back the run and its tab; then a direction from a file."""
    tab.reload(wait_until="domcontentloaded")
    wait_proof(tab, "done")
    assert tab.evaluate("document.querySelector('#edit-controls [name=seed]').value") == LARGEST
    tab.locator(UPLOAD).set_input_files(direction)
    tab.locator("#edit-note", has_text="On the shelf, and chosen").wait_for()
    assert tab.locator("#edit-shelf [data-use]:checked").count() == 1


def test_a_picture_becomes_a_strip_and_its_direction_goes_on_another(
    visit: Any,
    queue: JobQueue,
    photo: Path,
    tmp_path: Path,
) -> None:
    tab = visit()
    enter(tab)
    assert tab.locator("#edit-form [name=mode]").nth(0).input_value() == "instant"
    tab.locator("#edit-form [value=instant]:checked").wait_for(state="attached")
    keep(tab, "edit-empty-en-light-1280")
    fill_in(tab, photo)
    tab.locator("#edit-form [name=prompt]").press("Control+Enter")
    wait_proof(tab, "running").locator("img.now[src^='data:image/jpeg']").wait_for()
    tab.locator("#edit-learning polyline").first.wait_for()
    assert "Learning the direction" in tab.locator("#proof").inner_text()
    keep(tab, "edit-running-en-light-1280")
    done = wait_proof(tab, "done")
    tiles = done.locator("[data-strength]")
    assert [text.split("\n")[0] for text in tiles.all_inner_texts()] == ["0", "0.375", "0.75", "1", "1.5"]
    assert tiles.locator("nth=3").get_attribute("aria-pressed") == "true"
    wipe = done.locator(".wipe")
    wipe.focus()
    wipe.press("ArrowLeft")
    assert "49%" in done.locator(".frame").get_attribute("style")
    tiles.nth(1).click()
    assert done.locator(".frame img.now").get_attribute("src") == tiles.nth(1).get_attribute("data-src")
    keep(tab, "edit-done-en-light-1280")
    with tab.expect_download() as download:
        done.locator("figure:not([hidden]) a[download]").first.click()
    download.value.save_as(tmp_path / "saved.png")
    record = read_record(tmp_path / "saved.png", PAINTERS)
    assert record.settings["prompt"] == "a slow sunset" and record.picture["strength"] == 0.375
    given = open_picture(newest(queue).settings["image"])
    untouched = Image.open(
        next(picture["path"] for picture in newest(queue).pictures if picture["strength"] == 0)
    ).convert("RGB")
    assert untouched.tobytes() == given.tobytes() == Image.open(photo).tobytes()

    tab.locator("#edit-learning [data-act=keep]").click()
    row = tab.locator("#edit-shelf li", has_text="a gradient → a slow sunset").first
    row.wait_for()
    with tab.expect_download() as download:
        row.locator("a[download]").click()
    download.value.save_as(tmp_path / "sunset.safetensors")
    row.locator("[data-use]").check()
    slider = row.locator("input[type=range]")
    slider.focus()
    slider.press("ArrowLeft")
    tab.locator("#edit-form .resting").wait_for()
    keep(tab, "edit-directed-en-light-1280")
    first = newest(queue).id
    tab.locator("#proof [data-choose]").count()  # the last run's picture stays the one to edit
    press(tab, "edit")
    tab.wait_for_function(
        "job => (document.querySelector('#proof section.done')?.dataset.job ?? job) !== job", arg=first
    )
    applied = newest(queue).settings
    assert applied["directions"].startswith("data:") and applied["directions"].endswith(":0.95")
    assert applied["prompt"] == "a slow sunset" and not tab.locator("#edit-learning .learning").count()

    return_with(tab, tmp_path / "sunset.safetensors")


def test_user_mistakes_are_told_in_a_sentence(
    visit: Any, queue: JobQueue, photo: Path, tmp_path: Path
) -> None:
    tab = visit()
    enter(tab)
    say(tab, "a face", "The face.")
    press(tab, "edit")
    tab.locator("#edit-note", has_text="so there is nowhere to go").wait_for()
    say(tab, "a face", "the same face in other words")
    tab.locator("#edit-estimate", has_text="CLIP cannot tell").wait_for()
    say(tab, "", "a face")
    press(tab, "edit")
    tab.locator("#edit-note", has_text="The prompt is empty").wait_for()
    (tmp_path / "no.png").write_text("no picture")
    tab.locator(UPLOAD).set_input_files(tmp_path / "no.png")
    tab.locator("#edit-note", has_text="not a PNG, JPEG or WebP").wait_for()
    (tmp_path / "no.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    tab.locator(UPLOAD).set_input_files(tmp_path / "no.safetensors")
    tab.locator("#edit-note", has_text="no direction").wait_for()
    say(tab, "a stranger", "an angry face")
    lay(tab, photo)
    tab.locator("#edit-estimate", has_text="does not describe the picture").wait_for()
    say(tab, "a face", "a crash")
    choose(tab, "quick")
    press(tab, "edit")
    failed = wait_proof(tab, "failed")
    assert "ZeroDivisionError" in failed.inner_text() and "secret" not in failed.inner_text()
    assert "kept up to update 10" in failed.inner_text()


def test_stop_keeps_what_was_learned_and_looking_back_uses_less(visit: Any, queue: JobQueue) -> None:
    tab = visit(theme="dark")
    enter(tab)
    say(tab, "a thing", "a slow greedy thing")
    choose(tab, "quick")
    tab.locator("#edit-form [name=prompt]").press("Enter")  # without a picture: an example is taken
    wait_for_updates(queue, 23)
    press(tab, "stop")
    stopped = wait_proof(tab, "stopped")
    assert "what was learned was kept" in stopped.inner_text()
    first = newest(queue)
    learned = first.pictures[0]["updates"]
    assert queue.journal(first.id).steps()[-1] == learned and stopped.locator("[data-strength]").count() == 5
    assert "From update 15 on the critic liked it less" in tab.locator("#edit-learning").inner_text()
    slider = tab.locator("#edit-learning [data-learned]")
    slider.focus()
    slider.press("ArrowLeft")
    before = (learned - 1) // 10 * 10  # one in ten is kept, and the last
    tab.locator(f"#proof .glimpse[src='glimpse/{first.id}/{before}.jpg']").wait_for()
    tab.wait_for_function("() => document.querySelector('#proof .glimpse')?.naturalWidth > 0")
    assert f"update {before}" in tab.locator("#edit-learning .scrubbed").inner_text()
    keep(tab, "edit-stopped-en-dark-1280")
    tab.locator("#edit-learning .scrubbed [data-act=until]").click()
    wait_proof(tab, "done")
    less = newest(queue)
    assert less.settings["until"] == before and less.pictures[0]["updates"] == before
    tab.locator(f"#edit-earlier [data-job='{first.id}']").click()
    wait_proof(tab, "stopped")
    press(tab, "resume")
    wait_proof(tab, "done")
    assert queue.job(first.id).pictures[0]["updates"] == 40


def test_a_mask_is_painted_and_the_form_comes_back(visit: Any, queue: JobQueue, photo: Path) -> None:
    tab = visit()
    enter(tab)
    lay(tab, photo)
    tab.locator("#edit-brush [data-paint]").click()
    place = tab.locator("#proof .mask").bounding_box()
    tab.mouse.move(place["x"] + place["width"] * 0.6, place["y"] + place["height"] * 0.2)
    tab.mouse.down()
    tab.mouse.move(place["x"] + place["width"] * 0.9, place["y"] + place["height"] * 0.8, steps=4)
    tab.mouse.up()
    tab.locator("#edit-brush .masked").wait_for()
    choose(tab, "reusable")
    tab.locator(".more-settings summary").click()
    tab.locator("#edit-controls [name=l1_weight]").fill("0.5")
    tab.locator("#edit-controls [name=automatic_mask]").check()
    tab.locator("#edit-form [name=strength]").fill("-0.5")
    say(tab, "a gradient", "a sail")
    keep(tab, "edit-mask-en-light-1280")
    press(tab, "edit")
    wait_proof(tab, "done")
    settings = newest(queue).settings
    mask = open_picture(settings["mask"]).convert("L")
    assert mask.size == (96, 64) and mask.getpixel((5, 5)) == 0 and mask.getpixel((72, 32)) == 255
    known = {name: settings[name] for name in ("mode", "l1_weight", "automatic_mask", "strength")}
    assert known == {"mode": "reusable", "l1_weight": 0.5, "automatic_mask": True, "strength": -0.5}
    texts = tab.locator("#proof [data-strength] b").all_inner_texts()
    assert texts == ["−1", "−0.75", "−0.5", "−0.25", "0"]
    tab.reload(wait_until="domcontentloaded")
    wait_proof(tab, "done")
    tab.wait_for_function("() => document.querySelector('#edit-form [name=prompt]').value === 'a sail'")
    tab.locator("#edit-form [value=reusable]:checked").wait_for(state="attached")
    assert tab.locator("#edit-form [name=strength]").input_value() == "-0.5"


def test_pictures_go_from_tab_to_tab(visit: Any, queue: JobQueue) -> None:
    picture = make(queue, "a red kite", seed=12)
    tab = visit()
    tab.locator("#prompt textarea").fill("a red kite")
    tab.locator("#prompt textarea").press("Control+Enter")
    tab.locator("#stage section.done figure:not([hidden]) [data-act=edit]").click()
    wait_proof(tab, "ready").locator("img.now").wait_for()
    tab.wait_for_function("() => document.querySelector('#edit-form [name=source]').value === 'a red kite'")
    tab.locator("#edit-form [name=prompt]").fill("a blue kite")
    press(tab, "edit")
    wait_proof(tab, "done").locator("figure:not([hidden]) [data-act=optimize]").click()
    tab.locator("#canvas section.ready img.now").wait_for()
    enlarge(tab, picture.name).locator("[data-to=edit]").click()
    wait_proof(tab, "ready")
    made = Path(newest(queue).pictures[0]["path"])
    enlarge(tab, made.name).locator("[data-to=reuse]").click()
    tab.locator("#edit-note", has_text="settings of the picture").wait_for()
    tab.wait_for_function("() => document.querySelector('#edit-form [name=prompt]').value === 'a blue kite'")


@pytest.mark.parametrize("lang", ["en-US", "zh-CN"])
def test_nothing_sticks_out_at_360_pixels(visit: Any, queue: JobQueue, lang: str) -> None:
    tab = visit(lang=lang, width=360, height=740)
    enter(tab)
    assert overflow(tab) == []
    first = "一张脸" if lang == "zh-CN" else "a face"
    assert tab.locator("#edit-form [name=source]").input_value() == first
    keep(tab, f"edit-empty-{lang[:2]}-light-360")
    tab.locator("#proof [data-act=begin]").first.click()
    wait_proof(tab, "ready")
    say(tab, "a very long description of a face that does not end", "averylongwordthatcannotbebroken greedy")
    choose(tab, "quick")
    tab.locator("#edit-estimate .estimate").wait_for()
    press(tab, "edit")
    wait_proof(tab, "done")
    tab.locator("#edit-learning [data-act=keep]").click()
    tab.locator("#edit-shelf li").first.wait_for()
    tab.locator(".more-settings summary").click()
    tab.locator("#edit-brush [data-paint]").click()
    assert overflow(tab) == []
    keep(tab, f"edit-done-{lang[:2]}-light-360")
    if lang == "zh-CN":
        told = tab.locator("#edit-view").inner_text() + tab.locator("#edit-controls").inner_text()
        words = ("快速", "改变多少", "原样", "保存这个方向", "退回第", "返回步", "自动蒙版")
        assert [word for word in words if word not in told] == []


def test_only_directions_of_the_shelf_are_served(studio: tuple[str, JobQueue]) -> None:
    import httpx

    url, queue = studio
    (queue.folder / "directions").mkdir(exist_ok=True)
    for name in ("nothing.safetensors", "..%2fjobs.sqlite", "..%2f..%2fx.safetensors", "a.txt"):
        assert httpx.get(f"{url}direction/{name}").status_code == 404, name


def test_every_setting_has_words_in_both_languages() -> None:
    from app.ui.i18n import KNOBS
    from app.ui.tabs.edit.tab import HIDDEN
    from pipelines.edit.settings import EditSettings

    for knob in EditSettings.knobs():
        assert knob.name in HIDDEN or all(KNOBS.get(f"edit_{knob.name}") or KNOBS[knob.name]), knob.name
