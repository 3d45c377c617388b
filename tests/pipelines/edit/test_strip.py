"""Strips along which CLIP moves by equal steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.edit.strip import even_strengths
from tests.support.edit import finished, speckled, uri
from tests.support.tiny import tiny_prior_edit

PROBES = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]


def test_strengths_are_where_clip_moves_by_equal_steps() -> None:
    moves = [0.0, 0.0, 0.0, 20.0, 40.0, 40.0, 40.0]  # all of it between 0.5 and 1
    values = even_strengths(PROBES, moves, 1.5, 5)
    assert values == pytest.approx([0, 0.625, 0.75, 0.875, 1.5], abs=0.01)
    straight = [10.0 * k for k in range(7)]
    assert even_strengths(PROBES, straight, 0.75, 3) == pytest.approx([0, 0.75, 1.5], abs=1e-3)


def test_the_chosen_strength_is_among_them_and_going_back_is_no_way() -> None:
    values = even_strengths(PROBES, [0, 10, 30, 20, 40, 35, 60], 0.9, 5)
    assert 0.9 in values and sorted(values) == values
    assert even_strengths([0.0, -0.5, -1.0], [0, 5, 10], -1.0, 3) == pytest.approx([0, -0.5, -1.0], abs=1e-3)
    assert sorted(even_strengths(PROBES, [0.0] * 7, 1.0, 4)) == even_strengths(PROBES, [0.0] * 7, 1.0, 4)


@pytest.fixture(scope="module")
def edit() -> Edit:
    return tiny_prior_edit()


def test_each_picture_of_an_even_strip_is_what_its_strength_draws_alone(edit: Edit) -> None:
    settings = EditSettings(
        source="two cats",
        prompt="a red heart",
        mode="instant",
        steps=4,
        strip=3,
        image=uri(speckled((32, 32))),
    )
    strip = finished(edit, replace(settings, even_strip=True)).pictures
    assert all(picture.facts["clip moved"] >= 0 for picture in strip)
    assert [picture.facts["clip moved"] for picture in strip if picture.facts["strength"] == 0] == [0]
    strongest = max(strip, key=lambda picture: picture.facts["strength"])
    alone = replace(settings, strip=1, strength=strongest.facts["strength"])
    assert finished(edit, alone).pictures[0].image.tobytes() == strongest.image.tobytes()
    assert "clip moved" not in finished(edit, settings).pictures[0].facts
