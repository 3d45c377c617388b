"""The mask painter: steps back and forth, and a closer look by wheel, pinch, buttons and keys."""

from __future__ import annotations

from typing import Any

import pytest

from app.jobs.queue import JobQueue
from tests.support.browser import make, overflow

pytestmark = pytest.mark.browser
PAINTED = """() => { const mask = document.querySelector('.frame .mask');
  const levels = mask.getContext('2d').getImageData(0, 0, mask.width, mask.height).data;
  let count = 0; for (let at = 3; at < levels.length; at += 4) count += levels[at] > 8; return count; }"""


def painter(visit: Any, queue: JobQueue, **options: Any) -> Any:
    """A tab with a picture to edit and the brush in hand."""
    picture = make(queue, "a red kite", seed=12)
    tab = visit(**options)
    tab.locator("#tab-edit-button").click()
    tab.locator("#proof section.empty").wait_for()
    tab.locator("input[type=file]:has(+ #edit-upload)").set_input_files(picture)
    tab.locator("#proof section.ready .frame img.now").wait_for()
    tab.locator("#edit-brush [data-paint]").click()
    tab.locator("#proof .mask").wait_for()
    return tab


def point(tab: Any, across: float, down: float) -> None:
    """The mouse to a place of what is seen of the picture, in shares of its sides."""
    box = tab.locator("#proof .frame").bounding_box()
    tab.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)


def draw(tab: Any, across: float, down: float) -> None:
    """A dot there."""
    point(tab, across, down)
    tab.mouse.down()
    tab.mouse.up()


def test_what_was_painted_is_undone_and_done_again(visit: Any, queue: JobQueue) -> None:
    tab = painter(visit, queue)
    undo, redo = tab.locator("#edit-brush [data-undo]"), tab.locator("#edit-brush [data-redo]")
    assert undo.get_attribute("aria-disabled") == redo.get_attribute("aria-disabled") == "true"
    counts = [tab.evaluate(PAINTED)]
    for across in (0.2, 0.8):
        draw(tab, across, 0.3)
        counts.append(tab.evaluate(PAINTED))
    assert counts[0] == 0 < counts[1] < counts[2]
    undo.click()
    assert tab.evaluate(PAINTED) == counts[1]
    tab.keyboard.press("Control+z")
    tab.locator("#edit-brush .masked").wait_for(state="hidden")
    assert tab.evaluate(PAINTED) == 0
    tab.keyboard.press("Control+Shift+z")
    redo.click()
    assert tab.evaluate(PAINTED) == counts[2] and redo.get_attribute("aria-disabled") == "true"
    tab.locator("#edit-brush [data-clear]").click()
    tab.keyboard.press("Control+z")
    assert tab.evaluate(PAINTED) == counts[2]
    draw(tab, 0.5, 0.8)
    assert redo.get_attribute("aria-disabled") == "true"  # a new step leaves no other ones


def test_a_closer_look_paints_finer_and_where_it_is_seen(visit: Any, queue: JobQueue) -> None:
    tab = painter(visit, queue)
    draw(tab, 0.25, 0.25)
    coarse = tab.evaluate(PAINTED)
    tab.keyboard.press("Control+z")
    told = tab.locator("#edit-brush [data-zoom-told]")
    point(tab, 0.25, 0.25)
    tab.mouse.wheel(0, 300)  # away from the whole picture the page scrolls
    tab.wait_for_timeout(100)
    assert told.inner_text() == "100 %"
    tab.evaluate("scrollTo(0, 0)")
    point(tab, 0.25, 0.25)
    tab.mouse.wheel(0, -400)
    tab.wait_for_function(
        "() => parseInt(document.querySelector('#edit-brush [data-zoom-told]').textContent) > 250"
    )
    draw(tab, 0.25, 0.25)  # the place under the pointer stays where it was
    found = tab.evaluate(
        """() => { const mask = document.querySelector('.frame .mask');
          return mask.getContext('2d').getImageData(mask.width / 4, mask.height / 4, 1, 1).data[3]; }"""
    )
    assert found > 200 and 0 < tab.evaluate(PAINTED) < coarse / 4
    tab.keyboard.press("0")
    assert told.inner_text() == "100 %" and not tab.locator("#proof .frame.close").count()
    tab.locator("#edit-brush [data-zoom='1']").click()
    assert told.inner_text() == "150 %"
    tab.keyboard.press("-")
    assert told.inner_text() == "100 %" and overflow(tab) == []


def test_two_fingers_zoom_and_paint_nothing(visit: Any, queue: JobQueue) -> None:
    tab = painter(visit, queue, width=360, lang="zh-CN")
    tab.evaluate(
        """() => {
          const mask = document.querySelector('.frame .mask'), box = mask.getBoundingClientRect();
          const touch = (kind, id, x, y) => (kind === 'pointerdown' ? mask : window).dispatchEvent(new PointerEvent(kind,
            { pointerType: 'touch', pointerId: id, clientX: box.left + x, clientY: box.top + y, bubbles: true }));
          touch('pointerdown', 1, 100, 100); touch('pointermove', 1, 104, 100); touch('pointerdown', 2, 140, 100);
          touch('pointermove', 2, 200, 100);
          for (const id of [1, 2]) touch('pointerup', id, 100, 100);
        }"""
    )
    assert int(tab.locator("#edit-brush [data-zoom-told]").inner_text().split()[0]) > 200
    assert (
        tab.evaluate(PAINTED) == 0
        and tab.locator("#edit-brush [data-undo]").get_attribute("aria-disabled") == "true"
    )
    tab.keyboard.press("0")
    tab.keyboard.press("0")
    assert overflow(tab) == []
