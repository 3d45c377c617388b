"""Whole runs: strengths, masks, crops, windows, figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F

from pipelines.clip.losses import directional_similarity, text_direction
from pipelines.clip.ranking import ensemble
from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Step
from pipelines.edit.directions import network_hash
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import MODES, EditSettings
from pipelines.errors import BadInput
from pipelines.io.images import to_tensor
from tests.support.edit import (
    STRONG,
    finished,
    first,
    half,
    pixels,
    smooth,
    speckled,
    uri,
)


@pytest.mark.parametrize(
    ("mode", "size", "crop"),
    [
        *((mode, (16, 16), "") for mode in MODES),
        *((mode, (41, 35), "3,5,17x21") for mode in MODES),
        ("quick", (37, 23), ""),
        ("instant", (11, 30), ""),
        ("quick", (33, 33), "0,0,16x16"),
    ],
)
def test_strength_0_gives_the_picture_back(edit: Edit, mode: str, size: tuple[int, int], crop: str) -> None:
    picture = speckled(size)
    settings = EditSettings(
        mode=mode, image=uri(picture), crop=crop, strength=0.0, steps=3, strip=1, updates=1, inversion_iterations=0,
        step_size=0.03, source_count=5,
    )  # fmt: skip
    result = finished(edit, settings)
    assert first(result).tobytes() == picture.tobytes()
    facts = result.pictures[0].facts
    assert facts["strength"] == 0 and facts["L1"] == 0 and facts["SSIM"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_other_strengths_change_it(edit: Edit, mode: str) -> None:
    picture = speckled((16, 16), low=60, high=190)
    settings = EditSettings(**{**STRONG, "mode": mode, "strip": 5}, image=uri(picture), source_count=5)
    result = finished(edit, settings)
    assert len(result.pictures) == 5
    by_strength = {one.facts["strength"]: one for one in result.pictures}
    assert result.pictures[0].facts["strength"] == 1.0 and sorted(by_strength) == [0, 0.375, 0.75, 1, 1.5]
    assert by_strength[0].image.tobytes() == picture.tobytes()
    changed = [by_strength[one].facts["L1"] for one in sorted(by_strength)]
    assert changed[0] == 0 and min(changed[1:]) > 0.002
    assert len({one.image.tobytes() for one in result.pictures}) == 5
    if mode != "instant":
        assert changed == sorted(changed)
    assert result.pictures[0].score == result.pictures[0].facts["critic target"]
    assert all(one.score is None for one in result.pictures[1:])


def test_a_strip_draws_what_single_runs_draw(edit: Edit) -> None:
    """But for rounding: the strip is one batch."""
    fields: dict[str, Any] = {"image": uri(speckled((16, 16))), **STRONG}
    for mode in ("quick", "instant"):
        many = finished(edit, EditSettings(**{**fields, "mode": mode, "strip": 5}))
        single = finished(edit, EditSettings(**{**fields, "mode": mode}))
        difference = to_tensor([first(many)]) - to_tensor([first(single)])
        if mode == "quick":
            assert difference.abs().max() < 2.5 / 127.5
        assert single.pictures[0].facts["updates" if mode == "quick" else "strength"] in (3, 1.0)


def test_negative_strengths_go_the_other_way(edit: Edit, saved: list[Path]) -> None:
    picture = smooth((16, 16))
    fields: dict[str, Any] = {"image": uri(picture), "directions": str(saved[0]), "steps": 3, "strip": 1}
    moved = [
        to_tensor([first(finished(edit, EditSettings(strength=one, **fields)))]) - to_tensor([picture])
        for one in (0.1, -0.1)
    ]
    assert min(one.abs().mean() for one in moved) > 0.01
    assert F.cosine_similarity(moved[0].flatten(), moved[1].flatten(), dim=0) < -0.3


@pytest.mark.parametrize(
    "fields",
    [
        STRONG,
        {"mode": "instant", "steps": 3, "strip": 1},
        {"directions": True, "steps": 3},
    ],
    ids=["quick", "instant", "direction"],
)
@pytest.mark.parametrize("size", [(16, 16), (45, 37)])
def test_outside_the_mask_no_pixel_changes(
    edit: Edit, saved: list[Path], fields: dict[str, Any], size: tuple[int, int]
) -> None:
    if "directions" in fields:
        fields = {**fields, "directions": f"{saved[0]}:1.5"}
    picture, mask = speckled(size), half(size)
    settings = EditSettings(image=uri(picture), mask=uri(mask), strength=1.5, **fields)
    inside = np.asarray(mask)[..., 0] > 0
    for one in finished(edit, settings).pictures:
        new, old = np.asarray(one.image), np.asarray(picture)
        assert (new[~inside] == old[~inside]).all()
        if one.facts["strength"] == 1.5:
            assert (new[inside] != old[inside]).mean() > 0.3


def test_outside_the_crop_no_pixel_changes(edit: Edit, saved: list[Path]) -> None:
    picture = speckled((50, 40))
    settings = EditSettings(image=uri(picture), crop="5,8,30x20", directions=str(saved[0]), steps=3, strip=1)
    new, old = np.array(first(finished(edit, settings))), np.asarray(picture)
    assert (new[8:28, 5:35] != old[8:28, 5:35]).mean() > 0.3
    new[8:28, 5:35] = old[8:28, 5:35]
    assert (new == old).all()


def test_an_automatic_mask_keeps_what_hardly_changes(edit: Edit, saved: list[Path]) -> None:
    picture = smooth((16, 16))
    fields: dict[str, Any] = {"image": uri(picture), "directions": f"{saved[0]}:0.3", "steps": 3, "strip": 1}
    plain = finished(edit, EditSettings(**fields))
    masked = finished(edit, EditSettings(**fields, automatic_mask=True))
    x = to_tensor([picture])
    moved, kept = (to_tensor([first(one)]) - x for one in (plain, masked))
    assert 0 < (kept == 0).all(1).float().mean() < 1
    assert (moved == 0).all(1).float().mean() < (kept == 0).all(1).float().mean()
    assert (kept.abs() <= moved.abs() + 1.5 / 127.5).all()


def test_directions_work_in_their_windows_and_by_their_strengths(edit: Edit, saved: list[Path]) -> None:
    one, other = map(str, saved)
    picture = smooth((16, 16))

    def drawn(directions: str, **fields: Any) -> bytes:
        settings = EditSettings(image=uri(picture), directions=directions, steps=6, strip=1, **fields)
        return first(finished(edit, settings)).tobytes()

    whole = drawn(one)
    assert whole != picture.tobytes()
    assert drawn(f"{one}@1000-400 | {other}:0") == picture.tobytes()  # begins at 400: nothing happens above
    assert drawn(f"{one}@400-0 | {other}:0") == whole
    parts = [drawn(f"{one}@400-200"), drawn(f"{one}@200-0"), drawn(f"{one}@400-200 | {other}@200-0")]
    assert len({*parts, whole, picture.tobytes()}) == 5
    assert drawn(f"{one}:0.5 | {other}:-0.5") != drawn(f"{one}:0.5 | {other}:0.5")
    assert drawn(f"{one}:0.5") == drawn(one, strength=0.5)  # strengths multiply


def test_a_direction_does_what_its_learning_did(edit: Edit, tmp_path: Path) -> None:
    """Learned, saved and applied again: the same picture, but for the texts."""
    journal = Journal(tmp_path / "run")
    settings = EditSettings(image=uri(speckled((16, 16))), **STRONG)
    learned = finished(edit, settings, journal)
    assert isinstance(learned.settings, EditSettings)
    direction = edit.direction(learned.settings, journal)
    direction.save(tmp_path / "a.safetensors")
    applied = finished(
        edit,
        EditSettings(image=settings.image, directions=str(tmp_path / "a.safetensors"), steps=3, strip=1),
    )
    assert pixels(applied) == pixels(learned)
    facts = direction.facts
    assert (facts["source"], facts["target"]) == (settings.source, settings.prompt)
    assert (facts["seed"], facts["rank"], facts["updates"]) == (settings.seed, settings.rank, 3)
    assert facts["return_step"] == learned.settings.return_step > 0
    assert facts["base"] == network_hash(edit.unet) and facts["clip"] in network_hash(edit.clip.image)
    assert set(facts["figures"]) == {"clip direction", "critic direction"}
    assert len(direction.to_bytes()) < 60_000
    others = {
        "instant": EditSettings(mode="instant", image=settings.image, steps=3, strip=1),
        "given": EditSettings(directions=str(tmp_path / "a.safetensors"), steps=3, strip=1),
    }
    for name, other in others.items():
        empty = Journal(tmp_path / name)
        finished(edit, other, empty)
        with pytest.raises(BadInput, match="learned no direction"):
            edit.direction(other, empty)


def test_purifying_changes_what_is_edited_and_not_the_picture(edit: Edit, saved: list[Path]) -> None:
    picture = speckled((16, 16))
    settings = EditSettings(image=uri(picture), directions=str(saved[0]), steps=3, strip=2)
    plain, pure = finished(edit, settings), finished(edit, replace(settings, purify=2))
    assert pure.pictures[1].facts["strength"] == 0
    assert pure.pictures[1].image.tobytes() == picture.tobytes()
    assert first(pure).tobytes() not in (first(plain).tobytes(), picture.tobytes())
    steps = [one for one in run(edit, replace(settings, purify=2)) if isinstance(one, Step)]
    assert [step.done for step in steps if step.stage == "purify"] == [1, 2]


def test_figures_are_those_of_the_picture(edit: Edit) -> None:
    picture = speckled((16, 16))
    settings = EditSettings(image=uri(picture), **STRONG)
    result = finished(edit, settings)
    facts, (x, y) = result.pictures[0].facts, (to_tensor([one]) for one in (picture, first(result)))
    assert facts["L1"] == pytest.approx((x - y).abs().mean().item() / 2, abs=1e-4)
    for name, judge in (("clip", edit.clip), ("critic", edit.critic)):
        direction = text_direction(judge, settings.source, settings.prompt)
        cosine = directional_similarity(judge.encode_image(x), judge.encode_image(y), direction)
        assert facts[f"{name} direction"] == pytest.approx(cosine.item(), abs=1e-3)
    target = F.normalize(edit.critic.encode_text(ensemble(settings.prompt)).mean(0), dim=0)
    assert facts["critic target"] == pytest.approx((edit.critic.encode_image(y)[0] @ target).item(), abs=1e-3)
    assert facts["critic target before"] == pytest.approx(
        (edit.critic.encode_image(x)[0] @ target).item(), abs=1e-3
    )
    assert facts["updates"] == 3 and facts["return_step"] == result.settings.to_dict()["return_step"]
