"""What the tabs share: the studio, the queue, the visitor, and the labels that change with the language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app.downloads import Downloads
from app.jobs.queue import JobQueue
from app.library import Library
from app.recipe import Recipe, read_recipe
from app.saved_directions import Shelf
from app.serving import LOCAL, Serving
from app.trainings.manager import Trainings
from app.ui.folders import Folders
from app.ui.i18n import LANGUAGES, say, text
from app.ui.pictures import Pictures
from pipelines.weights import catalog
from pipelines.weights.catalog import has_pack, pipelines_of, with_readers
from pipelines.weights.checkpoint import Checkpoint

Update = dict[
    Any, Any
]  # an answer to Gradio: components and what they become; what is not named stays as it is
QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}

TAKING = ("optimize", "edit", "see")  # tabs that take a picture from others
STEERING = ("optimize", "guide")  # the engines of the tab Optimize: pipelines that CLIP steers step by step
DRAWING = ("generate", "diffuse")  # the engines of the tab Generate: pipelines that draw from a prompt

# Passes clicks on anything that carries data-act to Python, with its data.
ACTS = """element.addEventListener('click', (event) => {
  const at = event.target.closest('[data-act]');
  if (at && element.contains(at)) trigger('click', {...at.dataset});
});"""


@dataclass
class PageContext:
    """One page being built. Tabs add components to it; nothing of a visitor's is kept here."""

    studio: Any
    queue: JobQueue
    library: Library
    pictures: Pictures
    shelf: Shelf
    folders: Folders
    serving: Serving = LOCAL
    trainings: Trainings | None = None  # None where nothing may be trained
    downloads: Downloads = field(default_factory=Downloads)
    helps: dict[str, str] = field(default_factory=dict)  # name of a setting -> its help in English
    names: dict[str, tuple[str, str]] = field(
        default_factory=dict
    )  # words that are not the page's own, by key
    translated: list[tuple[Any, dict[str, str]]] = field(default_factory=list)
    tabs: Any = None
    visitor: Any = None  # hidden: who is here, for fairness in the queue
    job: Any = None  # hidden: the job that is looked at
    link: Any = None  # hidden: the recipe in the page's address, the empty text when there is none
    engine: Any = None  # hidden: the one of DRAWING that is chosen, the empty text for the pack's first
    queue_status: Any = None
    handover: Any = (
        None  # hidden: "TAB:KIND:NAME", what goes to another tab: KIND is "start", "settings", "remix" (without
        # the seed), or of See "step" with JOB/STEP as its name
    )
    form_values: Any = (
        None  # hidden: JSON that the script fills into Edit's form; outside the tabs, which appear late
    )
    # answers to opening the page: function, inputs, outputs, and what makes the tab look
    arrivals: list[tuple[Any, list[Any], list[Any], Any]] = field(default_factory=list)

    def translate(self, component: Any, **keys: str) -> Any:
        """Note that these properties of a component are words: `context.translate(gr.Button(), value="go")`."""
        for name, key in keys.items():
            setattr(component, name, text(key))
        self.translated.append((component, keys))
        return component

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines of the pack in use."""
        return drawing_pipelines(self.studio.pack)

    def missing(self, pipeline: str) -> list[Checkpoint]:
        """Models that a pipeline of the pack in use is made of and that are not here."""
        pack = self.studio.pack
        if not has_pack(pack) or pipeline not in pipelines_of(pack):
            return []
        parts = catalog.parts(pack, pipeline, getattr(self.studio, "use", None)).values()
        return [checkpoint for checkpoint in with_readers(parts) if not checkpoint.present]

    def recipe(self, link: str, *pipelines: str) -> Recipe | None:
        """The recipe of the page's address, when it is for one of these pipelines; BadInput when it is none at all."""
        recipe = read_recipe(link, self.queue.pipelines) if link else None
        return recipe if recipe and recipe.pipeline in pipelines else None

    def watch(
        self, look: Callable[..., Any], inputs: list[Any], outputs: list[Any], *when: Any, **options: Any
    ) -> Any:
        """Call `look` at these events, one call at a time and once more for what happened meanwhile.

        On a slow line answers could overtake each other, and an old one would stay.
        """
        return gr.on(list(when), look, inputs, outputs, trigger_mode="always_last", **QUIET, **options)

    def answered(self, answer: Any, refresh: Any, job: Any = None) -> Any:
        """After an answer: the page's address names the job, if one is given; a change of `refresh` makes the tab look."""
        named = None if job is None else [job]
        return answer.then(None, named, [refresh], js="(job) => window.atelier.answered(job)", **QUIET)

    def hand_over(self, event: gr.EventData) -> Update:
        """A picture whose "Optimize this", "Edit this" or "Why?" was clicked opens that tab and goes to it.

        A step of a run that was looked back at goes to See as "see:step:JOB/STEP".
        """
        data = clicked(event)
        tab = data.get("act", "")
        if tab not in TAKING:
            return gr.skip()
        opening = {self.tabs: gr.Tabs(selected=tab)}
        if tab == "see" and "job" in data:
            return {self.handover: f"see:step:{data['job']}/{data.get('step', '')}", **opening}
        return {self.handover: f"{tab}:start:{data['name']}", **opening} if "name" in data else gr.skip()

    def relabel(self, language: str) -> Update:
        """All components with words, their words in a language."""
        return {component: gr.update(**self._words(keys, language)) for component, keys in self.translated}

    def translations(self) -> gr.I18n:
        """The words of all components with words for the browser, by its language."""
        english, chinese = (
            {key: self._word(key, language) for _, keys in self.translated for key in keys.values()}
            for language in LANGUAGES
        )
        return gr.I18n(en=english, zh=chinese, **{"zh-CN": chinese, "zh-TW": chinese})

    def _words(self, keys: dict[str, str], language: str) -> dict[str, Any]:
        return {name: self._word(key, language) for name, key in keys.items()}

    def _word(self, key: str, language: str) -> str:
        if key in self.names:
            return self.names[key][LANGUAGES.index(language)]
        return say(key, language, self.helps)


def drawing_pipelines(pack: str) -> tuple[str, ...]:
    """Those of DRAWING that a pack has, at least one, in this order."""
    return tuple(name for name in DRAWING if has_pack(pack) and name in pipelines_of(pack)) or DRAWING[:1]


def clicked(event: gr.EventData) -> dict[str, str]:
    """The data of what was clicked, of which `act` says what to do."""
    return {key: str(value) for key, value in (event._data or {}).items()}


def clickable_html(value: str = "", *, script: str = "", **options: Any) -> gr.HTML:
    """A place for our own HTML; its `click` event brings the data of what was clicked. `script` runs when it appears."""
    return gr.HTML(value, js_on_load=ACTS + script, apply_default_css=False, **options)
