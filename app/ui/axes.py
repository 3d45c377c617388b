"""What the axes of a sheet can be: a pipeline's settings with values to begin with, and models; and one run's time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.ui.components import translated
from app.ui.context import PageContext
from app.ui.i18n import knob_words, words
from app.ui.tabs.models import own_models
from pipelines.core.axes import BETWEEN, MOST_VALUES, USE, WORDS
from pipelines.core.looks import ANY, LOOKS
from pipelines.core.settings import Knob, Settings
from pipelines.errors import BadInput
from pipelines.weights.catalog import CHECKPOINTS, PACKS, fields_for, parts

OFTEN = ("seed", "style", "guidance", "steps", "temperature", "strength", "mode", "source", "negative_prompt")
NEVER = (
    "keep",
    "hide_duplicates",
    "batch",
    "until",
    "strip",
    "even_strip",
)  # say nothing of a cell's one picture
KINDS = (None, "seed", "prompt", "schedule")  # of settings that can be axes
FIRST_VALUES = 3  # to begin with, where any number would do


@dataclass(frozen=True)
class Choice:
    """One thing that can change along an axis.

    `label` and the two texts beside each of `choices` are English and Chinese. `kind` is "whole", "number", "choice",
    "text", "words" or "between". `first` are values to begin with. `group` is "prompt", "often", "more" or "models".
    """

    name: str
    label: tuple[str, str]
    kind: str
    group: str
    first: tuple[str, ...] = ()
    choices: tuple[tuple[str, str, str], ...] = ()
    lo: float | None = None
    hi: float | None = None


def choices_of(kind: type[Settings], pipeline: str) -> list[Choice]:
    """What can change along an axis of a pipeline's sheets, models aside, in the order in which it is offered."""
    knobs = {knob.name: knob for knob in kind.knobs() if knob.kind in KINDS and knob.name not in NEVER}
    found = [_said("axes_words", WORDS, "words")]
    if kind.grammar != "words":
        found.append(_said("axes_between", BETWEEN, "between"))
    found.append(_said("axes_prompt", "prompt", "text"))
    names = [name for name in OFTEN if name in knobs]
    names += [name for name in knobs if name not in (*OFTEN, "prompt")]
    found += [_choice(knobs[name], pipeline, "often" if name in OFTEN else "more") for name in names]
    return [
        replace(one, first=tuple(value for value in one.first if _fits(kind, one.name, value)))
        for one in found
    ]


def _fits(kind: type[Settings], name: str, value: str) -> bool:
    """Whether a value goes with the defaults of the other settings."""
    try:
        return bool(kind(x=f"{name}={value}"))
    except BadInput:
        return False


def _said(key: str, name: str, kind: str) -> Choice:
    return Choice(name, words()[key], kind, "prompt")


def _choice(knob: Knob, pipeline: str, group: str) -> Choice:
    label = knob_words(translated(knob, pipeline))[:2]
    if knob.type is bool:
        pairs = tuple((value, *words()[value]) for value in ("no", "yes"))
        return Choice(knob.name, label, "choice", group, ("no", "yes"), pairs)
    if knob.name == "style":
        pairs = tuple((name, look.english, look.chinese) for name, look in LOOKS.items())
        pairs = (*(((ANY, *knob.words_of(ANY)),) if knob.choices else ()), *pairs)
        return Choice(knob.name, label, "choice", group, tuple(LOOKS)[:FIRST_VALUES], pairs)
    if knob.choices is not None:
        pairs = tuple((value, *knob.words_of(value)) for value in knob.choices)
        return Choice(knob.name, label, "choice", group, knob.choices[:MOST_VALUES], pairs)
    if knob.type is str:
        return Choice(knob.name, label, "text", group)
    kind = "whole" if knob.type is int else "number"
    return Choice(knob.name, label, kind, group, first_values(knob), (), knob.lo, knob.hi)


def first_values(knob: Knob) -> tuple[str, ...]:
    """Values of a number to begin with: seeds one after another, else around the default, within the range."""
    if knob.kind == "seed":
        return tuple(str(seed) for seed in range(1, FIRST_VALUES + 2))
    lo, hi = knob.lo, knob.hi
    if knob.type is int and lo is not None and hi is not None and hi - lo < MOST_VALUES:
        found = [lo + k for k in range(round(hi - lo) + 1)]
    elif knob.default:
        found = [knob.default * factor for factor in (0.5, 1, 2)]
    elif lo is None or hi is None:
        return ()
    elif knob.default == 0:  # off, and up to a tenth of the range
        found = [0, hi / 20, hi / 10] if hi > 2 else [0, hi / 2, hi]
    else:  # what the model likes: spread over the range evenly by factors
        low = max(lo, hi / 100)
        found = [low * (hi / low) ** share for share in (0.3, 0.5, 0.7)]
    low, high = (-math.inf if lo is None else lo), (math.inf if hi is None else hi)
    rounded = [min(high, max(low, _plain(value, knob.type is int))) for value in found]
    return tuple(dict.fromkeys(f"{value:g}" for value in rounded))


def _plain(value: float, whole: bool) -> float:
    """A number of two digits, or a whole one."""
    return round(value) or math.ceil(value) if whole else float(f"{value:.2g}")


class Axes:
    """The address that the script of the page asks."""

    def __init__(self, context: PageContext) -> None:
        self.context = context

    def routes(self) -> list[Route]:
        """GET /axes/PIPELINE: {"choices": what `Choice` holds, "seconds": one run's, or null where none is known}."""

        async def answer(request: Request) -> JSONResponse:
            pipeline = request.path_params["pipeline"]
            if pipeline not in self.context.queue.pipelines:
                return JSONResponse({"error": "unknown"}, 404)
            return JSONResponse(await run_in_threadpool(self.tell, pipeline))

        return [Route("/axes/{pipeline}", answer)]

    def tell(self, pipeline: str) -> dict[str, Any]:
        """The answer for one pipeline."""
        queue = self.context.queue
        choices = choices_of(queue.pipelines[pipeline].Settings, pipeline) + self.models(pipeline)
        return {"choices": [asdict(one) for one in choices], "seconds": queue.seconds_each(pipeline)}

    def models(self, pipeline: str) -> list[Choice]:
        """A choice for each part of the pack that has more than one model on this machine."""
        studio = self.context.studio
        if pipeline not in PACKS.get(studio.pack, {}):
            return []
        now, here = parts(studio.pack, pipeline, getattr(studio, "use", None)), dict[str, list[str]]()
        for checkpoint in [*CHECKPOINTS.values(), *own_models()]:
            if checkpoint.present:
                for part in fields_for(studio.pack, checkpoint):
                    here.setdefault(part, []).append(checkpoint.name)
        found: list[Choice] = []
        for part, name in now.items():
            names = tuple(dict.fromkeys([name, *here.get(part, [])]))[: 2 * MOST_VALUES]
            if len(names) > 1:
                pairs = tuple((each, each, each) for each in names)
                label = words()["axes_model"]
                both = (label[0].format(part=part), label[1].format(part=part))
                found.append(Choice(USE + part, both, "choice", "models", names[:2], pairs))
        return found
