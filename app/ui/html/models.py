"""What the Models tab shows: a model with its facts, the licences before a download, and how a download stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from markupsafe import Markup

from app.downloads import Download
from app.ui.i18n import about, both, both_sentence
from app.ui.markup import html, joined
from pipelines.weights.checkpoint import Checkpoint

MB, GB = 10**6, 10**9
MUCH = GB  # bytes of memory to convert a model, from which on they are told


def button(words: str, act: str, *, kind: str = "quiet", expanded: bool | None = None, **data: Any) -> str:
    """A button whose click is the act, with its data. One that is `expanded` or not folds with the act "show"."""
    facts = joined(html(' data-{}="{}"', key, value) for key, value in data.items())
    if expanded is not None:
        facts += html(' aria-expanded="{}"', "true" if expanded else "false")
        act = "show" if expanded else act
    return html('<button type="button" class="{}" data-act="{}"{}>{}</button>', kind, act, facts, both(words))


def badge() -> str:
    """The mark of what is in use."""
    return html('<span class="badge">{}</span>', both("in_use"))


def row(checkpoint: Checkpoint, state: str, acts: str = "") -> str:
    """A model: its name, what it is good for, its state, and its facts. `acts` are buttons below them."""
    facts = {
        "size": size_text(bytes_of(checkpoint), about=not (checkpoint.present or checkpoint.exact)),
        "memory": _memory(checkpoint),
        "licence": checkpoint.licence,
        "origin": checkpoint.origin,
    }
    details = joined(
        html("<div><dt>{}</dt><dd>{}</dd></div>", both(key), value) for key, value in facts.items() if value
    )
    title = html("<p><b>{}</b> {}</p>", checkpoint.name, about(checkpoint))
    below = html('<div class="acts">{}</div>', acts) if acts else ""
    return html('<li><div class="top">{}{}</div><dl>{}</dl>{}</li>', title, state, details, below)


def _memory(checkpoint: Checkpoint) -> str:
    """What a model takes to run and, where that is much, to be converted."""
    running = size_text(checkpoint.memory) if checkpoint.memory else ""
    if checkpoint.present or checkpoint.conversion_memory < MUCH:
        return running
    return both("memory_to_convert", running=running, converting=size_text(checkpoint.conversion_memory))


def consent(wanted: Sequence[Checkpoint]) -> str:
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
            ", ".join(f"{checkpoint.name} {size_text(bytes_of(checkpoint))}" for checkpoint in checkpoints),
        )
        for licence, checkpoints in by_licence.items()
    )
    files = [file for checkpoint in wanted for file in checkpoint.files]
    hosts = {urlsplit(address).hostname or "" for file in files for address in file.urls}
    size = sum(bytes_of(checkpoint) for checkpoint in wanted)
    exact = all(checkpoint.exact for checkpoint in wanted)
    total = both(
        "consent_exact" if exact else "consent", size=size_text(size), hosts=", ".join(sorted(hosts))
    )
    names = " ".join(checkpoint.name for checkpoint in wanted)
    return html(
        '<div class="consent"><h4>{}</h4><ul>{}</ul><p>{}</p><div class="acts">{}{}</div></div>',
        both("consent_title"),
        licences,
        total,
        button("agree_fetch", "fetch", kind="act", names=names),
        button("not_now", "show"),
    )


def download(now: Download | None, stopping: bool, may_change: bool) -> str:
    """How the download stands, and what can be done about it."""
    if now is None:
        return Markup('<div class="fetching" hidden tabindex="-1"></div>')
    share = min(100, 100 * now.done // max(now.total, 1))
    rest = " ".join((now.name, *now.waiting))
    if now.state == "running":
        title = both("fetch_stopping" if stopping else "fetching", name=now.name)
        heard = f"{share // 10 * 10} %"
        side = button("stop", "stop-fetch") if may_change and not stopping else ""
        below = html(
            '<progress max="100" value="{}" aria-label="{}">{} %</progress><p class="facts">{}</p>',
            share,
            now.name,
            share,
            _progress(now),
        )
    else:
        title, heard = both(f"fetch_{now.state}", name=now.name), ""
        go_on = now.state != "done" and may_change
        side = button("fetch_go_on", "fetch", names=rest) if go_on else ""
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


def _progress(now: Download) -> str:
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


def bytes_of(checkpoint: Checkpoint) -> int:
    """What it takes on disk, or the download when it is not there."""
    return checkpoint.size or checkpoint.download_bytes


def size_text(count: int, *, about: bool = False) -> str:
    """Bytes in words. `about` marks an estimate."""
    if count >= GB:
        size = f"{count / GB:.1f} GB"
    else:
        size = f"{max(1, round(count / MB))} MB" if count >= MB / 2 else "< 1 MB"
    return f"≈ {size}" if about else size
