"""The rectified flows by the class that a folder's model_index.json names."""

from __future__ import annotations

from pipelines.models.flow.base import Flow
from pipelines.models.flow.qwen import Klein, ZImage
from pipelines.models.flow.sana import SanaSprint
from pipelines.models.flow.t5 import Flux1, StableDiffusion3

FLOWS: dict[str, type[Flow]] = {
    "ZImagePipeline": ZImage,
    "Flux2KleinPipeline": Klein,
    "FluxPipeline": Flux1,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "SanaSprintPipeline": SanaSprint,
}
