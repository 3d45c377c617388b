"""The See tab: pictures are named, explained, taught from and scored by the pack's CLIP.

Answers take a second or a few, so nothing is queued: what was asked is laid on the visitor's tray, then answered.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

import gradio as gr

from app.jobs.threads import run_in_own_thread
from app.saved_probes import Probes
from app.timelapse import image_at
from app.ui.context import QUIET, PageContext, Update, clickable_html, clicked
from app.ui.html import see as see_html
from app.ui.html import see_teach
from app.ui.html.common import error_note, info_note
from app.ui.html.see_form import form
from app.ui.tabs.see.answers import Answers
from app.ui.tray import Question, Shown, Tray, prompt_of, shown, shown_file
from pipelines.core.explain import explain
from pipelines.errors import BadInput, CannotSave
from pipelines.see.labels import read_labels
from pipelines.see.probe import read_probe

READS = "(tray, values) => [tray, window.atelier.question()]"
READS_UPLOAD = "(files, tray, values) => [files, tray, window.atelier.question()]"

log = logging.getLogger(__name__)
_looking = threading.Lock()  # one answer at a time: it shares the device with the queue


def build(context: PageContext, tab_itself: gr.Tab) -> None:
    """The tab's components and what they do."""
    tab = SeeTab(context)
    with gr.Row(elem_id="see", equal_height=False):
        tab.stage = clickable_html(
            see_html.empty(context.pictures), elem_id="see-stage", script="window.atelier.seeing(element);"
        )
        tab.entries = clickable_html(
            form(Question(), ()), elem_id="see-form", script="window.atelier.asking(element);"
        )
        tab.note = gr.HTML(elem_id="see-note", apply_default_css=False)
        tab.answer = clickable_html(elem_id="see-answer", script="window.atelier.answer(element);")
    tab.upload = gr.UploadButton("", file_count="multiple", elem_id="see-upload")
    tab.tray = gr.State(Tray(), time_to_live=3600)
    tab.waiting = gr.Textbox(visible=False)
    tab.connect()


