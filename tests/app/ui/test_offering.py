"""What the page offers for prompts by which CLIP steers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from app.ui.offering import offers_for_scenes
from pipelines.studio import Studio


@pytest.fixture(scope="module")
def clip() -> Any:
    """The tiny pack's CLIP."""
    return Studio("tiny", "cpu").clip()


@pytest.mark.parametrize(
    ("prompt", "instead"),
    [
        ("dinosaur | gold:0.5", {"dinosaur": ("t rex",)}),
        ("a red heart ^ a dinosaur", {"a dinosaur": ("a t rex",)}),
        ("恐龙", {"恐龙": ("霸王龙",)}),
        ("a red heart | gold:0.5", {}),
    ],
)
def test_things_that_clip_misreads_are_offered_by_their_names(
    clip: Any, prompt: str, instead: dict[str, tuple[str, ...]]
) -> None:
    assert offers_for_scenes(clip, prompt).instead == instead


def test_a_clip_without_a_list_of_words_is_told() -> None:
    with pytest.raises(AttributeError):
        offers_for_scenes(SimpleNamespace(tokenizer=None), "dinosaur")
