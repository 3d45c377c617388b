"""What the browser is sent before anything is seen."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

from app.jobs.queue import JobQueue
from app.ui import theme


def sent(url: str) -> tuple[int, dict[str, Any]]:
    """The size of the page in characters, and Gradio's config in it."""
    text = httpx.get(url).text
    found = re.search(r"window\.gradio_config = (.*?);</script>", text)
    assert found
    return len(text), json.loads(found[1])


def test_the_page_is_sent_only_what_it_shows(studio: tuple[str, JobQueue]) -> None:
    size, config = sent(studio[0])
    assert size < 750_000
    endpoints = {
        one["id"] for one in httpx.get(f"{studio[0]}config").json()["components"] if one["type"] == "api"
    }
    there = {one["id"] for one in config["components"]}
    assert endpoints and not endpoints & there
    assert not endpoints & {child["id"] for child in config["layout"]["children"]}
    asked = re.findall(r'__i18n__\{\\*"[^}]*?key\\*": ?\\*"(\w+)', json.dumps(config["components"]))
    assert asked and set(config["i18n_translations"]["en"]) == set(asked)


def test_rules_of_the_sheets_weigh_as_under_gradios_own_setting() -> None:
    sheet, inside = theme.style(), ":is(html, .w.w.w)"
    assert f"\n{inside} .stage.empty p {{" in sheet
    assert f"{inside} .tray .deeds :is(.quiet, {inside} summary) {{" in sheet
    assert '\nhtml:not([data-lang="zh"]) .zh, html[data-lang="zh"] .en {' in sheet
    assert "\n.gradio-container .block.padded {" in sheet and "@keyframes breathe { 50% {" in sheet
    assert sheet.count("{") == sheet.count("}") and "/*" not in sheet
    assert f"<style>{sheet}</style>" in theme.head()
