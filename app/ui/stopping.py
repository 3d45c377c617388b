"""Stop, by an address of its own: it waits for no lock and no thread, so it is answered within a step under any load."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.jobs.queue import JobQueue


def routes(queue: JobQueue) -> list[Route]:
    """POST /stop/JOB: the running job ends at its next step. The button's own answer follows, and shows what was kept."""

    async def stop(request: Request) -> Response:
        queue.stop_soon(request.path_params["job"])
        return Response(status_code=204)

    return [Route("/stop/{job}", stop, methods=["POST"])]
