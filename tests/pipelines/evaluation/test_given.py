"""What is measured of pictures that Diffuse completes, continues and begins from."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from pipelines.evaluation.figures import TARGETS
from pipelines.evaluation.given import STRENGTHS, completion, edge_step, half_mask, share_kept
from pipelines.evaluation.judges import NameJudge
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import VALIDATION_STYLE
from tests.support.pictures import size_of
from tests.support.tiny import tiny_prior_diffuse


@pytest.fixture
def emoji(tmp_path: Path) -> Dataset:
    """Two icons of the validation style."""
    blobs: list[bytes] = []
    for k in range(2):
        picture = np.zeros((128, 128, 4), np.uint8)
        picture[20:100, 20 + 10 * k : 110] = (200, 90 * k, 30, 255)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "WEBP", lossless=True)
        blobs.append(file.getvalue())
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0, *map(len, blobs)]).astype(np.int64),
    }
    icons = [[VALIDATION_STYLE, name, [], "", ["thing"], []] for name in ("red heart", "green apple")]
    save_file(tensors, tmp_path / "emoji.safetensors", {"icons": json.dumps(icons), "phrases": "x"})
    return Dataset(tmp_path / "emoji.safetensors")


class Brightness:
    """Ranks a picture by how bright it is: 0 for white."""

    def ranks(self, name: str, pictures: np.ndarray) -> list[int]:
        return [int(255 - picture.mean()) for picture in pictures]


def test_every_bar_of_given_pictures_has_its_figure(emoji: Dataset, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    judges: dict[str, NameJudge] = {"critic": Brightness()}
    figures = completion(tiny_prior_diffuse(), judges, emoji, ["red heart"], sheet, steps=5)
    assert {name for part, name in TARGETS if part == "given"} <= set(figures)
    assert figures["share of pixels outside the mask that stay"] == 1
    halves = [figures[f"critic, {half} half drawn: top-5"] for half in ("right", "lower")]
    gain = sum(halves) / 2 - figures["critic, drawn whole: top-5"]
    assert figures["critic, a half drawn over drawn whole: top-5"] == pytest.approx(gain)
    likeness = [figures[f"SSIM to the start at strength {strength}"] for strength in STRENGTHS]
    falls = [after < before for before, after in pairwise(likeness)]
    assert figures["share of strengths at which it falls"] == sum(falls) / 4
    assert size_of(sheet) == (6 * 66, 66)


def test_a_changed_pixel_outside_the_mask_is_seen() -> None:
    before, mask = Image.new("RGB", (20, 10), "red"), half_mask((20, 10), "right")
    after = before.copy()
    after.paste("blue", (10, 0, 20, 10))
    assert share_kept(before, after, mask) == 1
    after.putpixel((3, 3), (254, 0, 0))
    assert share_kept(before, after, mask) == 0.99


@pytest.mark.parametrize(
    ("frame", "beyond", "expected"),
    [
        ((8, 8, 24, 24), 0, 20.0),  # a step of 20 at every edge, steps of 1 inside
        ((0, 0, 16, 32), 0, 20.0),  # two edges are the canvas's own
        ((8, 8, 24, 24), 20, 0.0),
    ],
)
def test_a_seam_is_the_step_at_the_edges(
    frame: tuple[int, int, int, int], beyond: int, expected: float
) -> None:
    left, top, right, bottom = frame
    pixels = np.full((32, 32, 3), 100 + beyond, np.uint8)
    checks = np.indices((bottom - top, right - left)).sum(0)[..., None] % 2
    pixels[top:bottom, left:right] = 120 + checks * (beyond == 0)
    steps: Any = edge_step(Image.fromarray(pixels), frame)
    assert steps == pytest.approx(expected, rel=0.05)
