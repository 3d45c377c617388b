"""The scores of a run: by CLIP, which it is optimized for, and by the critic, a CLIP that never gives a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelines.clip.cutouts import whole_view
from pipelines.core.pipeline import Picture
from pipelines.errors import Message
from pipelines.io.images import to_pil
from pipelines.models.base import Clip
from pipelines.models.typed import integers
from pipelines.optimize.canvas import Canvas
from pipelines.optimize.settings import OptimizeSettings
from pipelines.optimize.state import State
from pipelines.optimize.targets import EncodedTarget

JUDGE_EVERY = 5  # steps
TILES = 4096  # the most image tokens in a picture's facts


def drifting(curve: list[tuple[int, float, float]], window: int = 8) -> bool:
    """Whether over the last `window` rows CLIP's score rose by more than 0.005 and the critic's fell by more than 0.01.

    `curve` holds rows (step, CLIP's score, critic's score). Rise and fall are those of least-squares lines.
    """
    if len(curve) < window:
        return False
    rows = torch.tensor([(clip, critic) for _, clip, critic in curve[-window:]], dtype=torch.float64)
    time = torch.linspace(-0.5, 0.5, window, dtype=torch.float64)
    rise = (time[:, None] * (rows - rows.mean(0))).sum(0) / time.square().sum()
    return bool(rise[0] > 0.005 and rise[1] < -0.01)


def metrics(state: State, loss: float) -> dict[str, float]:
    """The metrics of a Step: loss, drift (0 or 1) and, once judged, the last scores of CLIP and of the critic."""
    values = {"loss": loss}
    if state.curve:
        _, values["clip"], values["critic"] = state.curve[-1]
    return values | {"drift": float(drifting(state.curve))}


class Judges:
    """Scores whole pictures with CLIP and with the critic, one view each."""

    def __init__(self, clip: Clip, critic: Clip, canvas: Canvas):
        self.clip, self.critic, self.canvas = clip, critic, canvas

    def scores(self, picture: Tensor, targets: list[EncodedTarget]) -> tuple[float, float]:
        """The weighted mean cosines, CLIP's and the critic's, of (1, 3, h, w) with the targets without a region."""
        whole = [target for target in targets if target.region is None and target.critic is not None]
        total = sum(abs(target.weight) for target in whole)
        scores: list[float] = []
        for model, name in ((self.clip, "vector"), (self.critic, "critic")):
            seen = model.encode_image(whole_view(self.canvas.cropped(picture), model.config.image_size))[0]
            scores.append(
                sum(target.weight / total * (seen @ getattr(target, name)).item() for target in whole)
            )
        return scores[0], scores[1]

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

        `current` are the settings in force, `settings` those that are recorded. `ended` is why the run ended early, or "".
        """
        canvas = self.canvas
        tokens = canvas.codec.quantize(state.shown(current.ema_decay))
        last, picture = tokens[0].int().cpu(), canvas.render(tokens, current.mask, state.base)
        clip, critic = self.scores(picture, targets)
        curve = [*state.curve, (state.step, clip, critic)]
        thin = -(-len(curve) // 100)
        shared: dict[str, Any] = {
            "steps": state.step,
            "curve": [[step, round(a, 4), round(b, 4)] for step, a, b in curve[::-1][::thin][::-1]],
            "drift": drifting(curve),
        }
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
