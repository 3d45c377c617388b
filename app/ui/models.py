"""The Models tab: which networks the page runs on, what they weigh, and under which licence."""

from __future__ import annotations

from html import escape

import gradio as gr

from app.ui.generate import QUIET
from app.ui.shell import Shell
from app.ui.words import both
from pipelines.catalog import CHECKPOINTS, PRESETS


def build(shell: Shell, tab: gr.Tab) -> None:
    """One table a pack, fresh each time the tab is opened."""
    page = gr.HTML(apply_default_css=False, elem_id="models")
    tab.select(lambda: _models(shell), None, [page], **QUIET)


def _models(shell: Shell) -> str:
    packs = "".join(_pack(shell, pack) for pack in PRESETS)
    return f'<section class="models"><p>{both("models_text")}</p>{packs}</section>'


def _pack(shell: Shell, pack: str) -> str:
    used = pack == shell.studio.pack
    state = f'<span class="badge">{both("in_use")}</span>' if used else ""
    device = f"<p class='quiet-line'>{both('device_is', device=shell.studio.device)}</p>" if used else ""
    rows = "".join(
        f'<li class="{"present" if one.present else "absent"}"><div><b>{escape(one.name)}</b>'
        f'<span class="state">{both("present" if one.present else "absent")}</span></div><p>{escape(one.about)}</p>'
        f"<dl><dt>{both('size')}</dt><dd>{_size(one.size)}</dd><dt>{both('licence')}</dt><dd>{escape(one.licence)}</dd>"
        f"<dt>{both('origin')}</dt><dd>{escape(one.origin)}</dd></dl></li>"
        for one in CHECKPOINTS.values()
        if one.pack == pack
    )
    return f"<h3>{both('pack', pack=pack)} {state}</h3>{device}<ul>{rows}</ul>"


def _size(count: int) -> str:
    return "–" if not count else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
