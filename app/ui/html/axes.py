"""A sheet on the page: the form that says what changes along its columns and rows, and its cells when it is made.

The form is two hidden inputs, `x` and `y`, that hold the axes as they are written; the script draws the rest around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from app.jobs.queue import Job
from app.ui.i18n import both, both_aloud
from app.ui.markup import html, joined
from pipelines.core.axes import MOST_VALUES

SAYS: dict[str, dict[str, object]] = {  # words that the script fills in, with the places of its facts
    "nothing": {},
    "group_prompt": {},
    "group_often": {},
    "group_more": {},
    "group_models": {},
    "hint_words": {},
    "hint_between": {},
    "hint_text": {},
    "hint_range": {"lo": "#1", "hi": "#2"},
    "add": {},
    "remove": {},
    "pictures": {"count": "#1"},
    "seconds": {"count": "#1"},
    "minutes": {"count": "#1"},
    "time_unknown": {},
    "choose": {},
    "more_values": {},
    "most": {"most": MOST_VALUES},
    "bad_number": {"value": "#1"},
    "bad_range": {"value": "#1", "lo": "#2", "hi": "#3"},
    "unknown": {"name": "#1"},
}


def form(pipelines: Sequence[str]) -> Markup:
    """The fold with both axes, for the one of `pipelines` that is chosen in the form around it."""
    rows = joined(_axis(name, mark) for name, mark in (("x", "→"), ("y", "↓")))
    says = joined(
        html('<span data-say="{}">{}</span>', key, both(f"axes_{key}", **SAYS[key])) for key in SAYS
    )
    return html(
        '<details class="axes" data-axes="{}"><summary><span>{}<small>{}</small></span>'
        '<output class="size"></output></summary>'
        '{}<div class="plan" aria-hidden="true"></div>'
        '<div class="sum"><p role="status"></p><span class="acts">'
        '<button type="button" class="quiet" data-axes-swap>{}</button>'
        '<button type="button" class="quiet" data-axes-clear>{}</button></span></div>'
        "<div hidden>{}</div></details>",
        " ".join(pipelines),
        both("axes_title"),
        both("axes_says"),
        rows,
        both("axes_swap"),
        both("axes_clear"),
        says,
    )


def _axis(name: str, mark: str) -> Markup:
    return html(
        '<fieldset class="along" data-along="{0}"><legend><i aria-hidden="true">{1}</i>{2}</legend>'
        '<input type="hidden" name="{0}" value="">'
        '<select aria-label="{3}"></select><div class="values"></div><p class="hint" role="status"></p></fieldset>',
        name,
        mark,
        both(f"axes_{name}"),
        both_aloud(f"axes_{name}"),
    )


def is_sheet(job: Job) -> bool:
    """Whether a finished job drew a sheet: its picture comes first, then those of the cells, row by row."""
    return job.state == "done" and len(job.pictures) > 1 and bool(_labels(job)[0])


def place_of(job: Job, k: int) -> str:
    """What stands beside picture k of a sheet: the labels of its column and row, of the sheet itself its size."""
    columns, rows = _labels(job)
    if not k:
        return f"{len(columns)} × {len(rows)}"
    row, column = divmod(k - 1, len(columns))
    return " · ".join(label for label in (columns[column], rows[row]) if label) if row < len(rows) else ""


def _labels(job: Job) -> tuple[list[str], list[str]]:
    told = job.pictures[0].get("sheet") if job.pictures else None
    if not isinstance(told, dict):
        return [], []
    return list(told.get("columns") or [""]), list(told.get("rows") or [""])


def cells(job: Job, urls: Sequence[str], opens: Callable[[int], Markup]) -> Markup:
    """The sheet as a table whose cells open their pictures. `opens` gives the attributes of picture k's button."""
    columns, rows = _labels(job)
    head = joined(html('<th scope="col">{}</th>', label) for label in columns)
    body = Markup()
    for number, label in enumerate(rows):
        first = 1 + number * len(columns)
        row = joined(
            _cell(k, urls, f"{columns[k - first]} {label}".strip(), opens)
            for k in range(first, min(first + len(columns), len(urls)))
        )
        body += html('<tr><th scope="row">{}</th>{}</tr>', label, row)
    return html(
        '<div class="cells" style="--columns:{}"><button type="button" class="quiet" aria-pressed="true" {}>{}</button>'
        '<div class="scroll"><table role="grid" aria-label="{}"><thead><tr><th></th>{}</tr></thead>'
        "<tbody>{}</tbody></table></div><p>{}</p></div>",
        len(columns),
        opens(0),
        both("axes_whole"),
        both_aloud("axes_title"),
        head,
        body,
        both("axes_cells"),
    )


def _cell(k: int, urls: Sequence[str], title: str, opens: Callable[[int], Markup]) -> Markup:
    return html(
        '<td><button type="button" aria-pressed="false" {}><img src="{}" alt="{}" loading="lazy"></button></td>',
        opens(k),
        urls[k],
        title,
    )
