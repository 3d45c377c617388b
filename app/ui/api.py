"""The tools as an API: named endpoints for programs, which agents get as tools of the Model Context Protocol.

Pictures come in as data URIs: no path is opened and no address is fetched for a caller. Pictures go out as files of
Gradio's, copies under names that nobody can guess, which its clients download and to which agents get whole addresses.
What is wrong with a call is told in one sentence.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from app.jobs.queue import Job, JobQueue
from app.jobs.threads import run_in_own_thread
from app.library import as_shown, vectors_of
from app.recipe import travels
from app.ui.context import PageContext
from pipelines.clip.ranking import rank as ranked
from pipelines.core.explain import explain
from pipelines.core.settings import Knob, Settings, clean_prompt
from pipelines.core.steering import SteeredSettings
from pipelines.errors import BadInput, CannotSave
from pipelines.io.images import URI_HEAD

MOST_STEPS = 300  # of Optimize or Guide in one call
MOST_PICTURES = 64  # that are ranked in one call
MOST_FOUND = 100  # pictures that a search gives
HIDDEN = (
    "batch",
    "tokens",
    "changes",
    "until",
    "directions",
)  # not for programs: what runs and the shelf write
DATA_URI = "a data:image/png;base64, URI"

log = logging.getLogger(__name__)
looking = threading.Lock()  # one at a time: it shares the device with the queue


def build(context: PageContext) -> None:
    """Add the endpoints to the page that is being built. Where the pack has only Diffuse, `generate` runs that."""
    runs = {
        "generate": (context.engines[0], "Draw candidates for a prompt and rank them with CLIP."),
        "diffuse": ("diffuse", "Draw candidates for a prompt by latent diffusion and rank them with CLIP."),
        "optimize": (
            "optimize",
            f"Let CLIP's gradient grow a picture towards a prompt, in at most {MOST_STEPS} steps.",
        ),
        "guide": (
            "guide",
            f"Let CLIP's gradient guide a diffusion model towards a prompt, in at most {MOST_STEPS} steps.",
        ),
        "edit": ("edit", "Change a picture from one text to another, by several strengths."),
    }
    tools = [
        _run_tool(context.queue, name, *what)
        for name, what in runs.items()
        if what[0] in context.queue.pipelines
    ]
    for tool in (*tools, _rank_tool(context), _search_tool(context)):
        offer(tool)


def offer(tool: Callable[..., Any]) -> None:
    """Add a function as an endpoint of its own name."""
    # not in Gradio's queue: jobs have their own, and agents are then answered without a second connection
    gr.api(tool, api_name=tool.__name__, queue=False, concurrency_limit=None)


def caller(request: gr.Request) -> str:
    """The session of a call's jobs. A call names no visitor, so it is the client's connection, else the call's own."""
    return f"api-{getattr(request, 'session_hash', None) or secrets.token_hex(16)}"


# ------------------------------------------------------------------------------------------------------------ running


