"""What a picture could become."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from PIL import Image
from torch import Tensor

from pipelines.see.changes import changes

NAMES = ("cat face", "face", "fox face", "fox", "lion face", "car", "truck")
SPACE = torch.nn.functional.normalize(
    torch.tensor(
        [
            [1.0, 0.0, 0.0, 0.0],  # cat face
            [0.8, 0.2, 0.0, 0.0],  # face: a part of it
            [0.8, 0.0, 0.5, 0.0],  # fox face
            [0.78, 0.0, 0.52, 0.0],  # fox: almost the same as fox face
            [0.6, 0.6, 0.0, 0.3],  # lion face
            [0.0, 0.0, 0.1, 1.0],  # car
            [0.0, 0.1, 1.0, 1.0],  # truck
        ]
    ),
    dim=-1,
)


class Space:
    """A CLIP whose texts lie as above, and whose pictures are cats, or cars where they are dark."""

    device = torch.device("cpu")

    def encode_text(self, prompts: list[str]) -> Tensor:
        return SPACE[[NAMES.index(prompt) for prompt in prompts]]

    def encode_image(self, images: Tensor) -> Tensor:
        return SPACE[[0 if image.mean() > 0 else 5 for image in images]] * 0.99


@pytest.mark.parametrize(("level", "source", "first"), [(255, "cat face", "fox face"), (0, "car", "truck")])
def test_changes_lead_to_near_names_that_say_something_else(level: int, source: str, first: str) -> None:
    image = Image.new("RGB", (32, 32), (level, level, level))
    known = changes(cast(Any, Space()), image, 3, NAMES)
    assert {change.source for change in known} == {source}
    targets = [change.target for change in known]
    assert targets[0] == first
    assert source not in targets and "face" not in targets[:1]
    assert len({"fox face", "fox"} & set(targets)) <= 1, "two that are almost the same"
    assert [change.likeness for change in known] == sorted(
        (change.likeness for change in known), reverse=True
    )


def test_as_many_as_are_asked_for() -> None:
    image = Image.new("RGB", (32, 32), "white")
    assert len(changes(cast(Any, Space()), image, 1, NAMES)) == 1
