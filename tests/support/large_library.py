"""`python -m tests.support.large_library [COUNT]`: how fast the tab Library is in a browser, with COUNT pictures (5,000).

Prints JSON: seconds from the click on the tab to pictures on the wall, and to each answer of a search; medians of RUNS.
CLIP is the tiny pack's. The index is filled before.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from app.jobs.queue import JobQueue
from app.library import Library
from pipelines.studio import Studio
from tests.support import chromium as browsers
from tests.support.wall import write_picture

COUNT, RUNS, SIDE = 5000, 5, 128
SETTLED_MS = 2000  # until the page has nothing to do; its streams stay open, so its network is never idle
WORDS = ("a red heart", "cat:1 night:0.5 -dog", "something blue", "红色的心", "a round yellow thing")
PAINTED = """() => {
  const first = document.querySelector('#library .pictures .shot img');
  return first && first.complete && first.naturalWidth > 0;
}"""
FOUND = (
    "() => !document.querySelector('.library.asking') && document.querySelector('#library .shot .nearness')"
)


def fill(folder: Path, count: int) -> None:
    """Pictures of `count` looks: blurred noise in random colours, a hundred a day."""
    random = np.random.default_rng(0)
    for k in range(count):
        small = random.integers(0, 256, (4, 4, 3), np.uint8)
        picture = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        write_picture(folder / f"day{k // 100:03}" / f"{k:05}.png", picture, prompt=f"card {k % 97}", seed=k)


def measure(url: str, browser: Any) -> dict[str, Any]:
    """Seconds of opening the tab and of searches, in one visit after another."""
    opening, searching = [], []
    for _ in range(RUNS):
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        tab.goto(url, wait_until="load")
        tab.locator("#tab-library-button").wait_for()
        tab.wait_for_timeout(SETTLED_MS)
        begun = time.perf_counter()
        tab.locator("#tab-library-button").click()
        tab.wait_for_function(PAINTED, polling=10)
        opening.append(time.perf_counter() - begun)
        tab.wait_for_timeout(SETTLED_MS)
        for words in WORDS:
            tab.locator("#library [type=search]").fill(words)
            begun = time.perf_counter()
            with tab.expect_response("**/library/find"):
                tab.locator("#library [type=search]").press("Enter")
            tab.wait_for_function(FOUND, polling=10)
            searching.append(time.perf_counter() - begun)
        tab.close()
    return {
        "open_s": round(median(opening), 3),
        "open_worst_s": round(max(opening), 3),
        "search_s": round(median(searching), 3),
        "search_worst_s": round(max(searching), 3),
    }


def main(count: int) -> None:
    from playwright.sync_api import sync_playwright

    from app.ui import page

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        begun = time.perf_counter()
        fill(folder, count)
        made = time.perf_counter()
        studio = Studio(pack="tiny", device="cpu")
        queue, library = JobQueue(studio, folder), Library(folder)
        library.search(studio.clip(), "a red heart")
        filled = time.perf_counter()
        blocks = page.build(studio, queue, library)
        _, url = page.launch(blocks)
        with sync_playwright() as driver:
            browser = browsers.start(driver)
            assert browser is not None, "no browser starts here"
            figures = measure(url, browser)
            browser.close()
        blocks.close(verbose=False)
        queue.close()
        library.close()
    facts = {"pictures": count, "index_s": round(filled - made, 1), "made_s": round(made - begun, 1)}
    print(json.dumps({**facts, **figures}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
