"""Atelier for programmers: `from pipelines import Studio, run, GenerateSettings`.

`Studio` loads the models of a pack, `run` runs a pipeline on its Settings, and `PIPELINES` maps names to pipeline classes.
Each name is imported when it is first used, because importing torch takes a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.core.execute import run as run
    from pipelines.core.pipeline import Picture as Picture
    from pipelines.core.pipeline import Pipeline as Pipeline
    from pipelines.core.pipeline import Result as Result
    from pipelines.core.pipeline import Step as Step
    from pipelines.diffuse.settings import DiffuseSettings as DiffuseSettings
    from pipelines.edit.settings import EditSettings as EditSettings
    from pipelines.errors import BadInput as BadInput
    from pipelines.errors import CannotSave as CannotSave
    from pipelines.errors import Stopped as Stopped
    from pipelines.generate.settings import GenerateSettings as GenerateSettings
    from pipelines.guide.settings import GuideSettings as GuideSettings
    from pipelines.optimize.settings import OptimizeSettings as OptimizeSettings
    from pipelines.studio import PIPELINES as PIPELINES
    from pipelines.studio import Studio as Studio

_HOMES = {
    "pipelines.core.execute": ("run",),
    "pipelines.core.pipeline": ("Picture", "Pipeline", "Result", "Step"),
    "pipelines.diffuse.settings": ("DiffuseSettings",),
    "pipelines.edit.settings": ("EditSettings",),
    "pipelines.errors": ("BadInput", "CannotSave", "Stopped"),
    "pipelines.generate.settings": ("GenerateSettings",),
    "pipelines.guide.settings": ("GuideSettings",),
    "pipelines.optimize.settings": ("OptimizeSettings",),
    "pipelines.studio": ("PIPELINES", "Studio"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it. AttributeError for other names."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
