"""`python -m tests.support.first_paint URL [URL]`: how soon studios that run at these addresses are seen in a browser.

Prints JSON: for each address the milliseconds of the first contentful paint and until the prompt can be typed into,
medians of RUNS visits with an empty cache, by turns; of two addresses, such as this commit and an earlier one, the first
over the second.
"""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import Any

from tests.support import chromium as browsers

RUNS = 7
PAINTED = """() => {
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  return paint ? paint.startTime : 0;
}"""
READY = """() => {
  const box = document.querySelector('#prompt textarea');
  return box && box.offsetParent ? performance.now() : 0;
}"""


def visit(browser: Any, url: str) -> tuple[float, float]:
    """Milliseconds from the request to the first contentful paint, and until the prompt is there."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    tab = context.new_page()
    tab.goto(url, wait_until="commit")
    ready = tab.wait_for_function(READY, polling=10, timeout=120_000).json_value()
    painted = tab.wait_for_function(PAINTED, polling=10).json_value()
    context.close()
    return painted, ready


def main(urls: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = browsers.start(driver)
        assert browser is not None, "no browser starts here"
        for url in urls:  # its first answer is slower
            visit(browser, url)
        times = [[visit(browser, url) for url in urls] for _ in range(RUNS)]
        browser.close()
    figures: dict[str, Any] = {}
    for k, url in enumerate(urls):
        figures[url] = {
            name: round(median(row[k][of] for row in times)) for of, name in enumerate(("painted", "ready"))
        }
    if len(urls) == 2:
        figures["first over second"] = {
            name: round(median(row[0][of] / row[1][of] for row in times), 3)
            for of, name in enumerate(("painted", "ready"))
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
