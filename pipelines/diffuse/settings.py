"""What decides a run of Diffuse."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.core.settings import Settings, clean_prompt, knob
from pipelines.errors import BadInput

MIN_SIDE, MAX_SIDE = 64, 2048  # pixels
SIDE_MULTIPLE = 8  # the sides are multiples of this, in pixels


@dataclass(frozen=True, kw_only=True)
class DiffuseSettings(Settings):
    """What decides a set of candidates. What is None is proposed, and written down before the run."""

    negative_prompt: str = knob("", help="what not to draw; needs guidance above 1")
    candidates: int = knob(4, 1, 256, help="how many pictures are drawn and ranked")
    keep: int = knob(4, 1, 64, help="how many of the best are kept")
    width: int | None = knob(None, MIN_SIDE, MAX_SIDE, help="in pixels, a multiple of 8")
    height: int | None = knob(None, MIN_SIDE, MAX_SIDE, help="in pixels, a multiple of 8")
    image: str = knob("", help="a picture to start from", kind="picture")
    strength: float = knob(0.75, 0.01, 1.0, help="how far from the picture; 1 forgets it")
    mask: str = knob("", help="a picture, white where the picture is drawn anew", kind="picture")
    steps: int | None = knob(None, 1, 200, help="of the walk down the noise", advanced=True)
    guidance: float | None = knob(
        None, 0.0, 30.0, help="how strongly the prompt steers; up to 1 is plain sampling", advanced=True
    )
    hide_duplicates: bool = knob(False, help="keep only one of candidates that look the same", advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative_prompt.strip():
            object.__setattr__(self, "negative_prompt", clean_prompt(self.negative_prompt))
        for name, side in (("width", self.width), ("height", self.height)):
            if side is not None and side % SIDE_MULTIPLE:
                lower = side // SIDE_MULTIPLE * SIDE_MULTIPLE
                higher = lower + SIDE_MULTIPLE
                raise BadInput(f"{name} {side} is not a multiple of {SIDE_MULTIPLE}; try {lower} or {higher}")
        if self.mask and not self.image:
            raise BadInput("the mask has no picture to be drawn into; give an image too")
