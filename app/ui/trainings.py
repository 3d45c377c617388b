"""What the script of the tab Train asks the server: questions as JSON under /train, sheets as pictures.

Whoever may ask may read any folder of this machine and use it for hours. So it is answered only where the studio serves
its own machine alone; elsewhere all of it is one sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.trainings.checking import Checks
from app.trainings.manager import Trainings
from app.trainings.order import Order
from app.ui.html import train as train_html
from app.ui.questions import Asked, routes_of, text_of
from app.ui.wall import FOREVER
from pipelines.errors import BadInput
from pipelines.io.files import home_path
from pipelines.models.pack_card import packs_folder
from pipelines.training.data.folder import Check
from pipelines.training.own import ICONS_ONLY, PACK

MOST_POINTS = 160  # of a curve that is sent


class TrainQuestions:
    """The questions of the tab. `trainings` is None where nothing may be trained."""

    def __init__(self, trainings: Trainings | None) -> None:
        self.trainings = trainings
        self.checks = Checks(trainings.data, trainings.needed) if trainings else None

    def routes(self) -> list[Route]:
        """POST /train/QUESTION with JSON; GET /train/sheet/ID/STEP and /train/mosaic/NAME."""
        questions: dict[str, Callable[[Asked], Asked]] = {
            "form": self.form,
            "look": self.look,
            "check": self.check,
            "start": self.start,
            "do": self.do,
        }
        return [
            *routes_of("train", questions),
            Route("/train/sheet/{id}/{step:int}", self._sheet),
            Route("/train/mosaic/{name}", self._mosaic),
        ]

    def form(self, asked: Asked) -> Asked:
        """The form, with the networks that there are."""
        self._open()
        return {"html": train_html.form(networks())}

    def look(self, asked: Asked) -> Asked:
        """How the training stands: parts of HTML, the losses, the steps of the sheets."""
        now = self._open().now()
        if now is None:
            return {"state": "none"}
        return {
            "state": now.state,
            "id": now.id,
            "head": train_html.head(now),
            "going": train_html.going(now),
            "figures": train_html.figures(now),
            "sheets": now.sheets,
            "curves": [
                {"name": name, "title": train_html.figure_name(name), "points": thinned(points)}
                for name, points in now.curves.items()
            ],
        }

    def check(self, asked: Asked) -> Asked:
        """What is found in a folder, or how far the look at it is."""
        self._open()
        found = self._found(asked, again=asked.get("again") is True)
        if isinstance(found, dict):
            return found
        return {"html": train_html.found(found, f"train/mosaic/{found.sheet.stem}")}

    def start(self, asked: Asked) -> Asked:
        """Begin a training; {"done", "total"} while its folder is being looked at. BadInput where a field cannot be."""
        trainings = self._open()
        network, pack = (text_of(asked, name).strip() for name in ("network", "pack"))
        if network not in networks():
            raise BadInput("training.network_unknown", network=network[:40], known=", ".join(networks()))
        order = Order(
            network=network,
            data=_folder(asked),
            pack=pack,
            out=str(packs_folder() / pack),
            licence=text_of(asked, "licence").strip()[:200],
            minutes=_number(asked, "minutes"),
            size=text_of(asked, "size"),
            seed=int(_number(asked, "seed")),
        )
        found = self._found(asked)
        if isinstance(found, dict):
            return found
        trainings.start(order)
        return self.look({})

    def _found(self, asked: Asked, again: bool = False) -> Check | Asked:
        """What is in the folder of a question, or how far the look at it is. BadInput where it is no use."""
        assert self.checks is not None
        if not (folder := _folder(asked)):
            raise BadInput("training.folder_missing", folder="")
        now = self.checks.ask(folder, text_of(asked, "licence").strip()[:200], again)
        if now.problem is not None:
            raise BadInput.of(now.problem)
        return {"done": now.done, "total": now.total} if now.found is None else now.found

    def do(self, asked: Asked) -> Asked:
        """Pause, resume, stop or forget: how it stands then."""
        trainings = self._open()
        deeds = {
            "pause": trainings.pause,
            "resume": trainings.resume,
            "stop": trainings.stop,
            "forget": trainings.forget,
        }
        deed = deeds.get(text_of(asked, "do"))
        if deed is not None:
            deed()
        return self.look({})

    def _open(self) -> Trainings:
        if self.trainings is None:
            raise BadInput("training.not_here")
        return self.trainings

    def _sheet(self, request: Request) -> Response:
        try:
            file = self._open().sheet(request.path_params["id"], request.path_params["step"])
        except BadInput as problem:
            return PlainTextResponse(str(problem), 404)
        return FileResponse(file, media_type="image/png", headers={"Cache-Control": FOREVER})

    def _mosaic(self, request: Request) -> Response:
        name = request.path_params["name"]
        if self.checks is None or not re.fullmatch(r"[a-z0-9-]{1,60}", name):
            return PlainTextResponse(str(BadInput("training.not_here")), 404)
        file = self.checks.cache / f"{name}.png"
        if not file.is_file():
            return PlainTextResponse("", 404)
        return FileResponse(file, media_type="image/png", headers={"Cache-Control": FOREVER})


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS of a curve, each the mean of neighbours, to five digits."""
    size = math.ceil(len(points) / MOST_POINTS)
    groups = [points[k : k + size] for k in range(0, len(points), size)] if size else []
    return [(_mean([step for step, _ in group]), _mean([value for _, value in group])) for group in groups]


def _mean(values: list[float]) -> float:
    return float(f"{sum(values) / len(values):.5g}")


def networks() -> list[str]:
    """What can be trained on a folder of pictures; the whole pack first."""
    from pipelines.training.cli import TRAINERS  # half a second, which the studio's start need not wait for

    return [PACK, *(name for name in TRAINERS if name not in ICONS_ONLY)]


def _folder(asked: Asked) -> str:
    """The folder of a question, whole; "" where there is none."""
    folder = text_of(asked, "folder").strip()
    return str(home_path(folder).absolute()) if folder else ""


def _number(asked: Asked, name: str) -> float:
    """A number of a question; one that cannot be read is none that a field takes."""
    value: Any = asked.get(name)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return -1.0
    return number if math.isfinite(number) else -1.0
