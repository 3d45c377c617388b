"""The Models tab: the packs, what they weigh and under which licence, which one is used, and getting those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from markupsafe import Markup

from app.downloads import Download
from app.space import free_memory
from app.ui.context import QUIET, PageContext, clickable_html, clicked, drawing_pipelines
from app.ui.i18n import both, both_sentence
from app.ui.markup import html, joined
from pipelines.errors import BadInput, Message
from pipelines.weights import catalog
from pipelines.weights.catalog import PACKS, checkpoint_of, needed
from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.install import installed
from pipelines.weights.open_weights import OPEN_WEIGHTS

MB, GB = 10**6, 10**9
ROLES = ("clip", "dalle", "vqgan", "unet", "diffusion")  # parts that `--use` can name
TINY_WORKING = 4  # a file of the tiny pack needs so many times its size in memory


def build(context: PageContext, tab: gr.Tab) -> None:
    """One card a pack, fresh each time the tab is opened; the script looks again while a download runs."""
    tab_page = ModelsTab(context)
    page = clickable_html(elem_id="models", script="window.atelier.models(element, trigger);")
    tab.select(tab_page.page, None, [page], **QUIET)
    page.click(tab_page.act, None, [page], trigger_mode="multiple", **QUIET)


class ModelsTab:
    """What the tab does. Downloads and the pack are the server's; on a shared Space nobody may change either."""

    def __init__(self, context: PageContext):
        self.context = context
        self.may_change = context.serving.may_change_models

    def act(self, event: gr.EventData) -> str:
        """A click: look at licences, get models, stop that, or use another pack. "watch" only looks again."""
        click = clicked(event)
        act, asked, trouble = click.get("act", ""), click.get("asked", ""), None
        try:
            if self.may_change and act == "fetch":
                self.context.downloads.start(click.get("names", "").split())
            elif self.may_change and act == "stop-fetch":
                self.context.downloads.stop()
            elif self.may_change and act == "switch":
                self._switch(click.get("pack", ""))
            elif act == "watch":
                trouble = Message.from_text(click.get("trouble", ""))
        except BadInput as problem:
            trouble = problem.message
        return self.page(asked if act in ("ask", "watch") else "", trouble)

    def _switch(self, pack: str) -> None:
        """Use another pack from now on. BadInput while jobs run or wait, whose models these are."""
        if self.context.queue.busy:
            raise BadInput("page.jobs_use_pack")
        self.context.studio.switch(pack)

    @property
    def _fetching(self) -> bool:
        """Whether a download runs."""
        now = self.context.downloads.now
        return now is not None and not now.is_over

    # ----------------------------------------------------------------------------------------------------- what is seen

    def page(self, asked: str = "", trouble: Message | None = None) -> str:
        """All of the tab. `asked` is the pack, or "pack/model", whose licences are shown before a download.

        Places stay where they are when empty: what changes is patched in, and the focus is not lost.
        """
        now = self.context.downloads.now
        free = free_memory()
        memory = joined(
            html("<span>{}</span>", both("memory_" + name.lower(), size=_size(count)))
            for name, count in free.items()
        )
        head = html('<header><p>{}</p><p class="facts">{}</p></header>', both("models_text"), memory)
        if not self.may_change:
            head += html('<p class="note">{}</p>', both("models_shared"))
        problem = html('<p class="note trouble">{}</p>', both_sentence(trouble)) if trouble else ""
        groups = ""
        for engines in dict.fromkeys(map(drawing_pipelines, PACKS)):
            cards = joined(
                self._pack(pack, asked, max(free.values()))
                for pack in PACKS
                if drawing_pipelines(pack) == engines
            )
            title = both("models_" + "_".join(engines))
            groups += html('<h2>{}</h2><div class="packs">{}</div>', title, cards)
        watching = " data-watching" if self._fetching else ""
        return html(
            '<section class="models"{} data-asked="{}" data-trouble="{}">{}'
            '<div role="alert">{}</div>{}{}{}</section>',
            watching,
            asked,
            trouble.to_text() if trouble else "",
            head,
            problem,
            self._download(now),
            groups,
            self._own(),
        )

    def _own(self) -> str:
        """The models that the user added, with the words that use each, and the words that add one."""
        use, rows = getattr(self.context.studio, "use", None) or {}, ""
        for checkpoint in (checkpoint_of(name) for name in installed() if name not in OPEN_WEIGHTS):
            name, role = checkpoint.name, checkpoint.role
            badge = (
                html('<span class="badge">{}</span>', both("in_use"))
                if checkpoint.name in use.values()
                else ""
            )
            words = html("<code>python launch.py ui --use {}={}</code>", role, name) if role in ROLES else ""
            rows += html(
                "<li><b>{}</b> {} <span>{} {}</span> {}</li>",
                name,
                badge,
                role,
                _size(_bytes(checkpoint)),
                words,
            )
        listed = html("<ul>{}</ul>", rows) if rows else ""
        return html(
            '<div class="own">{}<p>{} <code>python launch.py models add FILE --name NAME</code></p></div>',
            listed,
            both("models_own"),
        )

    def _download(self, now: Download | None) -> str:
        """How the download stands, and what can be done about it."""
        if now is None:
            return Markup('<div class="fetching" hidden tabindex="-1"></div>')
        share = min(100, 100 * now.done // max(now.total, 1))
        rest = " ".join((now.name, *now.waiting))
        if now.state == "running":
            stopping = self.context.downloads.stopping
            title = both("fetch_stopping" if stopping else "fetching", name=now.name)
            heard = f"{share // 10 * 10} %"
            side = _button("stop", "stop-fetch") if self.may_change and not stopping else ""
            below = html(
                '<progress max="100" value="{}" aria-label="{}">{} %</progress><p class="facts">{}</p>',
                share,
                now.name,
                share,
                _facts(now),
            )
        else:
            title, heard = both(f"fetch_{now.state}", name=now.name), ""
            go_on = now.state != "done" and self.may_change
            side = _button("fetch_go_on", "fetch", names=rest) if go_on else ""
            below = html("<p>{}</p>", both_sentence(now.problem)) if now.problem else ""
        if now.waiting:
            below += html('<p class="facts">{}</p>', both("fetch_then", names=", ".join(now.waiting)))
        return html(
            '<div class="fetching {}" tabindex="-1"><div class="top"><h3>{}</h3>{}</div>{}'
            '<span class="only-heard" role="status">{} {}</span></div>',
            now.state,
            title,
            side,
            below,
            title,
            heard,
        )

    def _pack(self, pack: str, asked: str, free: int) -> str:
        studio = self.context.studio
        use = getattr(studio, "use", None)
        parts, in_use = needed(pack, use), pack == studio.pack
        gone = [part for part in parts if not part.present]
        wanted = [part for part in gone if part.name in OPEN_WEIGHTS]
        badge = html('<span class="badge">{}</span>', both("in_use")) if in_use else ""
        side = ""
        if self.may_change and wanted and not self._fetching:
            side = _button("fetch_missing", "ask", asked=pack, expanded=asked == pack)
        elif self.may_change and not gone and not in_use:
            side = _button("use_pack", "switch", pack=pack)
        download = sum(_bytes(part) for part in wanted)
        facts = [both("pack_files", here=len(parts) - len(gone), all=len(parts))]
        if download:
            facts.append(both("to_download", size=_size(download)))
        need = _need(pack, use)
        if in_use:
            facts.append(both("runs_on", device=studio.device))
        elif need <= free:
            facts.append(html('<b class="fits">{}</b>', both("memory_fits", size=_size(need))))
        else:
            facts.append(html('<b class="tight">{}</b>', both("memory_tight", size=_size(need))))
        asked_for = wanted if asked == pack else [part for part in wanted if f"{pack}/{part.name}" == asked]
        rows = joined(self._row(pack, part, asked) for part in parts)
        name = pack
        return html(
            '<article class="pack{}"><div class="top"><h3>{} {}</h3>{}</div>'
            "<p>{}</p>"
            '<p class="facts">{}</p>'
            '<div class="how">{}</div><details data-pack="{}"><summary>{}</summary>'
            "<ul>{}</ul></details></article>",
            " now" if in_use else "",
            name,
            badge,
            side,
            both("about_pack_" + pack.replace("-", "_").replace(".", "_")),
            joined(html("<span>{}</span>", fact) for fact in facts),
            _consent(asked_for),
            name,
            both("pack_details"),
            rows,
        )

    def _row(self, pack: str, checkpoint: Checkpoint, asked: str) -> str:
        now, key = self.context.downloads.now, f"{pack}/{checkpoint.name}"
        if checkpoint.present:
            state = html('<span class="state here">{}</span>', both("present"))
        elif now is not None and self._fetching and checkpoint.name in (now.name, *now.waiting):
            state = html(
                '<span class="state">{}</span>', both("coming" if checkpoint.name == now.name else "waits")
            )
        elif self.may_change and checkpoint.name in OPEN_WEIGHTS and not self._fetching:
            state = _button("fetch", "ask", asked=key, expanded=asked == key)
        else:
            state = html('<span class="state">{}</span>', both("absent"))
        facts = {
            "size": _size(_bytes(checkpoint)),
            "memory": _size(checkpoint.memory) if checkpoint.memory else "",
        }
        facts |= {"licence": checkpoint.licence, "origin": checkpoint.origin}
        details = joined(
            html("<div><dt>{}</dt><dd>{}</dd></div>", both(key), value)
            for key, value in facts.items()
            if value
        )
        title = html("<p><b>{}</b> {}</p>", checkpoint.name, checkpoint.about)
        return html('<li><div class="top">{}{}</div><dl>{}</dl></li>', title, state, details)


def _consent(wanted: Sequence[Checkpoint]) -> str:
    """The licences of what would be downloaded, each once, and the button that agrees to them."""
    if not wanted:
        return Markup('<div class="consent" hidden></div>')
    by_licence: dict[str, list[Checkpoint]] = {}
    for checkpoint in wanted:
        by_licence.setdefault(checkpoint.licence, []).append(checkpoint)
    licences = joined(
        html(
            "<li><b>{}</b><small>{}</small></li>",
            licence,
            ", ".join(f"{checkpoint.name} {_size(_bytes(checkpoint))}" for checkpoint in checkpoints),
        )
        for licence, checkpoints in by_licence.items()
    )
    hosts = {urlsplit(file.url).hostname or "" for checkpoint in wanted for file in checkpoint.files}
    total = both(
        "consent",
        size=_size(sum(_bytes(checkpoint) for checkpoint in wanted)),
        hosts=", ".join(sorted(hosts)),
    )
    names = " ".join(checkpoint.name for checkpoint in wanted)
    return html(
        '<div class="consent"><h4>{}</h4><ul>{}</ul><p>{}</p><div class="acts">{}{}</div></div>',
        both("consent_title"),
        licences,
        total,
        _button("agree_fetch", "fetch", kind="act", names=names),
        _button("not_now", "show"),
    )


def _facts(now: Download) -> str:
    """What a running download is at, in words."""
    if now.stage == "converting":
        return html("<span>{}</span>", both("converting"))
    facts = [now.stage, both("megabytes", done=f"{now.done:,}", total=f"{now.total:,}")]
    if now.rate:
        facts.append(both("rate", rate=f"{now.rate:.1f}"))
        seconds = (now.total - now.done) / now.rate
        key = "eta" if seconds < 90 else "eta_minutes"
        facts.append(both(key, seconds=max(1, round(seconds)), minutes=round(seconds / 60)))
    return joined(html("<span>{}</span>", fact) for fact in facts if fact)


def _need(pack: str, use: dict[str, str] | None) -> int:
    """Bytes of memory that the largest of a pack's pipelines wants."""
    pipelines = [map(checkpoint_of, catalog.parts(pack, pipeline, use).values()) for pipeline in PACKS[pack]]
    return max(sum(part.memory or TINY_WORKING * part.size for part in parts) for parts in pipelines)


def _bytes(checkpoint: Checkpoint) -> int:
    """What it takes on disk, or the download when it is not there."""
    return checkpoint.size or checkpoint.download_bytes


def _button(words: str, act: str, *, kind: str = "quiet", expanded: bool | None = None, **data: Any) -> str:
    facts = joined(html(' data-{}="{}"', key, value) for key, value in data.items())
    if expanded is not None:
        facts += html(' aria-expanded="{}"', "true" if expanded else "false")
        act = "show" if expanded else act
    return html('<button type="button" class="{}" data-act="{}"{}>{}</button>', kind, act, facts, both(words))


def _size(count: int) -> str:
    """Bytes in words."""
    if count >= GB:
        return f"{count / GB:.1f} GB"
    return f"{max(1, round(count / MB))} MB" if count >= MB / 2 else "< 1 MB"
