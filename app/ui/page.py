"""The page: its tabs, how it opens, and how it is served. A designed tab is one file or folder and one line in TOOLS."""

from __future__ import annotations

import logging
import os
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nobody is called

import gradio as gr
from gradio.data_classes import BlocksConfigDict
from starlette.middleware import Middleware

from app import space
from app import timelapse as films
from app.jobs.queue import JobQueue
from app.lanes.pool import Lanes, open_lanes, places_of
from app.library import Library
from app.saved_directions import Shelf
from app.serving import LOCAL, PORT, Serving, without_proxies
from app.trainings.manager import Trainings
from app.ui import api, api_see, exporting, stopping, theme
from app.ui.addresses import NoAddresses, forbid_fetching
from app.ui.axes import Axes
from app.ui.context import (
    DRAWING,
    QUIET,
    STEERING,
    PageContext,
    Update,
    clickable_html,
    clicked,
    drawing_pipelines,
)
from app.ui.door import Door
from app.ui.folders import Folders
from app.ui.html.page import header, queue_status, served
from app.ui.i18n import LANGUAGES, knob_help
from app.ui.offering import advisor_of
from app.ui.origins import Origins
from app.ui.pictures import Pictures
from app.ui.queue_panel import QueuePanel
from app.ui.sessions import VisitHolder
from app.ui.tabs import edit, generate, library, models, optimize, plain, see, train
from app.ui.trainings import TrainQuestions
from app.ui.uploads import EVERY_SECONDS, MOST_SECONDS, UploadLimits, upload_folder
from app.ui.visits import Callers, House, Visits, asking, calling
from app.ui.wall import Wall
from app.visitors import OwnLibrary, OwnQueue
from pipelines.errors import BadInput, CannotSave
from pipelines.io.images import restrict_pillow

log = logging.getLogger(__name__)

TabBuilder = Callable[[PageContext, gr.Tab], None]

# name -> what builds the tab. Its word is `tab_NAME` in assets/strings/page.json. Pipelines without a designed tab get a
# plain one, between these two groups.
TOOLS: dict[str, TabBuilder] = {"generate": generate.build, "optimize": optimize.build, "edit": edit.build}
PLACES: dict[str, TabBuilder] = {
    "see": see.build,
    "library": library.build,
    "train": train.build,
    "models": models.build,
}


def tabs_of(context: PageContext) -> dict[str, TabBuilder]:
    """All tabs in order, by name. Notes what plain ones are called."""
    plain_tabs: dict[str, TabBuilder] = {}
    for name, pipeline in context.queue.pipelines.items():
        if name not in (*TOOLS, *DRAWING, *STEERING):
            context.names[f"tab_{name}"] = plain.tab_name(pipeline)
            plain_tabs[name] = partial(plain.build, pipeline=name)
    return {**TOOLS, **plain_tabs, **PLACES}


class Page(gr.Blocks):
    """Blocks that send the browser no component of named endpoints. Programs get those with the whole config, at /config.

    Gradio has a component for each parameter of an endpoint. They show nothing, but its script would make and compare
    each of them before the page is there.
    """

    def get_config_file(self) -> BlocksConfigDict:
        config = super().get_config_file()
        hidden = {component["id"] for component in config["components"] if component["type"] == "api"}
        shown: Any = config["page"][""]
        shown["components"] = [id for id in shown["components"] if id not in hidden]
        layout = shown["layout"]
        layout["children"] = [child for child in layout["children"] if child["id"] not in hidden]
        return config


def build(
    studio: Any,
    queue: JobQueue,
    pictures_library: Library,
    examples: Path = theme.ASSETS / "examples",
    serving: Serving = LOCAL,
    folders: Sequence[Path] = (),
) -> gr.Blocks:
    """The whole page over a studio, its queue and its library.

    `examples` are pictures shown before there are others; `folders` are shown in the Library, beside what was made here.
    """
    house = House(queue.folder, serving.apart)
    pictures = Pictures(house.home, examples, house.key)
    upload_folder()  # before any component asks where files go
    queue.address = calling
    if serving.apart:
        queue = cast(JobQueue, OwnQueue(queue, asking))
        pictures_library = cast(Library, OwnLibrary(house.home))
    helps: dict[str, str] = {}
    for name, kind in queue.pipelines.items():
        for knob in kind.Settings.knobs():
            helps.setdefault(knob.name, knob_help(knob, "en"))
            helps[f"{name}_{knob.name}"] = knob_help(knob, "en")
    shown = Folders(pictures_library, queue.folder, may_open=not serving.beyond, given=folders)
    trainings = None if serving.beyond else Trainings(queue.folder, lambda: queue.busy)
    context = PageContext(
        studio, queue, pictures_library, pictures, Shelf(house.home), shown, serving, trainings, helps=helps
    )
    with Page(title="Atelier", delete_cache=(EVERY_SECONDS, MOST_SECONDS), analytics_enabled=False) as page:
        head = clickable_html(header(), elem_id="masthead")
        context.queue_status = clickable_html(
            queue_status(False, 0), elem_id="queue-status", script="window.atelier.queue(element, trigger);"
        )
        arriving = [gr.Textbox(visible=False) for _ in range(4)]
        context.visitor, context.job, context.link, context.engine = arriving
        context.handover, context.form_values = gr.Textbox(visible=False), gr.Textbox(visible=False)
        with gr.Tabs(selected="generate", elem_id="tabs") as context.tabs:
            for name, build_tab in tabs_of(context).items():
                tab = context.translate(gr.Tab(id=name, elem_id=f"tab-{name}"), label=f"tab_{name}")
                with tab:
                    build_tab(context, tab)
        if serving.beyond:
            gr.HTML(served(serving), elem_id="served", apply_default_css=False)
        labels = [component for component, _ in context.translated]

        def speak(language: str) -> Update:
            """New labels for all of Gradio's components; our own HTML holds both languages already."""
            return context.relabel(language) if language in LANGUAGES else gr.skip()

        def switch(event: gr.EventData) -> Update:
            """The language that was clicked."""
            return speak(clicked(event).get("to", ""))

        head.click(switch, None, labels, **QUIET)
        line = context.queue_status
        line.click(QueuePanel(queue).act, [context.visitor], [line], trigger_mode="multiple", **QUIET)
        arrived = page.load(None, None, arriving, js="() => window.atelier.arrive()", **QUIET)
        for answer, inputs, outputs, refresh in context.arrivals:
            context.answered(arrived.then(answer, inputs, outputs, **QUIET), refresh)
        spoken = "() => [window.atelier.spoken()]"  # in the place of a component that it does not read
        arrived.then(speak, [context.form_values], labels, js=spoken, **QUIET)
        api.build(context)
        api_see.build(context)
    page.atelier = context  # type: ignore[attr-defined]
    return page


