"""What decides a run of Diffuse."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.core.settings import Settings, clean_prompt, knob
from pipelines.errors import BadInput

MIN_SIDE, MAX_SIDE = 64, 2048  # pixels
SIDE_MULTIPLE = 8  # the sides are multiples of this, in pixels


@dataclass(frozen=True, kw_only=True)
class DiffuseSettings(Settings):
    """What decides a set of candidates. What is 0 or empty is proposed, and written down before the run."""

    negative_prompt: str = knob("", help="what not to draw; needs guidance above 1")
    candidates: int = knob(4, 1, 256, help="how many pictures are drawn and ranked")
    keep: int = knob(4, 1, 64, help="how many of the best are kept")
    width: int = knob(0, 0, MAX_SIDE, help="in pixels, a multiple of 8; 0 for what the model was made for")
    height: int = knob(0, 0, MAX_SIDE, help="in pixels, a multiple of 8; 0 for what the model was made for")
    image: str = knob("", help="a picture to start from", kind="picture")
    strength: float = knob(0.75, 0.01, 1.0, help="how far from the picture; 1 forgets it")
    mask: str = knob("", help="a picture, white where the picture is drawn anew", kind="picture")
    steps: int = knob(0, 0, 200, help="of the walk down the noise; 0 for what the model needs", advanced=True)
    guidance: float = knob(
        0.0,
        0.0,
        30.0,
        help="how strongly the prompt steers; 1 is plain sampling, 0 for what the model needs",
        advanced=True,
    )
    hide_duplicates: bool = knob(False, help="keep only one of candidates that look the same", advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative_prompt.strip():
            object.__setattr__(self, "negative_prompt", clean_prompt(self.negative_prompt))
        for name in ("width", "height"):
            side = getattr(self, name)
            if 0 < side < MIN_SIDE:
                raise BadInput("settings.too_small", setting=name, value=side, least=MIN_SIDE)
            if side % SIDE_MULTIPLE:
                lower = side // SIDE_MULTIPLE * SIDE_MULTIPLE
                raise BadInput(
                    "diffuse.not_multiple",
                    setting=name,
                    side=side,
                    factor=SIDE_MULTIPLE,
                    lower=lower,
                    higher=lower + SIDE_MULTIPLE,
                )
        if self.mask and not self.image:
            raise BadInput("diffuse.mask_without_picture")
