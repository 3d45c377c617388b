"""Questions that a tab's script asks by plain addresses: JSON in, JSON out, and what goes wrong as one sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.ui.i18n import both, both_sentence
from pipelines.core.explain import explain
from pipelines.errors import BadInput, CannotSave

FRESH = {"Cache-Control": "no-store"}

log = logging.getLogger(__name__)

Asked = dict[str, Any]  # the JSON of a question, and of its answer


def endpoint(question: Callable[[Asked], Asked]) -> Callable[[Request], Any]:
    """The answer to a question as JSON; what goes wrong is one sentence in both languages."""

    def answer(body: bytes) -> Response:
        try:
            asked = json.loads(body or b"{}")
            return JSONResponse(question(asked if isinstance(asked, dict) else {}), headers=FRESH)
        except (BadInput, CannotSave) as problem:
            return JSONResponse({"error": both_sentence(problem)}, 400, headers=FRESH)
        except (ValueError, RecursionError):
            return JSONResponse({"error": both("lib_trouble")}, 400, headers=FRESH)
        except Exception as problem:
            log.exception("a tab got no answer")
            return JSONResponse({"error": both_sentence(explain(problem))}, 500, headers=FRESH)

    async def asked(request: Request) -> Response:
        return await run_in_threadpool(answer, await request.body())

    return asked


def routes_of(area: str, questions: dict[str, Callable[[Asked], Asked]]) -> list[Route]:
    """POST /AREA/NAME with JSON, for each question by its name."""
    return [
        Route(f"/{area}/{name}", endpoint(question), methods=["POST"]) for name, question in questions.items()
    ]


def text_of(asked: Asked, name: str) -> str:
    """A text of a question; "" where there is none."""
    value = asked.get(name)
    return value if isinstance(value, str) else ""


def texts_of(asked: Asked, name: str) -> list[str]:
    """The texts in a list of a question."""
    value = asked.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
