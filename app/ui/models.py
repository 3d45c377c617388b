"""The Models tab: the packs, what they weigh and under which licence, which one is used, and getting those of others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from html import escape

import gradio as gr

from app.downloads import Download, Downloads
from app.models_cli import free_memory
from app.ui.generate import QUIET
from app.ui.shell import Shell, acting
from app.ui.words import both, both_sentence
from pipelines.catalog import PRESETS, Checkpoint, needed
from pipelines.errors import BadInput
from pipelines.full_pack import FULL_PACK

WATCH_SECONDS = 1.0


def build(shell: Shell, tab: gr.Tab) -> None:
    """One list a pack, fresh each time the tab is opened; what is clicked answers in the same place."""
    tab_ = _Tab(shell)
    page = acting(elem_id="models")
    tab.select(tab_.show, None, [page], **QUIET)
    page.click(tab_.act, None, [page], **QUIET)


class _Tab:
    """What the tab does. Downloads and the pack are the server's; on a shared Space nobody may change either."""

    def __init__(self, shell: Shell):
        self.shell, self.downloads = shell, Downloads()
        self.may_change = "SPACE_ID" not in os.environ

    def show(self) -> Iterator[str]:
        """The page now, and again and again while a download runs."""
        yield self._page()
        while (now := self.downloads.now) is not None and not now.is_over:
            time.sleep(WATCH_SECONDS)
            yield self._page()

    def act(self, event: gr.EventData) -> Iterator[str]:
        """A click: look at a model's licence, get it, stop that, or use another pack."""
        told = {key: str(value) for key, value in (event._data or {}).items()}
        kind, name = told.get("act", ""), told.get("name", "")
        if not self.may_change:
            yield self._page()
            return
        try:
            if kind == "ask":
                yield self._page(asked=name)
                return
            if kind == "fetch":
                self.downloads.start(name)
            elif kind == "stop-fetch":
                self.downloads.stop()
                self.downloads.wait(2 * WATCH_SECONDS)
            elif kind == "switch":
                self._switch(name)
        except BadInput as problem:
            yield self._page(problem=str(problem))
            return
        yield from self.show()

    def _switch(self, pack: str) -> None:
        """Use another pack from now on. BadInput while jobs run or wait, whose models these are."""
        if any(not job.is_over for job in self.shell.lane.jobs()):
            raise BadInput("a job runs or waits; the pack can be changed when all are done")
        self.shell.studio.switch(pack)

    # ----------------------------------------------------------------------------------------------------- what is seen

    def _page(self, asked: str = "", problem: str = "") -> str:
        said = f'<p class="problem" role="alert">{both_sentence(problem)}</p>' if problem else ""
        free = "  ".join(f"{name} {_size(count)}" for name, count in free_memory().items())
        packs = "".join(self._pack(pack, asked) for pack in PRESETS)
        quiet = f"<p class='quiet-line'>{both('models_free', free=free)}</p>"
        return f'<section class="models"><p>{both("models_text")}</p>{quiet}{said}{packs}</section>'

    def _pack(self, pack: str, asked: str) -> str:
        studio, parts = self.shell.studio, needed(pack)
        gone = [one for one in parts if not one.present]
        state = ""
        if pack == studio.pack:
            state = f'<span class="badge">{both("in_use")}</span>'
        elif not gone and self.may_change:
            state = _button("switch", pack, "use_pack")
        memory = max(sum(one.memory for one in needed_for) for needed_for in _pipelines(pack))
        need = f", {both('memory_need', size=_size(memory))}" if memory else ""
        line = f"<p class='quiet-line'>{both('about_pack_' + pack.replace('-', '_').replace('.', '_'))}{need}</p>"
        if pack == studio.pack:
            line += f"<p class='quiet-line'>{both('device_is', device=studio.device)}</p>"
        rows = "".join(self._row(one, asked) for one in parts)
        opened = " open" if pack == studio.pack or any(one.name == asked for one in parts) else ""
        count = both("pack_files", here=len(parts) - len(gone), all=len(parts))
        return (
            f"<h3>{both('pack', pack=pack)} {state}</h3>{line}<details{opened}><summary>{count}</summary>"
            f"<ul>{rows}</ul></details>"
        )

    def _row(self, one: Checkpoint, asked: str) -> str:
        entry = FULL_PACK.get(one.name)
        size = one.size or (entry.download_bytes if entry else 0)
        now = self.downloads.now
        state = f'<span class="state">{both("present" if one.present else "absent")}</span>'
        below = ""
        if now is not None and now.name == one.name and not (now.is_over and not now.error):
            below = _progress(now)
            state = "" if now.is_over else _button("stop-fetch", one.name, "stop")
        if entry and not one.present and self.may_change and (now is None or now.is_over):
            if one.name == asked:
                below += (
                    f'<p class="consent">{both("consent", licence=one.licence, size=_size(size))} '
                    f"{_button('fetch', one.name, 'agree_fetch')}</p>"
                )
            else:
                state += _button("ask", one.name, "fetch")
        memory = f"<dt>{both('memory')}</dt><dd>{_size(one.memory)}</dd>" if one.memory else ""
        return (
            f'<li class="{"present" if one.present else "absent"}"><div><b>{escape(one.name)}</b><span>{state}</span>'
            f"</div><p>{escape(one.about)}</p>{below}<dl><dt>{both('size')}</dt><dd>{_size(size)}</dd>{memory}"
            f"<dt>{both('licence')}</dt><dd>{escape(one.licence)}</dd>"
            f"<dt>{both('origin')}</dt><dd>{escape(one.origin)}</dd></dl></li>"
        )


def _pipelines(pack: str) -> list[list[Checkpoint]]:
    from pipelines.catalog import checkpoint_of

    return [[checkpoint_of(name) for name in parts.values()] for parts in PRESETS[pack].values()]


def _progress(now: Download) -> str:
    if now.error:
        return f'<p class="problem" role="alert">{both_sentence(now.error)}</p>'
    share = min(100, 100 * now.done // max(now.total, 1))
    return (
        f'<progress max="100" value="{share}"></progress><p class="quiet-line">{escape(now.stage)} '
        f"{now.done:,} / {now.total:,} MB</p>"
    )


def _button(act: str, name: str, words: str) -> str:
    return f'<button type="button" class="small" data-act="{act}" data-name="{escape(name)}">{both(words)}</button>'


def _size(count: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit / 10:
            return f"{count / unit:.1f} {name}"
    return "–"
