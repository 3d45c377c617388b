"""The Library tab: the pictures made here, found again by what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from app.library import Entry
from app.ui.context import QUIET, Shell, acting
from app.ui.html.generate import button, downloads, trouble
from app.ui.i18n import both
from app.ui.link import copy_link
from app.ui.tabs.generate import DRAWING
from pipelines.core.record import read_record
from pipelines.errors import BadInput

PAGE = 48  # pictures shown at a time


def build(shell: Shell, tab: gr.Tab) -> None:
    """A search box and a wall of pictures."""
    with gr.Row(elem_id="library-search"):
        query = shell.words(
            gr.Textbox(elem_id="library-query", scale=6, max_length=500),
            label="search",
            placeholder="search_hint",
        )
        shown = gr.Number(PAGE, precision=0, visible=False, min_width=0)
        find = shell.words(gr.Button(elem_id="library-find", scale=0, min_width=96), value="find")
    wall = acting(elem_id="library-wall")

    def recent(count: float = PAGE) -> tuple[str, int]:
        count = min(max(int(count), PAGE), 2000)
        return _recent(shell, count), count

    def look_for(text: str) -> str:
        text = " ".join(text.split())
        if not text:
            return _recent(shell, PAGE)
        try:
            found = shell.library.search(shell.studio.clip(), text[:500], PAGE)
        except BadInput as problem:
            return trouble(str(problem))
        return _wall(
            shell, [entry for entry, _ in found], both("library_found", text=text), [s for _, s in found]
        )

    def act(count: float, event: gr.EventData) -> tuple[Any, ...]:
        """More like this, settings into the form, or a longer wall."""
        told = {key: str(value) for key, value in (event._data or {}).items()}
        nothing = [gr.skip()] * 2
        if told.get("act") == "more":
            return *recent(count + PAGE), *nothing
        if told.get("act") in ("optimize", "edit"):
            return gr.skip(), gr.skip(), *shell.hand_over(event)
        try:
            path = shell.pictures.path(told.get("name", ""))
            if told.get("act") == "reuse":
                made_by = read_record(path, shell.lane.pipelines).pipeline
                goes = "generate" if made_by in DRAWING else made_by
                return gr.skip(), gr.skip(), f"{goes}:settings:{told['name']}", gr.Tabs(selected=goes)
            found = shell.library.similar(shell.studio.clip(), path, PAGE)
        except BadInput as problem:
            return trouble(str(problem)), gr.skip(), *nothing
        html = _wall(shell, [entry for entry, _ in found], both("library_alike"), [s for _, s in found])
        return html, gr.skip(), *nothing

    gr.on([find.click, query.submit], look_for, [query], [wall], **QUIET)
    wall.click(act, [shown], [wall, shown, shell.hand, shell.tabs], **QUIET)
    tab.select(recent, None, [wall, shown], **QUIET)  # the tab itself, when it is opened


def _recent(shell: Shell, count: int) -> str:
    entries = shell.library.recent(count)
    total = shell.library.count()
    more = f'<p class="more">{button("library_more", "more")}</p>' if total > len(entries) else ""
    return _wall(shell, entries, both("library_recent", count=f"{total:,}")) + more


def _wall(shell: Shell, entries: Sequence[Entry], title: str, scores: Sequence[float] = ()) -> str:
    """Pictures with their prompts; nothing of a record is believed to be HTML."""
    if not entries:
        return f'<section class="wall empty"><p>{both("library_empty")}</p></section>'
    cards = []
    for index, entry in enumerate(entries):
        url, name = escape(shell.pictures.url(entry.path)), shell.pictures.name(entry.path)
        prompt = escape(entry.prompt)
        score = f"<small>{scores[index]:.3f}</small>" if scores else ""
        cards.append(
            f'<article><img src="{url}" alt="{prompt}" loading="lazy"><p title="{prompt}"><span>{prompt}</span>{score}</p>'
            f'<div class="acts">{downloads(shell.pictures.url(entry.path), name, entry.record.settings, "save")}'
            f"{button('optimize_this', 'optimize', name=name)}{button('edit_this', 'edit', name=name)}"
            f"{button('reuse_short', 'reuse', name=name)}{button('alike_short', 'alike', name=name)}"
            f"{copy_link(entry.record.pipeline, entry.record.settings)}"
            "</div></article>"
        )
    return f'<section class="wall"><h3>{title}</h3><div class="cards">{"".join(cards)}</div></section>'