def _run_tool(queue: JobQueue, name: str, pipeline: str, about: str) -> Callable[..., Any]:
    """A function that runs a pipeline, its arguments and their words taken from the Settings."""
    kind = queue.pipelines[pipeline].Settings
    knobs = [knob for knob in kind.knobs() if knob.name not in HIDDEN]
    knobs.sort(key=lambda knob: knob.kind != "prompt")  # the texts first: they must be given
    names = [knob.name for knob in knobs]

    async def tool(request: gr.Request, *values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        with one_sentence():
            settings = kind.from_dict(dict(zip(names, values, strict=True)))
            _check(settings)
            job = await _finished(queue, pipeline, settings, caller(request))
            pictures = [_told(picture) for picture in job.pictures]
            plain = {
                knob.name: job.settings[knob.name]
                for knob in knobs
                if knob.name in job.settings and travels(knob, job.settings[knob.name])
            }
            made = {"pictures": pictures, "settings": plain, "seconds": job.seconds, "job": job.id}
            return pictures[0]["file"], made

    parameter_kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    types = {knob.name: _type_of(knob) for knob in knobs}
    parameters = [inspect.Parameter("request", parameter_kind, annotation=gr.Request)]
    for knob in knobs:
        default = inspect.Parameter.empty if knob.kind == "prompt" else knob.default
        parameters.append(
            inspect.Parameter(knob.name, parameter_kind, default=default, annotation=types[knob.name])
        )
    returns = tuple[gr.FileData, dict]
    tool.__name__ = name
    tool.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
    tool.__annotations__ = {"request": gr.Request, **types, "return": returns}
    lines = "\n".join(f"    {knob.name}: {_help_of(name, knob)}" for knob in knobs)
    tool.__doc__ = (
        f"{about}\n\nArgs:\n{lines}\n\nReturns:\n    the best picture as a file, then all of them, best first, each with "
        "its file, score and seed, and the settings without the pictures in them\n"
    )
    return tool


def _check(settings: Settings) -> None:
    """BadInput when a call asks for too much, or names a file or an address."""
    if isinstance(settings, SteeredSettings) and (steps := settings.length()) > MOST_STEPS:
        raise BadInput("api.too_many_steps", steps=steps, most=MOST_STEPS)
    for source in settings.files():
        if not source.startswith(URI_HEAD):
            raise BadInput("api.picture_outside", picture=source[:40])


async def _finished(queue: JobQueue, pipeline: str, settings: Settings, session: str) -> Job:
    """The job of these settings once it is done; BadInput when it ended in another way."""
    job_id = await asyncio.to_thread(queue.submit, pipeline, settings, session)  # it opens the pictures
    while not (job := queue.job(job_id)).is_over:
        await asyncio.sleep(0.1)
    if job.state != "done" or not job.pictures:
        raise BadInput.of(job.problem) if job.problem else BadInput("api.job_ended", state=job.state)
    return job


def _type_of(knob: Knob) -> Any:
    """A setting's type as a client's form shows it, with its choices."""
    if knob.choices:
        return Literal[knob.choices]
    return knob.type | None if knob.optional else knob.type


def _help_of(name: str, knob: Knob) -> str:
    """A setting's words and range, and how a program gives a picture."""
    most = f" (1 to {MOST_STEPS}; default: {knob.default})"
    is_limited = name in ("optimize", "guide") and knob.name == "steps"
    text = knob.help + (most if is_limited else knob.range_text())
    if knob.kind == "picture":
        return f"{text}; {DATA_URI}"
    return text.replace("FILE", "URI").replace("a mask file", "a mask's URI")


# ---------------------------------------------------------------------------------------------------------- pictures


def _rank_tool(context: PageContext) -> Callable[..., Any]:
    def rank(pictures: list[str], text: str) -> dict:
        with one_sentence():
            return _rank(context.studio, pictures, clean_prompt(as_text(text)))

    rank.__doc__ = f"""Order pictures by how well CLIP finds that they show a text.

    Args:
        pictures: 1 to {MOST_PICTURES} pictures, each {DATA_URI}
        text: what they should show, in English or Chinese
    Returns:
        the ranking, best first, by the pictures' numbers counted from 0, with scores, and the noise of a score
    """
    return rank


@run_in_own_thread
def _rank(studio: Any, pictures: Sequence[str], text: str) -> dict[str, Any]:
    check_pictures(pictures)
    with looking:
        clip = studio.clip()
        ranking = ranked(clip, text, vectors_of(clip, [as_shown(picture) for picture in pictures]))
    rows = [
        {"picture": k, "score": ranking.scores[k], "duplicate_of": ranking.duplicate_of[k]}
        for k in ranking.order
    ]
    return {"ranking": rows, "noise": ranking.noise, "tied": ranking.tied}


def _search_tool(context: PageContext) -> Callable[..., Any]:
    def search(text: str, count: int = 12) -> list[dict]:
        with one_sentence():
            if not isinstance(count, int) or not 1 <= count <= MOST_FOUND:
                raise BadInput("api.count_form", count=str(count)[:20], most=MOST_FOUND)
            matches = context.library.search(context.studio.clip(), clean_prompt(as_text(text)), count)
            return [
                {
                    "file": _file(entry.path),
                    "score": score,
                    "prompt": entry.prompt,
                    "tool": entry.tool,
                    "seed": entry.seed,
                }
                for entry, score in matches
            ]

    search.__doc__ = f"""Find the pictures of the studio's library that look most like a text, by CLIP.

    Args:
        text: what they should show, in English or Chinese; several texts may have weights: cat:1 night:0.5 -dog
        count: how many at most (1 to {MOST_FOUND}; default: 12)
    Returns:
        the pictures, best first, each with its file, score, prompt, tool and seed
    """
    return search


def check_pictures(pictures: Sequence[str], most: int = MOST_PICTURES) -> None:
    """BadInput unless these are 1 to `most` data URIs of pictures: no path and no address is opened for a caller."""
    if not isinstance(pictures, (list, tuple)) or not 1 <= len(pictures) <= most:
        raise BadInput("api.pictures_form", most=most)
    for number, source in enumerate(pictures):
        if not isinstance(source, str) or not source.startswith(URI_HEAD):
            raise BadInput("api.picture_form", number=number, picture=str(source)[:40])


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadInput("api.not_text", value=str(value)[:40])
    return value


def _told(picture: dict[str, Any]) -> dict[str, Any]:
    """A picture of a job: its file and the figures that are single values."""
    facts = {key: value for key, value in picture.items() if not isinstance(value, (list, dict))}
    del facts["path"]
    return {"file": _file(picture["path"]), **facts}


def _file(path: str | Path) -> dict[str, Any]:
    """A finished picture as a file of Gradio's, record inside: a copy in its cache, which is emptied every day."""
    copy = save_file_to_cache(path, get_upload_folder())
    return gr.FileData(path=copy, orig_name=Path(path).name, mime_type="image/png").model_dump()


@contextmanager
def one_sentence() -> Iterator[None]:
    """What goes wrong within becomes Gradio's error: one English sentence, with its code as the title.

    Only what was not foreseen goes to the log.
    """
    try:
        yield
    except Exception as problem:
        if not isinstance(problem, (BadInput, CannotSave)):
            log.exception("a call of the API failed")
        message = explain(problem)
        raise gr.Error(str(message), title=message.code, print_exception=False) from None


# ------------------------------------------------------------------------------------------------------------- agents


def check_extra() -> None:
    """BadInput when the package that speaks to agents is missing."""
    if importlib.util.find_spec("mcp") is None:
        raise BadInput("api.mcp_missing", command=_install())


def check_served(page: gr.Blocks) -> None:
    """BadInput, and the page is closed, when Gradio could not serve the tools to agents."""
    if page.mcp_server_obj is None:
        page.close(verbose=False)
        raise BadInput("api.mcp_does_not_fit", gradio=gr.__version__, command=_install())


def _install() -> str:
    return f'{sys.executable} -m pip install "gradio[mcp]=={gr.__version__}"'
