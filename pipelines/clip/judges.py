"""The scores of a run: by CLIP, which steers it, and by the critic, a CLIP that never gives a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelines.clip.cutouts import whole_view
from pipelines.clip.targets import EncodedTarget
from pipelines.models.base import Clip

JUDGE_EVERY = 5  # steps
Curve = list[tuple[int, float, float]]  # rows (step, CLIP's score, the critic's score)


def judge(clip: Clip, critic: Clip, picture: Tensor, targets: list[EncodedTarget]) -> tuple[float, float]:
    """The weighted mean cosines, CLIP's and the critic's, of (1, 3, h, w) with the targets without a region."""
    whole = [target for target in targets if target.region is None and target.critic is not None]
    total = sum(abs(target.weight) for target in whole)
    scores: list[float] = []
    for model, name in ((clip, "vector"), (critic, "critic")):
        seen = model.encode_image(whole_view(picture, model.config.image_size))[0]
        scores.append(sum(target.weight / total * (seen @ getattr(target, name)).item() for target in whole))
    return scores[0], scores[1]


def drifting(curve: Curve, window: int = 8) -> bool:
    """Whether over the last `window` rows CLIP's score rose by more than 0.005 and the critic's fell by more than 0.01.

    Rise and fall are those of least-squares lines.
    """
    if len(curve) < window:
        return False
    rows = torch.tensor([(clip, critic) for _, clip, critic in curve[-window:]], dtype=torch.float64)
    time = torch.linspace(-0.5, 0.5, window, dtype=torch.float64)
    rise = (time[:, None] * (rows - rows.mean(0))).sum(0) / time.square().sum()
    return bool(rise[0] > 0.005 and rise[1] < -0.01)


def metrics(curve: Curve, loss: float) -> dict[str, float]:
    """The metrics of a Step: loss, drift (0 or 1) and, once judged, the last scores of CLIP and of the critic."""
    values = {"loss": loss}
    if curve:
        _, values["clip"], values["critic"] = curve[-1]
    return values | {"drift": float(drifting(curve))}


def curve_facts(curve: Curve) -> dict[str, Any]:
    """What a picture's record says of the scores: at most 100 rows, the last one among them, and whether they drift."""
    thin = -(-len(curve) // 100)
    return {
        "curve": [[step, round(a, 4), round(b, 4)] for step, a, b in curve[::-1][::thin][::-1]],
        "drift": drifting(curve),
    }
