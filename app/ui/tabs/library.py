"""The Library tab: the pictures made here, found again by what is in them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import gradio as gr
from markupsafe import Markup

from app.library import Entry
from app.ui.context import DRAWING, QUIET, STEERING, TAKING, PageContext, Update, clickable_html, clicked
from app.ui.html.common import button, downloads, error_note
from app.ui.i18n import both
from app.ui.link import copy_link
from app.ui.markup import html, joined
from pipelines.core.record import read_record
from pipelines.errors import BadInput

PAGE = 48  # pictures shown at a time

log = logging.getLogger(__name__)


def build(context: PageContext, tab: gr.Tab) -> None:
    """A search box and a wall of pictures."""
    with gr.Row(elem_id="library-search"):
        query = context.translate(
            gr.Textbox(elem_id="library-query", scale=6, max_length=500),
            label="search",
            placeholder="search_hint",
        )
        shown = gr.Number(PAGE, precision=0, visible=False, min_width=0)
        find = context.translate(gr.Button(elem_id="library-find", scale=0, min_width=96), value="find")
    wall = clickable_html(elem_id="library-wall")

    def recent(count: float = PAGE) -> Update:
        count = min(max(int(count), PAGE), 2000)
        return {wall: _recent(context, count), shown: count}

    def look_for(text: str) -> str:
        text = " ".join(text.split())
        if not text:
            return _recent(context, PAGE)
        try:
            entries = context.library.search(context.studio.clip(), text[:500], PAGE)
        except BadInput as problem:
            return error_note(problem)
        return _ranked(context, entries, both("library_found", text=text))

    def act(count: float, event: gr.EventData) -> Update:
        """More like this, settings into the form, or a longer wall."""
        data = clicked(event)
        if data.get("act") == "more":
            return recent(count + PAGE)
        if data.get("act") in TAKING:
            return context.hand_over(event)
        try:
            path = context.pictures.path(data.get("name", ""))
            if data.get("act") == "reuse":
                made_by = read_record(path, context.queue.pipelines).pipeline
                tab_name = next((names[0] for names in (DRAWING, STEERING) if made_by in names), made_by)
                handover = f"{tab_name}:settings:{data['name']}"
                return {context.handover: handover, context.tabs: gr.Tabs(selected=tab_name)}
            entries = context.library.similar(context.studio.clip(), path, PAGE)
        except BadInput as problem:
            return {wall: error_note(problem)}
        return {wall: _ranked(context, entries, both("library_alike"))}

    gr.on([find.click, query.submit], look_for, [query], [wall], **QUIET)
    wall.click(act, [shown], [wall, shown, context.handover, context.tabs], **QUIET)
    tab.select(recent, None, [wall, shown], **QUIET)  # the tab itself, when it is opened


def _recent(context: PageContext, count: int) -> str:
    entries = context.library.recent(count)
    total = context.library.count()
    more = html('<p class="more">{}</p>', button("library_more", "more")) if total > len(entries) else ""
    return _wall(context, entries, both("library_recent", count=f"{total:,}")) + more


def _ranked(context: PageContext, entries: Sequence[tuple[Entry, float]], title: str) -> str:
    """Pictures that were found, each with its score."""
    return _wall(context, [entry for entry, _ in entries], title, [score for _, score in entries])


def _wall(context: PageContext, entries: Sequence[Entry], title: str, scores: Sequence[float] = ()) -> str:
    """Pictures with their prompts; nothing of a record is believed to be HTML."""
    if not entries:
        return html('<section class="wall empty"><p>{}</p></section>', both("library_empty"))
    cards = []
    for index, entry in enumerate(entries):
        try:
            score = html("<small>{:.3f}</small>", scores[index]) if scores else ""
            cards.append(_card(context, entry, score))
        except Exception:  # a record that nobody here wrote takes away its own picture only
            log.exception("the picture %r cannot be shown", entry.id)
    return html(
        '<section class="wall"><h3>{}</h3><div class="cards">{}</div></section>', title, joined(cards)
    )


def _card(context: PageContext, entry: Entry, score: Markup | str) -> Markup:
    """One picture with its prompt, and what can be done with it."""
    url, name = context.pictures.url(entry.path), context.pictures.name(entry.path)
    prompt, record = entry.prompt, entry.record
    assert record is not None  # as every picture of the outputs folder has
    return html(
        '<article><img src="{}" alt="{}" loading="lazy"><p title="{}"><span>{}</span>{}</p>'
        '<div class="acts">{}'
        "{}{}{}"
        "{}{}"
        "{}"
        "</div></article>",
        url,
        prompt,
        prompt,
        prompt,
        score,
        downloads(context.pictures.url(entry.path), name, record.settings, "save"),
        button("optimize_this", "optimize", name=name),
        button("edit_this", "edit", name=name),
        button("why", "see", name=name),
        button("reuse_short", "reuse", name=name),
        button("alike_short", "alike", name=name),
        copy_link(record.pipeline, record.settings),
    )
