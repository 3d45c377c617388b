"""Pictures above a megapixel."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.core.comparison import compare
from pipelines.core.record import record_of
from pipelines.edit.inputs import LARGE
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.errors import BadInput
from pipelines.io.images import open_picture
from tests.support.edit import (
    finished,
    first,
    half,
    smooth,
    speckled,
)


def test_a_large_picture_is_edited_whole_and_recorded_small(
    edit: Edit, large: Path, saved: list[Path]
) -> None:
    mask = half((1500, 800))
    mask.save(large.parent / "mask.png")
    fields: dict[str, Any] = {"directions": str(saved[0]), "steps": 2, "strip": 2, "inversion_iterations": 0}
    settings = EditSettings(
        image=str(large), mask=str(large.parent / "mask.png"), crop="300,100,1000x600", **fields
    )
    result = finished(edit, settings)
    new, old = np.asarray(first(result)), np.asarray(Image.open(large))
    assert first(result).size == (1500, 800)
    changed = (new != old).any(2)
    assert changed[100:700, 300:750].mean() > 0.3
    outside = np.ones_like(changed)
    outside[100:700, 300:750] = False
    assert not changed[outside].any()
    assert np.array_equal(np.asarray(result.pictures[1].image), old)  # strength 0
    assert result.pictures[0].facts["original"] == [1500, 800]
    assert isinstance(result.settings, EditSettings) and result.settings.image.startswith("data:image/png")
    kept = open_picture(result.settings.image)
    assert kept.width * kept.height <= LARGE and kept.width / kept.height == pytest.approx(1.875, abs=0.01)
    assert open_picture(result.settings.mask).size == kept.size
    box = result.settings.box()
    assert box is not None and [one / kept.width * 1500 for one in box] == pytest.approx(
        [300, 100, 1300, 700], abs=4
    )
    reduced = smooth((1500, 800)).resize(kept.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(kept, np.int16) - np.asarray(reduced, np.int16)).max() <= 1
    again = first(finished(edit, result.settings))  # what the record gives: the same edit of the small copy
    small = first(result).resize(kept.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(again, np.int16) - np.asarray(small, np.int16)).mean() < 2


def test_a_large_pictures_record_keeps_its_own_picture_when_purified(
    edit: Edit, large: Path, saved: list[Path]
) -> None:
    settings = EditSettings(
        image=str(large), purify=1, directions=str(saved[0]), steps=2, strip=1, inversion_iterations=0
    )
    kept = finished(edit, settings).settings
    assert isinstance(kept, EditSettings)
    picture = open_picture(kept.image)
    assert picture.width / picture.height == pytest.approx(1.875, abs=0.01)


def test_a_large_pictures_record_can_be_run_whatever_the_crop(
    edit: Edit, saved: list[Path], tmp_path: Path
) -> None:
    smooth((3000, 1500)).save(tmp_path / "a.png")
    for crop in ("2992,1492,8x8", "0,0,8x8", "2500,0,500x1500"):
        settings = EditSettings(
            image=str(tmp_path / "a.png"),
            crop=crop,
            directions=str(saved[0]),
            steps=2,
            strip=1,
            inversion_iterations=0,
        )
        result = finished(edit, settings)
        assert isinstance(result.settings, EditSettings)
        edit.prepare(result.settings)


def test_a_large_picture_that_vanished_is_missed_in_one_sentence(
    edit: Edit, large: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(large.read_bytes())
    prepared = edit.prepare(EditSettings(image=str(path), mode="instant", steps=2, strip=1))
    path.unlink()
    with pytest.raises(BadInput, match="there is no picture"):
        list(edit(prepared))


def test_a_large_photo_given_as_its_bytes_leaves_no_place_in_the_record(edit: Edit, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    exif[0x010E] = "a secret place"
    file = io.BytesIO()
    speckled((1100, 1000)).save(file, "JPEG", exif=exif)
    source = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    assert b"a secret place" in file.getvalue()
    result = finished(edit, EditSettings(image=source, mode="instant", strip=1, steps=2))
    kept = result.settings
    assert isinstance(kept, EditSettings) and result.pictures[0].image.size == (1100, 1000)
    assert b"a secret place" not in base64.b64decode(kept.image.partition(",")[2])
    assert open_picture(kept.image).width < 1100


def test_the_replay_of_a_large_edit_says_that_the_record_holds_a_smaller_picture(
    edit: Edit, large: Path, saved: list[Path]
) -> None:
    settings = EditSettings(
        image=str(large), directions=str(saved[0]), steps=2, strip=1, inversion_iterations=0
    )
    result = finished(edit, settings)
    assert isinstance(result.settings, EditSettings)
    again = finished(edit, result.settings)
    old, new = (
        record_of(
            pipeline="edit", pack="tiny", device="cpu", models={}, settings=each.settings,
            picture=each.pictures[0], rank=1, environment=each.environment,
        )
        for each in (result, again)
    )  # fmt: skip
    verdict = compare(first(result), first(again), old, new)
    assert not verdict.identical and verdict.reduced == first(again).size
    assert verdict.largest is not None and verdict.mean is not None and verdict.mean < 2
    assert "reduced to 1402 x 747, because it had more than a megapixel" in verdict.sentence()
    other = compare(Image.new("RGB", first(result).size), first(again), old, new)
    assert other.mean is not None and other.mean > 20
