"""Diffuse on given pictures: icons of which a half is covered, what lies beyond their edges, and strengths."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from pipelines.core.execute import run
from pipelines.core.pipeline import Result
from pipelines.diffuse.canvas import offset
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.settings import MIN_SIDE, DiffuseSettings
from pipelines.evaluation.judges import NameJudge, share_within
from pipelines.evaluation.samples import write_sheet
from pipelines.io.images import picture_to_uri, ssim, to_tensor
from pipelines.models.latent_diffusion import LatentDiffusion
from pipelines.training.data.dataset import Dataset, on_background

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
WIDEST_SEAM = 1.2  # the step at an edge over the steps inside
Draw = Callable[..., Image.Image]  # of a name and settings of Diffuse
EVERY = 3  # pictures are drawn from and continued for one name in so many


class OneRow:
    """A LatentDiffusion that draws one picture at a time, so that one candidate costs no more than itself."""

    def __init__(self, model: LatentDiffusion):
        self.model = model

    def rows(self, width: int, height: int) -> int:
        """One."""
        return 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def completion(
    diffuse: Diffuse,
    judges: dict[str, NameJudge],
    emoji: Dataset,
    names: list[str],
    sheet: Path | None,
    steps: int | None = None,
) -> dict[str, float]:
    """Figures of the validation icons of `names`, one candidate each, under their names.

    Ranks of the icon, of the icon with its right or its lower half covered by white, of that half drawn, and of a picture
    that is drawn whole. Shares of pixels outside the mask that stay, and of edges without a seam. SSIM to the start by
    strength. The sheet has a row a name: the icon, covered and completed twice, drawn whole. `steps` None is the model's.
    """
    diffuse = replace(diffuse, diffusion=cast(LatentDiffusion, OneRow(diffuse.diffusion)))
    draw = partial(_drawn, diffuse, steps)
    side = max(diffuse.diffusion.image_size, MIN_SIDE)
    icons = {emoji.icons[k].name: emoji.rgba[k] for k in emoji.validation}
    ranks: dict[str, list[int]] = {}
    seams: list[float] = []
    kept: list[float] = []
    likeness: list[list[float]] = []
    shown: list[Image.Image] = []
    for index, name in enumerate(names):
        icon = Image.fromarray(on_background(icons[name])).resize((side, side), Image.Resampling.BOX)
        row = {"the icon itself": icon}
        for half in ("right", "lower"):
            mask = half_mask(icon.size, half)
            covered = Image.composite(Image.new("RGB", icon.size, "white"), icon, mask)
            drawn = draw(name, image=covered, mask=mask.convert("RGB"))
            row |= {f"{half} half covered": covered, f"{half} half drawn": drawn}
            kept.append(share_kept(covered, drawn, mask))
        row["drawn whole"] = draw(name)
        for who, judge in judges.items():
            for what, picture in row.items():
                ranks.setdefault(f"{who}, {what}", []).extend(judge.ranks(name, np.asarray(picture)[None]))
        shown += row.values()
        if index % EVERY == 0:
            seams += [
                _seam(draw, name, icon, place, diffuse.diffusion.factor) for place in ("centre", "left")
            ]
            likeness.append(_likeness_by_strength(draw, name, icon))
        if index % 5 == 4:
            told = "  ".join(f"{what} {share_within(places, 5):.2f}" for what, places in ranks.items())
            print(f"completed {index + 1} of {len(names)} icons; top-5: {told}", file=sys.stderr, flush=True)
    if sheet is not None:
        write_sheet(sheet, shown, 6)
    return _figures(ranks, kept, seams, np.array(likeness))


def _figures(
    ranks: dict[str, list[int]], kept: list[float], seams: list[float], likeness: np.ndarray
) -> dict[str, float]:
    figures = {
        f"{what}: top-{top}": share_within(rows, top) for what, rows in ranks.items() for top in (1, 5)
    }
    for who in dict.fromkeys(what.split(",")[0] for what in ranks):
        halves, whole = (
            np.mean([figures[f"{who}, {what}: top-5"] for what in parts])
            for parts in (("right half drawn", "lower half drawn"), ("drawn whole",))
        )
        figures[f"{who}, a half drawn over drawn whole: top-5"] = float(halves - whole)
    means = likeness.mean(0)
    return {
        **figures,
        "share of pixels outside the mask that stay": float(np.mean(kept)),
        "step at the edges over steps inside, median": float(np.median(seams)),
        f"share of edges with at most {WIDEST_SEAM}": float(np.mean(np.array(seams) <= WIDEST_SEAM)),
        **{
            f"SSIM to the start at strength {strength}": float(mean)
            for strength, mean in zip(STRENGTHS, means, strict=True)
        },
        "share of strengths at which it falls": float((np.diff(means) < 0).mean()),
    }


def half_mask(size: tuple[int, int], half: str) -> Image.Image:
    """A grey mask of `size` (width, height), white in the "right" or the "lower" half."""
    mask = Image.new("L", size)
    mask.paste(255, (size[0] // 2, 0, *size) if half == "right" else (0, size[1] // 2, *size))
    return mask


def share_kept(before: Image.Image, after: Image.Image, mask: Image.Image) -> float:
    """The share of pixels outside a mask (grey, 0 or 255) that are the same in both pictures."""
    outside = np.asarray(mask) == 0
    return float((np.asarray(before) == np.asarray(after)).all(-1)[outside].mean())


def edge_step(picture: Image.Image, frame: tuple[int, int, int, int]) -> float:
    """The mean step of pixels across the edges of a frame (left, top, right, bottom), over the mean step inside it."""
    left, top, right, bottom = frame
    pixels = np.asarray(picture, dtype=float)
    across = np.abs(np.diff(pixels, axis=1)).mean(2)  # from pixel x to x + 1
    down = np.abs(np.diff(pixels, axis=0)).mean(2)
    edges = [across[top:bottom, x - 1] for x in (left, right) if 0 < x < picture.width]
    edges += [down[y - 1, left:right] for y in (top, bottom) if 0 < y < picture.height]
    inside = np.concatenate([
        across[top:bottom, left : right - 1].ravel(), down[top : bottom - 1, left:right].ravel()
    ])  # fmt: skip
    return float(np.concatenate(edges).mean() / max(inside.mean(), 1e-6))


def _likeness_by_strength(draw: Draw, name: str, icon: Image.Image) -> list[float]:
    """SSIM between an icon and what is drawn from it under its name at each of STRENGTHS."""
    drawn = [draw(name, image=icon, strength=strength) for strength in STRENGTHS]
    before, after = ((to_tensor(pictures) + 1) / 2 for pictures in ([icon], drawn))
    return ssim(before.expand_as(after), after).tolist()


def _seam(draw: Draw, name: str, icon: Image.Image, place: str, factor: int) -> float:
    canvas = draw(name, image=icon, place=place)
    left, top = offset(place, icon.size, canvas.size, factor)
    return edge_step(canvas, (left, top, left + icon.width, top + icon.height))


def _drawn(diffuse: Diffuse, steps: int | None, name: str, **fields: Any) -> Image.Image:
    """The first candidate under a name, with these settings; pictures are given as they are."""
    fields = {
        key: picture_to_uri(value) if isinstance(value, Image.Image) else value
        for key, value in fields.items()
    }
    fields = {"strength": 1.0} | fields if "mask" in fields else fields
    with torch.no_grad():
        *_, result = run(diffuse, DiffuseSettings(prompt=name, candidates=1, keep=1, steps=steps, **fields))
    assert isinstance(result, Result)
    return result.pictures[0].image
