"""The form of Edit: HTML of our own, which the script of the page reads and fills; every event brings it along as JSON."""

from __future__ import annotations

import json
from typing import Any

from app.jobs.queue import Job
from app.ui.components import uploaded_path
from app.ui.context import PageContext
from app.ui.tabs.form import painted_mask, script_values
from pipelines.core.record import read_record
from pipelines.core.settings import Knob
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, picture_to_uri


class EditForm:
    """The form's values as Settings take them, and back. The visitor's texts may name no files of this machine."""

    def __init__(self, context: PageContext, knobs: dict[str, Knob]):
        self.queue, self.pictures, self.directions, self.knobs = (
            context.queue,
            context.pictures,
            context.shelf,
            knobs,
        )

    def settings(self, form: dict[str, Any], upload: Any) -> dict[str, Any]:
        """What was read, as Settings take it."""
        plain: dict[str, Any] = {}
        for name, knob in self.knobs.items():
            value = form.get(name)
            plain[name] = knob.default if value is None else value
        plain["image"] = self.source(str(form.get("source_of") or ""), upload)
        plain["mask"], plain["directions"] = "", ""
        if uses := used_directions(form):
            plain["directions"], plain["source"], plain["prompt"] = self.directions.setting(uses)
        mask = painted_mask(form)
        if mask and plain["image"]:
            plain["mask"] = _fitted(mask, plain["image"])
        return plain

    def source(self, source: str, upload: Any) -> str:
        """The picture that the form names: what was uploaded, a file of the studio's, or what a run was given."""
        kind, _, name = source.partition(":")
        if kind == "upload":
            return uploaded_path(upload)
        if kind == "job":
            return str(self.queue.job(name).settings.get("image", ""))
        if kind == "record":  # what a picture of ours was made from
            return str(read_record(self.pictures.path(name), self.queue.pipelines).settings.get("image", ""))
        if kind in ("example", "picture"):
            return str(self.pictures.path(name, example=kind == "example"))
        return ""

    def filled(self, settings: dict[str, Any], source: str) -> str:
        """What the script fills in: those of a run's settings that the form has fields for, and where its picture is."""
        apart = ("image", "directions")
        known = {name: settings[name] for name in self.knobs if name not in apart and name in settings}
        return script_values(**known, source_of=source)

    def filled_from(self, job: Job) -> str:
        """What the script fills in for a job."""
        return self.filled(job.settings, f"job:{job.id}" if job.settings.get("image") else "")


def read_form(values: str) -> dict[str, Any]:
    """The form as the script tells it."""
    try:
        form = json.loads(values or "{}")
    except ValueError:
        form = None
    if not isinstance(form, dict):
        raise BadInput("page.form_unreadable")
    return form


def used_directions(form: dict[str, Any]) -> dict[str, float]:
    """The directions that are ticked, each with its strength."""
    uses = form.get("uses")
    if not isinstance(uses, dict):
        return {}
    return {str(name): float(value) for name, value in uses.items() if isinstance(value, (int, float))}


def _fitted(mask: str, image: str) -> str:
    """The painted mask in the size of the picture."""
    size = open_picture(image).size
    picture = open_picture(mask).convert("L")
    return mask if picture.size == size else picture_to_uri(picture.resize(size).convert("RGB"))
