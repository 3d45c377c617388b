"""How well things are cut out: opacity and colours on pictures whose own opacity is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.export.foreground import at_edges, foreground
from pipelines.io.images import to_pil
from pipelines.models.base import Codec
from pipelines.models.matting.network import Matting
from pipelines.training.data.captions import COLOURS
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.matting import intersection_over_union

BATCH = 32
EVERY, COLOURS_EVERY = 4, 2  # of the validation pictures, and of those whose colours are judged
EDGE = (0.02, 0.98)  # opacities that are an edge
SHEET = 24


@torch.no_grad()
def cutting(matting: Matting, codec: Codec, emoji: Dataset, sheet: Path | None = None) -> dict[str, float]:
    """Of every EVERYth validation picture, means: IoU at 0.5 and error of alpha, on white, after the codec, on a colour.

    And how far the picture on black is from the right one at its edges, a mean over levels in [0, 1], as it is cut out
    and with the network's opacity and the colours that are there. `sheet` shows some on black.
    """
    found: dict[str, list[Tensor]] = {}
    rows = emoji.validation[::EVERY]
    table = np.array([colour for _, colour in COLOURS.values()])
    colours = table[np.random.default_rng(0).integers(1, len(table), len(rows))]
    for part in np.array_split(np.arange(len(rows)), -(-len(rows) // BATCH)):
        rgba = emoji.rgba[rows[part]]
        alpha = torch.from_numpy(rgba[..., 3:]).permute(0, 3, 1, 2).float() / 255
        white = _pictures(on_background(rgba))
        seen = {
            "": white,
            ", drawn again by the codec": codec.decode(codec.encode(white)).clamp(-1, 1),
            ", on a colour": _pictures(on_background(rgba, colours[part][:, None, None])),
        }
        for name, images in seen.items():
            guess = matting.alpha(images)
            found.setdefault("IoU" + name, []).append(intersection_over_union(guess, alpha))
            found.setdefault("error of alpha" + name, []).append((guess - alpha).abs().mean((1, 2, 3)))
    figures = {name: torch.cat(values).mean().item() for name, values in found.items()}
    worst = torch.cat(found["IoU"]).sort().values[: len(rows) // 10 or 1]
    figures["IoU, the worst tenth"] = worst.mean().item()
    figures |= _fringes(matting, emoji.rgba[rows[::COLOURS_EVERY]])
    if sheet is not None:
        _write_sheet(matting, emoji.rgba[rows[:: -(-len(rows) // SHEET)]], sheet)
    return figures


def _pictures(levels: np.ndarray) -> Tensor:
    return torch.from_numpy(levels).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _fringes(matting: Matting, rgba: np.ndarray) -> dict[str, float]:
    """The error on black where the true opacity is neither none nor full: as `cut_out` gives it, and with the network's
    opacity and the picture's colours.

    No figures of icons without such edges.
    """
    with_colours, without = list[float](), list[float]()
    for icon in rgba:
        white, truth = on_background(icon) / 255.0, icon[..., 3] / 255.0
        alpha = matting.alpha(_pictures(on_background(icon)[None]))[0, 0].numpy()
        edge = (truth > EDGE[0]) & (truth < EDGE[1])
        if not edge.any():
            continue
        right = (icon[..., :3] / 255.0 * truth[..., None])[edge]
        better = at_edges(white.astype(np.float32), alpha)
        estimated = foreground(white.astype(np.float32), better)
        with_colours.append(float(np.abs((estimated * better[..., None])[edge] - right).mean()))
        without.append(float(np.abs((white * alpha[..., None])[edge] - right).mean()))
    if not with_colours:
        return {}
    return {
        "error on black at the edges": float(np.mean(with_colours)),
        "error on black at the edges, as the network leaves them": float(np.mean(without)),
    }


def _write_sheet(matting: Matting, rgba: np.ndarray, path: Path, columns: int = 8) -> None:
    from pipelines.export.transparent import cut_out

    cut = cut_out(to_pil(_pictures(on_background(rgba))), matting)
    side = cut[0].width + 2
    sheet = Image.new("RGB", (columns * side, -(-len(cut) // columns) * side), "black")
    for k, picture in enumerate(cut):
        sheet.paste(picture, (k % columns * side, k // columns * side), picture)
    sheet.save(path)
