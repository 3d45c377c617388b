"""Asking how a picture was drawn: its candidate is drawn once more beside the queue, and watched."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from markupsafe import Markup

from app.jobs.threads import run_in_own_thread
from app.ui.html import explain as explain_html
from pipelines.core.generators import finished
from pipelines.core.record import check_complete, read_record
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.walkthrough import explain
from pipelines.errors import BadInput
from pipelines.studio import PIPELINES

_watching = threading.Lock()  # one at a time: they share the device with the queue


@run_in_own_thread
def explained(studio: Any, path: Path, name: str) -> Markup:
    """The panel of a picture that Diffuse drew, which the page calls `name`. BadInput for others."""
    record = read_record(path, PIPELINES)
    check_complete(record)
    if record.pipeline != "diffuse":
        raise BadInput("diffuse.explain_other", pipeline=record.pipeline)
    pipeline = studio.pipeline(record.pipeline)
    if not isinstance(pipeline, Diffuse):
        raise BadInput("diffuse.not_explained")
    settings = pipeline.Settings.from_dict({**record.settings, "style": record.picture.get("style", "")})
    with _watching:
        found = finished(explain(pipeline, settings, int(record.picture["seed"])))  # type: ignore[arg-type]
        return explain_html.panel(found, name)
