"""A sheet as a form: what changes along its columns and rows, how many pictures that makes, and its cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.jobs.queue import JobQueue
from app.ui.axes import choices_of, first_values
from pipelines.core.axes import MOST_VALUES, WORDS
from pipelines.studio import PIPELINES
from tests.support.browser import make, overflow


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_values_to_begin_with_make_a_sheet(pipeline: str) -> None:
    kind = PIPELINES[pipeline].Settings
    choices = {one.name: one for one in choices_of(kind, pipeline)}
    assert {"prompt", "seed", "style", WORDS} <= set(choices) and not {"x", "y", "keep", "image"} & set(
        choices
    )
    assert len(choices) == len(choices_of(kind, pipeline))
    for one in choices.values():
        assert all(one.label) and len(one.first) <= MOST_VALUES
        if one.first:
            cells = kind(x=f"{one.name}={','.join(one.first)}").cells()
            assert len(cells) == len(one.first)
        for value, *words in one.choices:
            assert all(words) and kind(x=f"{one.name}={value}").cells()


def test_values_lie_around_the_default() -> None:
    knobs: dict[str, Any] = {knob.name: knob for knob in PIPELINES["generate"].Settings.knobs()}
    assert first_values(knobs["seed"]) == ("1", "2", "3", "4")
    assert first_values(knobs["guidance"]) == ("1.5", "3", "6")
    assert first_values(knobs["top_p"]) == ("0.5", "1")  # 2 would be too much


def test_a_run_of_a_sheet_counts_as_many(queue: JobQueue) -> None:
    make(queue, seed=1)
    alone = queue.seconds_each("generate")
    make(queue, seed=1, x="guidance=1,2,3,4,5,6")
    together = queue.seconds_each("generate")
    assert alone and together and 0.4 * alone < together < 1.6 * alone


def along(tab: Any, key: str) -> Any:
    return tab.locator(f"#generate [data-along={key}]")


def unfold(tab: Any) -> Any:
    tab.locator("#generate .axes summary").click()
    along(tab, "x").locator("option[value=guidance]").wait_for(state="attached")
    return tab.locator("#generate .axes")


@pytest.mark.browser
def test_a_sheet_is_chosen_drawn_and_opened(visit: Any, queue: JobQueue, tmp_path: Path) -> None:
    make(queue)
    tab = visit()
    form, columns, rows = unfold(tab), along(tab, "x"), along(tab, "y")
    columns.locator("select").select_option("guidance")
    entry = columns.locator(".values input")
    entry.fill("99")
    entry.press("Enter")
    assert "99 is not from 0 to 20" in columns.locator(".hint").inner_text()
    entry.fill("9, 12")
    entry.press("Enter")
    entry = columns.locator(".values input")
    entry.press("Backspace")  # in an empty field
    columns.locator("[data-drop='1.5']").click()
    assert columns.locator("[name=x]").input_value() == "guidance=3,6,9"
    rows.locator("select").select_option("words")
    tab.locator("#prompt textarea").fill("a red house, slow")
    rows.locator("[data-take]").first.wait_for(state="attached")
    rows.locator("select").select_option("style")
    for name in ("simple", "soft"):
        rows.locator(f"[data-toggle={name}]").press("Enter")
    assert rows.locator("[name=y]").input_value() == "style=cartoon"
    rows.locator("[data-toggle=flat]").press("Enter")
    assert "6 pictures" in form.locator(".sum").inner_text() and "about" in form.locator(".sum").inner_text()
    assert form.locator("summary output").inner_text() == "3 × 2" and form.locator(".plan i").count() == 6
    tab.locator("#prompt textarea").fill("a red house")
    tab.locator("#go").click()
    cells = tab.locator("#sheet .cells td button")
    cells.first.wait_for()
    assert cells.count() == 6 and tab.locator("#sheet tbody th").all_inner_texts() == [
        "style cartoon",
        "style flat",
    ]
    cells.nth(1).click()
    assert "guidance 6 · style cartoon" in tab.locator("#stage figure:visible").inner_text()
    cells.nth(1).press("ArrowDown")
    assert "guidance 6 · style flat" in tab.locator("#stage figure:visible").inner_text()
    assert cells.nth(4).evaluate("(one) => one === document.activeElement && one.ariaPressed") == "true"
    form.locator("[data-axes-swap]").click()
    assert columns.locator("[name=x]").input_value() == "style=cartoon,flat"
    form.locator("[data-axes-clear]").click()
    form.locator(".plan").wait_for(state="hidden")
    assert not columns.locator("[name=x]").input_value()
    tab.locator("#sheet .cells > .quiet").click()
    tab.locator("#stage figure:visible [data-act=reuse]").click()
    form.locator("summary output", has_text="3 × 2").wait_for()
    columns.locator(".value").first.wait_for()
    assert [text.split()[0] for text in columns.locator(".value").all_inner_texts()] == ["3", "6", "9"]


@pytest.mark.browser
@pytest.mark.parametrize("tab_name", ["generate", "optimize", "edit"])
def test_the_form_fits_at_360_pixels(visit: Any, tab_name: str) -> None:
    tab = visit(lang="zh-CN", width=360)
    tab.locator(f"#tab-{tab_name}-button").click()
    fold = tab.locator(f"#{tab_name} .axes")
    fold.locator("summary").click()
    columns = fold.locator("[data-along=x]")
    columns.locator("option[value=style]").wait_for(state="attached")
    columns.locator("select").select_option("style")
    assert columns.locator("[aria-pressed=true]").all_inner_texts() in (
        ["卡通", "柔和", "简洁"],
        ["不限", "卡通", "柔和"],
    )
    assert fold.locator("summary output").inner_text() == "3 × 1" and not overflow(tab)
