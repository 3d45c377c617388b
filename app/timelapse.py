"""What a run left in its journal, to look at: a film of all its pictures, and a glimpse of any one of them."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.jobs.queue import JobQueue
from app.jobs.threads import run_in_own_thread
from pipelines.core.journal import Journal
from pipelines.core.pipeline import HasStepImages, HasTimelapse
from pipelines.errors import BadInput, CannotSave
from pipelines.io.video import write_film

KINDS = {".mp4": "video/mp4", ".webp": "image/webp"}
STEP_IMAGE_PIXELS = 768  # of the longer side

# one of each at a time: they share the device with the queue
_making_timelapse, _drawing_image = threading.Lock(), threading.Lock()


@run_in_own_thread
def make_timelapse(queue: JobQueue, job_id: str, suffix: str) -> Path:
    """The film of a run as it stands, made anew when its journal has grown. BadInput when there is nothing to show."""
    if suffix not in KINDS:
        raise BadInput("app.film_form", suffix=suffix[:10])
    pipeline, settings, journal = _run_of(queue, job_id)
    if not isinstance(pipeline, HasTimelapse):
        raise BadInput("app.no_film")
    assert journal.folder is not None
    path = journal.folder / f"film{suffix}"
    with _making_timelapse:
        snapshots = [snapshot.stat().st_mtime for snapshot in journal.folder.glob("step-*.safetensors")]
        if not path.is_file() or path.stat().st_mtime < max(snapshots, default=0):
            film = pipeline.timelapse(settings, journal)
            write_film(path, film.frames, film.count, scenes=film.scenes)
    return path


@run_in_own_thread
def image_at(queue: JobQueue, job_id: str, step: int) -> Image.Image:
    """The picture of a run at one of its snapshots."""
    pipeline, settings, journal = _run_of(queue, job_id)
    if step not in journal.steps():
        raise BadInput("app.no_snapshot", step=step)
    with _drawing_image:
        return pipeline.image_at(settings, journal, step)


def _run_of(queue: JobQueue, job_id: str) -> tuple[Any, Any, Journal]:
    """What shows a run: its pipeline, its prepared settings and its journal, which is not empty."""
    journal = queue.journal(job_id)
    if not journal.steps():
        raise BadInput("app.no_pictures_yet")
    job = queue.job(job_id)
    pipeline = queue.studio.pipeline(job.pipeline)
    if not isinstance(pipeline, HasStepImages):
        raise BadInput("app.no_looking_back")
    identity = journal.identity()
    if identity is not None:
        return pipeline, pipeline.Settings.from_dict(identity["settings"]), journal
    # a fork that still waits
    return pipeline, pipeline.prepare(pipeline.Settings.from_dict(job.settings)), journal


def routes(queue: JobQueue) -> list[Route]:
    """/film/JOB.mp4, /film/JOB.webp and /glimpse/JOB/STEP.jpg."""

    def film(request: Request) -> Response:
        job_id, dot, kind = str(request.path_params["name"]).rpartition(".")
        try:
            path = make_timelapse(queue, job_id, dot + kind)
        except (BadInput, CannotSave) as problem:
            return PlainTextResponse(str(problem), 404)
        headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
        return FileResponse(
            path, media_type=KINDS[path.suffix], filename=f"atelier-{job_id}{path.suffix}", headers=headers
        )

    def one_glimpse(request: Request) -> Response:
        try:
            picture = image_at(queue, request.path_params["job"], request.path_params["step"])
        except (BadInput, CannotSave) as problem:
            return PlainTextResponse(str(problem), 404)
        picture.thumbnail((STEP_IMAGE_PIXELS, STEP_IMAGE_PIXELS))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=90)
        headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(buffer.getvalue(), media_type="image/jpeg", headers=headers)

    return [Route("/film/{name}", film), Route("/glimpse/{job}/{step:int}.jpg", one_glimpse)]
