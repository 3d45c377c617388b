"""The scores of a run by CLIP and by the critic, and the pictures that they choose."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pipelines.clip.judges import curve_facts, judge
from pipelines.clip.targets import EncodedTarget
from pipelines.core.pipeline import Picture
from pipelines.errors import Message
from pipelines.io.images import to_pil
from pipelines.models.base import Clip
from pipelines.models.typed import integers
from pipelines.optimize.canvas import Canvas
from pipelines.optimize.settings import OptimizeSettings
from pipelines.optimize.state import State

TILES = 4096  # the most image tokens in a picture's facts


class Judges:
    """Scores whole pictures with CLIP and with the critic, one view each."""

    def __init__(self, clip: Clip, critic: Clip, canvas: Canvas):
        self.clip, self.critic, self.canvas = clip, critic, canvas

    def scores(self, picture: Tensor, targets: list[EncodedTarget]) -> tuple[float, float]:
        """The weighted mean cosines, CLIP's and the critic's, of (1, 3, h, w) with the targets without a region."""
        return judge(self.clip, self.critic, self.canvas.cropped(picture), targets)

    def judge(self, state: State, picture: Tensor, targets: list[EncodedTarget]) -> None:
        """Append the scores of this step's picture to the curve; keep its tokens if the critic's score is the best."""
        clip, critic = self.scores(picture, targets)
        state.curve.append((state.step, clip, critic))
        full = state.z.shape[-2:] == (self.canvas.rows, self.canvas.columns)
        if full and (state.best is None or critic > state.best[0]):
            state.best = (critic, state.step, state.frames[-1][1].clone())

    def pictures(
        self,
        state: State,
        current: OptimizeSettings,
        targets: list[EncodedTarget],
        settings: OptimizeSettings,
        ended: Message | None,
    ) -> list[Picture]:
        """The last picture, preceded by the critic's best one if that scored higher.

        `current` are the settings in force, `settings` those that are recorded. `ended` says why the run ended early.
        """
        canvas = self.canvas
        tokens = canvas.codec.quantize(state.shown(current.ema_decay))
        last, picture = tokens[0].int().cpu(), canvas.render(tokens, current.mask, state.base)
        clip, critic = self.scores(picture, targets)
        curve = [*state.curve, (state.step, clip, critic)]
        shared: dict[str, Any] = {"steps": state.step, **curve_facts(curve)}
        if ended:
            shared |= {"ended": str(ended), "ended_by": ended.to_json()}

        def made(tokens: Tensor, shown: Tensor, step: int, clip: float, critic: float) -> Picture:
            facts: dict[str, Any] = {"step": step, "clip": clip, **shared}
            if tokens.numel() <= TILES:
                facts["tokens"] = integers(tokens.flatten())
            image = to_pil(canvas.cropped(shown))[0]
            return Picture(image, settings.seed, critic, facts, settings)

        pictures = [made(last, picture, state.step, clip, critic)]
        if state.best is not None and state.best[0] > critic:
            score, step, tokens = state.best
            shown = canvas.render(tokens[None].to(canvas.device).long(), current.mask, state.base)
            pictures.insert(0, made(tokens, shown, step, self.scores(shown, targets)[0], score))
        return pictures