class SeeTab:
    """The components of one page's tab and the functions behind them. A visitor's pictures are in his tray alone."""

    stage: Any
    entries: Any
    note: Any
    answer: Any
    upload: Any
    tray: Any
    waiting: Any  # hidden: not empty while the question on the tray has just been asked

    def __init__(self, context: PageContext):
        self.context = context
        self.probes = Probes(context.shelf.home)
        self.answers = Answers(context.studio, self.probes)

    def connect(self) -> None:
        """Which event calls what. What was asked is laid on the tray and shown as asked; then it is answered."""
        asked = [self.tray, self.waiting]  # in the place of the second the script tells what the form says
        places = [self.tray, self.waiting, self.stage, self.entries, self.note, self.answer]
        for place in (self.entries, self.stage, self.answer):
            self._answered(place.click(self.act, asked, places, js=READS, trigger_mode="once", **QUIET))
        files = [self.upload, *asked]
        self._answered(self.upload.upload(self.add, files, [*places, self.upload], js=READS_UPLOAD, **QUIET))
        handover = self.context.handover
        self._answered(handover.change(self.receive, [handover, self.tray], [handover, *places], **QUIET))
        self.context.arrivals.append((self.arrive, [], [self.entries], self.waiting))

    def _answered(self, asked: Any) -> None:
        """After an event: the question that it asked is answered. Meanwhile more may be laid on the tray."""
        asked.then(self.reply, [self.tray, self.waiting], [self.stage, self.answer], **QUIET)

    # ------------------------------------------------------------------------------------------------------ showing

    def arrive(self) -> Update:
        """The page was opened: the form with the label sets that the visitor has taught."""
        return self._form(Question())

    def _form(self, question: Question) -> Update:
        return {self.entries: form(question, self.probes.kept())}

    def _stage(self, tray: Tray, at: int = 0) -> Update:
        if not tray.pictures:
            return {self.stage: see_html.empty(self.context.pictures)}
        return {self.stage: see_html.stage(tray, tray.at(at))}

    def _ask(self, tray: Tray, question: Question) -> Update:
        """The question waits on the tray, and its place says so."""
        return {
            self.tray: replace(tray, asked=question),
            self.waiting: "yes",
            self.note: "",
            self.answer: see_html.busy(question.mode),
        }

    # ------------------------------------------------------------------------------------------------------- acting

    def act(self, tray: Tray, values: str, event: gr.EventData) -> Update:
        """A button of the form, the stage or the answer."""
        return self._safely(self._act, tray, Question.read(values), clicked(event))

    def _act(self, tray: Tray, question: Question, data: dict[str, str]) -> Update:
        act = data.get("act", "")
        if act == "ask":
            if question.mode != "teach" and not tray.pictures:
                raise BadInput("see.no_picture_yet")
            return self._ask(tray, replace(question, at=tray.at(question.at)))
        if act == "begin":
            path = self.context.pictures.path(data.get("name", ""), example=True)
            picture = shown_file(path, path.stem, self.context.queue.pipelines)
            return self._added(tray, question, [picture])
        if act == "remove":
            less = tray.without(tray.at(question.at)) if tray.pictures else tray
            return {self.tray: less, self.answer: "", **self._stage(less, question.at)}
        if act == "clear":
            return {self.tray: replace(tray, pictures=()), self.answer: "", **self._stage(Tray())}
        if act == "forget":
            less = tray.without_label(data.get("label", ""))
            return {self.tray: less, self.answer: see_teach.groups(less.groups)}
        if act == "use":
            used = replace(question, mode="name", taught=data.get("taught", ""))
            answer = self._ask(tray, used) if tray.pictures else {self.answer: ""}
            return {**self._form(used), **answer}
        return {}

    def add(self, files: list[str] | None, tray: Tray, values: str) -> Update:
        """Files that were dropped, pasted or chosen: pictures, or label sets that were taught."""
        added = self._safely(self._add, tray, Question.read(values), list(files or []))
        return {**added, self.upload: None}

    def _add(self, tray: Tray, question: Question, files: list[str]) -> Update:
        sets = [file for file in files if file.lower().endswith(".safetensors")]
        if sets:
            name = self.probes.keep(read_probe(sets[0]))
            question = replace(question, mode="name", taught=name)
            asked = self._ask(tray, question) if tray.pictures else {}
            return {**self._form(question), self.note: info_note("see_set_opened"), **asked}
        good, problems = _opened(files, self.context.queue.pipelines)
        if not good:
            raise problems[0] if problems else BadInput("see.no_picture_yet")
        note = error_note(problems[0]) if problems else ""
        if question.mode == "teach":
            label = read_labels([question.label])[0] if question.label.strip() else None
            if label is None:
                raise BadInput("see.label_first")
            more = tray.taught(label, good)
            return {self.tray: more, self.note: note, self.answer: see_teach.groups(more.groups)}
        return {**self._added(tray, question, good), **({self.note: note} if note else {})}

    def _added(self, tray: Tray, question: Question, added: list[Shown]) -> Update:
        """More pictures on the tray, the first of them looked at, and the question put to them when there is one."""
        more = tray.with_pictures(added, first=True)
        question = replace(question, at=0, prompt=question.prompt or added[0].prompt)
        if question.mode == "teach":
            question = replace(question, mode="name")
        asks = question.mode == "name" or bool(question.prompt.strip())
        laid = {self.tray: more, self.note: "", self.answer: "", **self._stage(more), **self._form(question)}
        return {**laid, **self._ask(more, question)} if asks else laid

    def receive(self, handover: str, tray: Tray) -> Update:
        """A picture that another tab hands over, with the prompt it was made from: why does it fit?"""
        tab, _, rest = handover.partition(":")
        if tab != "see":
            return {self.waiting: ""}
        return {**self._safely(self._receive, tray, rest), self.context.handover: ""}

    def _receive(self, tray: Tray, rest: str) -> Update:
        kind, _, name = rest.partition(":")
        if kind == "step":
            job_id, _, step = name.partition("/")
            queue = self.context.queue
            settings = {"prompt": queue.job(job_id).settings.get("prompt", "")}
            prompt = prompt_of("optimize", settings)
            picture = shown(image_at(queue, job_id, int(step or 0)), f"{prompt[:40]} ({step})", prompt)
        else:
            path = self.context.pictures.path(name)
            picture = shown_file(path, path.stem, self.context.queue.pipelines)
        more = tray.with_pictures([picture], first=True)
        question = Question("why", prompt=picture.prompt)
        asked = self._ask(more, question) if picture.prompt else {self.answer: "", self.tray: more}
        return {**self._stage(more), **self._form(question), **asked}

    def _safely(self, answer: Any, *values: Any) -> Update:
        """An answer, or one sentence on why there is none."""
        try:
            return {self.waiting: "", **answer(*values)}
        except (BadInput, CannotSave, ValueError) as problem:
            return {self.waiting: "", self.note: error_note(problem)}

    # ---------------------------------------------------------------------------------------------------- answering

    def reply(self, tray: Tray, waiting: str) -> Update:
        """Answer the question on the tray, if it has just been asked."""
        if not waiting or tray.asked is None:
            return gr.skip()
        try:
            answer, captions = self._answer(tray, tray.asked)
        except (BadInput, CannotSave) as problem:
            return {self.answer: see_html.trouble(problem)}
        except Exception as problem:
            log.exception("See gave no answer")
            return {self.answer: see_html.trouble(BadInput.of(explain(problem)))}
        if not captions:
            return {self.answer: answer}
        return {self.answer: answer, self.stage: see_html.stage(tray, tray.at(tray.asked.at), captions)}

    @run_in_own_thread
    def _answer(self, tray: Tray, question: Question) -> tuple[str, list[str]]:
        """The answer as HTML, and what each picture was taken for, where that was asked."""
        with _looking:
            return self.answers.to(tray, question)


def _opened(files: list[str], kinds: Any) -> tuple[list[Shown], list[BadInput]]:
    """The files that are pictures, and what is wrong with the others."""
    good: list[Shown] = []
    problems: list[BadInput] = []
    for file in files:
        try:
            name = file.replace("\\", "/").rsplit("/", 1)[-1]
            good.append(shown_file(file, name.rsplit(".", 1)[0], kinds))
        except BadInput as problem:
            problems.append(problem)
    return good, problems
