"""The Models tab: the packs, what they weigh and under which licence, which one is used, and getting those of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from app.space import free_memory
from app.ui.context import QUIET, PageContext, clickable_html, clicked, drawing_pipelines
from app.ui.html.models import badge, button, bytes_of, consent, download, row, size_text
from app.ui.i18n import both, both_sentence
from app.ui.markup import html, joined
from pipelines.errors import BadInput, Message
from pipelines.weights import catalog
from pipelines.weights.catalog import checkpoint_of, fields_for, needed, pack_names, pipelines_of
from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.install import installed
from pipelines.weights.open_weights import OPEN_WEIGHTS
from pipelines.weights.own_packs import card_of

ROLES = ("clip", "dalle", "vqgan", "unet", "diffusion", "preview")  # parts that `--use` can name
PARTS = (*ROLES, "critic", "tokenizer")  # that can be chosen on the page
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
                self._change(lambda: self.context.studio.switch(click.get("pack", "")))
            elif self.may_change and act == "choose":
                chosen = [click.get(name, "") for name in ("part", "model", "pack")]
                self._change(lambda: self.context.studio.choose(*chosen))
            elif act == "watch":
                trouble = Message.from_text(click.get("trouble", ""))
        except BadInput as problem:
            trouble = problem.message
        return self.page(asked if act in ("ask", "watch") else "", trouble)

    def _change(self, change: Callable[[], None]) -> None:
        """Use another pack or model from now on. BadInput while jobs run or wait, whose models these are."""
        if self.context.queue.busy:
            raise BadInput("page.jobs_use_pack")
        change()

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
            html("<span>{}</span>", both("memory_" + name.lower(), size=size_text(count)))
            for name, count in free.items()
        )
        head = html('<header><p>{}</p><p class="facts">{}</p></header>', both("models_text"), memory)
        if not self.may_change:
            head += html('<p class="note">{}</p>', both("models_shared"))
        problem = html('<p class="note trouble">{}</p>', both_sentence(trouble)) if trouble else ""
        groups = ""
        for engines in dict.fromkeys(map(drawing_pipelines, pack_names())):
            cards = joined(
                self._pack(pack, asked, max(free.values()))
                for pack in pack_names()
                if drawing_pipelines(pack) == engines
            )
            title = both("models_" + "_".join(engines))
            groups += html('<h2>{}</h2><div class="packs">{}</div>', title, cards)
        roles = joined(
            self._role(role, asked) for role in dict.fromkeys(one.role for one in OPEN_WEIGHTS.values())
        )
        groups += html('<h2>{}</h2><div class="packs">{}</div>', both("models_all"), roles)
        watching = " data-watching" if self._fetching else ""
        return html(
            '<section class="models"{} data-asked="{}" data-trouble="{}">{}'
            '<div role="alert">{}</div>{}{}{}</section>',
            watching,
            asked,
            trouble.to_text() if trouble else "",
            head,
            problem,
            download(now, self.context.downloads.stopping, self.may_change),
            groups,
            self._own(),
        )

    def _own(self) -> str:
        """The models that the user added, with the words that use each, and the words that add one."""
        use, rows = getattr(self.context.studio, "use", None) or {}, ""
        for checkpoint in own_models():
            name, role = checkpoint.name, checkpoint.role
            words = html("<code>python launch.py ui --use {}={}</code>", role, name) if role in ROLES else ""
            rows += html(
                "<li><b>{}</b> {} <span>{} {}</span> {} {} <small>{}</small></li>",
                name,
                badge() if name in use.values() else "",
                role,
                size_text(bytes_of(checkpoint)),
                words,
                self._choices(checkpoint),
                checkpoint.licence,
            )
        listed = html("<ul>{}</ul>", rows) if rows else ""
        return html(
            '<div class="own">{}<p>{} <code>python launch.py models add FILE --name NAME</code></p></div>',
            listed,
            both("models_own"),
        )

    def _choices(self, checkpoint: Checkpoint) -> str:
        """Buttons that give a model that is here a part of the pack in use, or give the part back.

        Where that pack has no such part, a pack that has one is used with it.
        """
        if not (self.may_change and checkpoint.present):
            return ""
        studio, name = self.context.studio, checkpoint.name
        use = getattr(studio, "use", None) or {}
        packs = [pack for pack in (studio.pack, *pack_names()) if fields_for(pack, checkpoint)]
        other: dict[str, Any] = {"pack": packs[0]} if packs and packs[0] != studio.pack else {}
        return joined(
            button("use_own_" + part, "choose", part=part)
            if use.get(part) == name and not other
            else button("use_as_" + part, "choose", part=part, model=name, **other)
            for part in (fields_for(packs[0], checkpoint) if packs else ())
            if part in PARTS
        )

    def _role(self, role: str, asked: str) -> str:
        """All open weights of one role as a card, whether a pack has them or not."""
        models, pack = [one for one in OPEN_WEIGHTS.values() if one.role == role], f"all-{role}"
        here = sum(checkpoint.present for checkpoint in models)
        wanted = [one for one in models if f"{pack}/{one.name}" == asked and not one.present]
        use = (getattr(self.context.studio, "use", None) or {}).values()
        rows = joined(
            row(one, self._state(pack, one, asked, badge() if one.name in use else ""), self._choices(one))
            for one in models
        )
        return html(
            '<article class="pack"><div class="top"><h3>{}</h3></div><p class="facts"><span>{}</span></p>'
            '<div class="how">{}</div><details data-pack="{}"><summary>{}</summary><ul>{}</ul></details></article>',
            both("role_" + role),
            both("pack_files", here=here, all=len(models)),
            consent(wanted),
            pack,
            both("pack_details"),
            rows,
        )

    def _pack(self, pack: str, asked: str, free: int) -> str:
        studio = self.context.studio
        use = getattr(studio, "use", None)
        parts, in_use = needed(pack, use), pack == studio.pack
        gone = [part for part in parts if not part.present]
        wanted = [part for part in gone if part.name in OPEN_WEIGHTS]
        side = ""
        if self.may_change and wanted and not self._fetching:
            side = button("fetch_missing", "ask", asked=pack, expanded=asked == pack)
        elif self.may_change and not gone and not in_use:
            side = button("use_pack", "switch", pack=pack)
        size = sum(bytes_of(part) for part in wanted)
        facts = [both("pack_files", here=len(parts) - len(gone), all=len(parts))]
        if size:
            about = not all(part.exact for part in wanted)
            facts.append(both("to_download", size=size_text(size, about=about)))
        need = _need(pack, use)
        if in_use:
            facts.append(both("runs_on", device=str(studio.device).upper()))
        elif need <= free:
            facts.append(html('<b class="fits">{}</b>', both("memory_fits", size=size_text(need))))
        else:
            facts.append(html('<b class="tight">{}</b>', both("memory_tight", size=size_text(need))))
        asked_for = wanted if asked == pack else [part for part in wanted if f"{pack}/{part.name}" == asked]
        rows = joined(row(part, self._state(pack, part, asked)) for part in parts)
        name = pack
        return html(
            '<article class="pack{}"><div class="top"><h3>{} {}</h3>{}</div>'
            "<p>{}</p>"
            '<p class="facts">{}</p>'
            '<div class="how">{}</div><details data-pack="{}"><summary>{}</summary>'
            "<ul>{}</ul></details></article>",
            " now" if in_use else "",
            name,
            badge() if in_use else "",
            side,
            about_pack(pack),
            joined(html("<span>{}</span>", fact) for fact in facts),
            consent(asked_for),
            name,
            both("pack_details"),
            rows,
        )

    def _state(self, pack: str, checkpoint: Checkpoint, asked: str, mark: str = "") -> str:
        """Whether a model is here, or the button that gets it. `mark` stands beside it."""
        now, key = self.context.downloads.now, f"{pack}/{checkpoint.name}"
        if checkpoint.present:
            return html('<span class="state here">{} {}</span>', mark, both("present"))
        if now is not None and self._fetching and checkpoint.name in (now.name, *now.waiting):
            words = "coming" if checkpoint.name == now.name else "waits"
            return html('<span class="state">{}</span>', both(words))
        if self.may_change and checkpoint.name in OPEN_WEIGHTS and not self._fetching:
            return button("fetch", "ask", asked=key, expanded=asked == key)
        return html('<span class="state">{}</span>', both("absent"))


def about_pack(pack: str) -> str:
    """What a pack is, in a line; of a user's own on what it was trained, and under which licence."""
    if pack in catalog.PACKS or (card := card_of(pack)) is None:
        return both("about_pack_" + pack.replace("-", "_").replace(".", "_"))
    return both("about_pack_own", pictures=card.data.get("pictures", 0), licence=card.licence)


def own_models() -> list[Checkpoint]:
    """The models that the user added."""
    return [checkpoint_of(name) for name in installed() if name not in OPEN_WEIGHTS]


def _need(pack: str, use: dict[str, str] | None) -> int:
    """Bytes of memory that the largest of a pack's pipelines wants."""
    pipelines = [
        map(checkpoint_of, catalog.parts(pack, pipeline, use).values()) for pipeline in pipelines_of(pack)
    ]
    return max(sum(part.memory or TINY_WORKING * part.size for part in parts) for parts in pipelines)