def launch(page: gr.Blocks, *, port: int | None = None, mcp: bool = False) -> tuple[Any, str]:
    """Start serving a built page in the background, at any free port unless one is given: the app and its address here.

    `mcp` serves its tools to agents too.
    """
    if mcp:
        api.check_extra()
    context: PageContext = page.atelier  # type: ignore[attr-defined]
    serving = replace(context.serving, port=port)
    restrict_pillow()
    forbid_fetching()
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # the door decides whose word on a request's origin is believed
    with without_proxies():  # Gradio calls itself when it starts
        app, url = _launched(page, context, serving, mcp)
    if mcp:
        api.check_served(page)
    return app, url


def _launched(page: gr.Blocks, context: PageContext, serving: Serving, mcp: bool) -> tuple[Any, str]:
    house = House(context.queue.folder, serving.apart)
    app, url, _ = page.queue(max_size=64, default_concurrency_limit=8).launch(
        server_name=f"[{serving.host}]" if ":" in serving.host else serving.host,
        server_port=serving.port,
        root_path=serving.root,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        enable_monitoring=False,
        strict_cors=True,
        max_file_size="20mb",
        run_history=False,
        footer_links=["api"],
        mcp_server=mcp,
        ssr_mode=False,
        theme=theme.studio_theme(),
        head=theme.head(apart=serving.apart),
        i18n=context.translations(),
        favicon_path=theme.ASSETS / "favicon.svg",
        app_kwargs={
            "routes": [
                *context.pictures.routes(),
                *films.routes(context.queue),
                *context.shelf.routes(),
                *house.routes(),
                *stopping.routes(context.queue),
                *Axes(context).routes(),
                *Wall(context).routes(),
                *exporting.routes(context),
                *TrainQuestions(context.trainings).routes(),
            ],
            "middleware": _guards(serving),
        },
    )
    app.state_holder = VisitHolder(page)
    return app, url


def _guards(serving: Serving) -> list[Middleware]:
    """What every request passes, in this order.

    Where it comes from, the door, who is asking, no addresses, room for uploads.
    """
    asking_guards = [Callers, *([Visits] if serving.apart else [])]
    guards: list[Any] = [Origins, Door, *asking_guards, NoAddresses, UploadLimits]
    return [Middleware(guard, serving=serving) for guard in guards]


def serve(
    studio: Any,
    queue: JobQueue,
    pictures_library: Library,
    *,
    serving: Serving = LOCAL,
    open_browser: bool = True,
    mcp: bool = False,
    folders: Sequence[Path] = (),
) -> int:
    """Serve the page until Ctrl+C; models load in the background once it is up. Returns the exit code."""
    page = build(studio, queue, pictures_library, serving=serving, folders=folders)
    port = serving.port or PORT
    try:
        _, here = launch(page, port=port, mcp=mcp)
    except OSError:
        raise BadInput("app.port_taken", port=port, other=port + 1) from None
    url = serving.address(port)
    print(f"Atelier is open at {url}  (Ctrl+C closes it)", flush=True)
    threading.Thread(target=_wake, args=(studio,), daemon=True, name="wake").start()
    if open_browser and not serving.space:
        webbrowser.open(here + (f"?token={serving.secret}" if serving.protection == "token" else ""))
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal is gone
            print("closing", flush=True)
    finally:
        queue.begin_closing()
        page.atelier.folders.close()  # type: ignore[attr-defined]
        if page.atelier.trainings is not None:  # type: ignore[attr-defined]
            page.atelier.trainings.close()  # type: ignore[attr-defined]
        page.close(verbose=False)
        queue.close()
    return 0


def _wake(studio: Any) -> None:
    """Load what Generate needs, so that the first prompt does not wait for it."""
    try:
        for engine in drawing_pipelines(studio.pack):
            advisor = advisor_of(studio.pipeline(engine))
            if advisor is not None:
                advisor.prepare()
    except (BadInput, CannotSave) as problem:
        log.warning("%s", problem)
    except Exception:
        log.exception("the models did not load")


def open_studio(
    pack: str, device: str, folder: Path, use: dict[str, str] | None = None
) -> tuple[Any, JobQueue, Library]:
    """The studio behind the page: models of a pack on a device or on several, jobs and pictures in a folder."""
    if places := places_of(device):
        from pipelines.studio import PIPELINES, Studio

        asked = Studio(pack, "cpu", use)
        lanes = Lanes(open_lanes(places), asked, PIPELINES)
        return asked, JobQueue(asked, folder, lanes=lanes.runs()), Library(folder)
    studio, run = space.open_studio(pack, device, folder, use)
    return studio, JobQueue(studio, folder, run=run), Library(folder)
