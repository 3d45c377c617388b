"""Links that carry a recipe: copied beside a picture, opened by a stranger, never run by themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

from app.jobs.queue import JobQueue
from app.recipe import read_recipe, recipe_of
from app.ui import theme
from pipelines.io.images import picture_to_uri
from pipelines.optimize.settings import OptimizeSettings
from tests.app.test_recipe import packed
from tests.support.browser import ask, enlarge, keep, overflow, wait_state
from tests.support.painter import PAINTERS

pytestmark = pytest.mark.browser
RED = picture_to_uri(Image.new("RGB", (64, 64), "red"))


def press(tab: Any, place: str) -> str:
    """Press "Copy link" in a place: the link, from the clipboard."""
    button = tab.locator(f"{place} [data-link]:visible").first
    button.scroll_into_view_if_needed()
    button.click()
    tab.locator(f"{place} .told:visible").first.wait_for()
    return tab.evaluate("navigator.clipboard.readText()")


def finished(queue: JobQueue, pipeline: str, **settings: Any) -> str:
    """The id of a finished job."""
    job_id = queue.submit(pipeline, settings, "somebody")
    for _ in range(2000):
        if queue.job(job_id).is_over:
            return job_id
        import time

        time.sleep(0.01)
    raise AssertionError(queue.job(job_id))


@pytest.mark.parametrize(("lang", "theme_name", "width"), [("en-US", "light", 1280), ("zh-CN", "dark", 360)])
def test_a_link_is_copied_and_fills_a_strangers_form(
    visit: Any, queue: JobQueue, lang: str, theme_name: str, width: int
) -> None:
    tab = visit(lang=lang, theme=theme_name, width=width)
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.locator("#knob-candidates input").fill("7")
    ask(tab, "a red & <b>blue</b> 心")
    wait_state(tab, "done")
    link = press(tab, "#stage")
    assert overflow(tab) == []
    keep(tab, f"link-copied-{lang[:2]}-{theme_name}-{width}")
    said = tab.locator("#stage .told:visible").inner_text()
    assert said == (
        "Link copied. It opens the studio with these settings; nothing runs by itself."
        if lang == "en-US"
        else "链接已复制。打开后会填好这些设置，不会自动运行。"
    )
    assert link.startswith(tab.url.split("?")[0] + "?r=")
    recipe = read_recipe(link.split("?r=")[1], PAINTERS)
    assert recipe.settings.prompt == "a red & <b>blue</b> 心" and recipe.left_out == ()

    before = len(queue.jobs(count=1000))
    stranger = visit(lang=lang, theme=theme_name, width=width, at=link)
    stranger.locator("#note .note").wait_for()
    assert ("came from a link" if lang == "en-US" else "来自一个链接") in stranger.locator(
        "#note"
    ).inner_text()
    assert stranger.locator("#prompt textarea").input_value() == "a red & <b>blue</b> 心"
    assert stranger.locator("#knob-candidates input").input_value() == "7"
    assert stranger.locator("#knob-seed input").input_value() == str(recipe.settings.seed)
    stranger.locator("#roll input:not(:checked)").wait_for(state="attached")
    stranger.locator("#stage section.empty").wait_for()
    keep(stranger, f"link-opened-{lang[:2]}-{theme_name}-{width}")
    assert overflow(stranger) == []
    assert len(queue.jobs(count=1000)) == before
    stranger.locator("#go").click()
    wait_state(stranger, "done")
    assert "r=" not in stranger.url.split("?")[1].replace("job=", "") and "job=" in stranger.url
    newest = queue.jobs(count=1)[0]
    assert newest.settings["seed"] == recipe.settings.seed and newest.settings["candidates"] == 7


def test_optimize_and_edit_are_opened_by_their_links(
    visit: Any, studio: tuple[str, JobQueue], queue: JobQueue
) -> None:
    url, _ = studio
    grown = finished(queue, "optimize", prompt="a green apple", steps=10, init=RED, palette="#d9432f", seed=4)
    tab = visit(at=f"{url}?job={grown}")
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.locator("#canvas [data-link]:visible").first.wait_for()
    link = press(tab, "#canvas")
    assert "Not in the link: start picture." in tab.locator("#canvas .told:visible").inner_text()
    keep(tab, "link-copied-optimize-en-light-1280")
    stranger = visit(theme="dark", at=link)
    stranger.locator("#opt-note .note", has_text="Not in the link: start picture.").wait_for()
    assert stranger.locator("#opt-prompt textarea").input_value() == "a green apple"
    assert stranger.locator("#opt-steps input").input_value() == "10"
    assert stranger.locator("#opt-seed input").input_value() == "4"
    stranger.locator("#canvas section.empty").wait_for()
    keep(stranger, "link-opened-optimize-en-dark-1280")

    edited = finished(
        queue, "edit", prompt="a fox face", source="a cat face", image=RED, mode="instant", strip=3
    )
    tab.goto(f"{url}?job={edited}", wait_until="domcontentloaded")
    tab.locator("#proof [data-link]:visible").first.wait_for()
    link = press(tab, "#proof")
    keep(tab, "link-copied-edit-en-light-1280")
    chinese = visit(lang="zh-CN", width=360, at=link)
    chinese.locator("#edit-note .note", has_text="链接里没有：图片").wait_for()
    chinese.wait_for_function(
        "() => document.querySelector('#edit-controls [name=prompt]').value === 'a fox face'"
    )
    form = json.loads(chinese.evaluate("window.atelier.values()"))
    assert (form["source"], form["mode"], form["strip"]) == ("a cat face", "instant", 3)
    keep(chinese, "link-opened-edit-zh-light-360")
    assert overflow(chinese) == []


def test_links_of_the_library_and_where_copying_is_forbidden(visit: Any, queue: JobQueue) -> None:
    finished(queue, "generate", prompt="a brown nut", candidates=2, keep=1)
    for lang, theme_name, width in (("en-US", "light", 1280), ("zh-CN", "dark", 360)):
        tab = visit(lang=lang, theme=theme_name, width=width)
        # a page that came by plain http has no clipboard, and a strict browser refuses the old way too
        tab.evaluate(
            "() => { Object.defineProperty(navigator, 'clipboard', { value: undefined });"
            " document.execCommand = () => false; }"
        )
        card = enlarge(tab)
        card.locator("[data-link]").click()
        field = card.locator(".told input")
        field.wait_for()
        assert read_recipe(field.input_value().split("?r=")[1], PAINTERS).settings.prompt == "a brown nut"
        assert (
            tab.evaluate("getSelection().toString() || document.activeElement.value") == field.input_value()
        )
        assert ("forbids copying" if lang == "en-US" else "不允许") in card.locator(".told").inner_text()
        card.locator(".copied").wait_for(state="hidden")
        keep(tab, f"link-library-{lang[:2]}-{theme_name}-{width}")
        assert overflow(tab) == []


def test_the_old_way_of_copying_is_tried(visit: Any) -> None:
    tab = visit()
    tab.context.grant_permissions(["clipboard-read"])
    ask(tab, "a red cup")
    wait_state(tab, "done")
    tab.evaluate("() => { window.real = navigator.clipboard; navigator.clipboard.writeText = undefined; }")
    assert press(tab, "#stage").split("?r=")[1]
    tab.locator("#stage .told:visible .copied").wait_for()


def test_a_long_prompt_says_that_it_has_no_link(visit: Any) -> None:
    import random

    chance = random.Random(5)
    tab = visit()
    ask(tab, "".join(chance.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(1990)))
    wait_state(tab, "done")
    tab.locator("#stage [data-link]:visible").click()
    assert "a link has room for 1,500" in tab.locator("#stage .told:visible").inner_text()


def test_a_forged_link_is_answered_in_a_sentence(
    visit: Any, studio: tuple[str, JobQueue], queue: JobQueue
) -> None:
    url, _ = studio
    before = len(queue.jobs(count=1000))
    for lang, text, sentence in (
        ("en-US", "%00%ff<script>", "The link's recipe is damaged"),
        ("zh-CN", packed(["generate", {"candidates": 900}]), "候选数 900 太大，最大为 512"),
        ("en-US", packed(["generate", {"prompt": "x", "size": 3}]), "Setting 'size' is not known"),
        ("zh-CN", packed(["generate", {"image": "/etc/hostname"}]), "链接里的设置指向文件"),
    ):
        tab = visit(lang=lang, at=f"{url}?r={text}")
        tab.locator("#note .trouble", has_text=sentence).wait_for()
        assert tab.locator("#prompt textarea").input_value() == ""
    assert len(queue.jobs(count=1000)) == before


def test_the_other_drawing_pipelines_link_lends_what_both_know(
    visit: Any, studio: tuple[str, JobQueue]
) -> None:
    recipe = recipe_of("diffuse", {"prompt": "a castle", "seed": 9, "width": 512})
    tab = visit(at=f"{studio[0]}?r={recipe.text()}")
    tab.locator("#note .note").wait_for()
    assert tab.locator("#prompt textarea").input_value() == "a castle"
    assert tab.locator("#knob-seed input").input_value() == "9"


def test_on_a_space_links_have_its_address(monkeypatch: Any) -> None:
    monkeypatch.delenv("SPACE_HOST", raising=False)
    assert "<meta" not in theme.head().split("<script>")[0]
    monkeypatch.setenv("SPACE_HOST", 'somebody-atelier.hf.space">')
    assert theme.head().startswith(
        '<meta name="atelier-address" content="https://somebody-atelier.hf.space&quot;&gt;/"><style>'
    )


def test_the_page_says_where_its_api_is(visit: Any) -> None:
    for lang, theme_name, width in (("en-US", "light", 1280), ("zh-CN", "dark", 360)):
        tab = visit(lang=lang, theme=theme_name, width=width)
        tab.locator("footer .show-api").scroll_into_view_if_needed()
        keep(tab, f"footer-{lang[:2]}-{theme_name}-{width}")
        tab.locator("footer .show-api").click()
        tab.get_by_text("/generate").first.wait_for()
        for name in ("/diffuse", "/optimize", "/edit", "/rank", "/search"):
            assert tab.get_by_text(name, exact=True).count()
        keep(tab, f"api-{lang[:2]}-{theme_name}-{width}")


def test_a_run_that_was_changed_opens_as_it_ended() -> None:
    settings = OptimizeSettings(prompt="a cat").changed(30, prompt="a dog")
    assert read_recipe(recipe_of("optimize", settings.to_dict()).text()).settings.prompt == "a dog"
