"""What is worked out and told before a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipelines.clip.ranking import (
    ensemble,
)
from pipelines.core.journal import Journal
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.errors import BadInput
from pipelines.io.images import as_seen, open_picture, picture_bytes, to_pil, to_tensor
from tests.support.edit import (
    STRONG,
    finished,
    first,
    half,
    pixels,
    random_direction,
    speckled,
    uri,
)
from tests.support.pictures import matrix_profile
from tests.support.tiny import tiny_unet


def test_preparing_twice_is_preparing_once(edit: Edit, saved: list[Path]) -> None:
    picture = uri(speckled((30, 20)))
    for settings in (
        EditSettings(),
        EditSettings(mode="quick"),
        EditSettings(image=picture, mask=uri(half((30, 20))), crop="0,0,20x20"),
        EditSettings(mode="paper", return_step=10),
        EditSettings(mode="reusable", source_images=f"{picture} | {picture}", target_images=picture),
        EditSettings(image=picture, directions=f"{saved[0]}:0.5 | {saved[1]}:-1@500-100"),
    ):
        prepared = edit.prepare(settings)
        assert prepared.return_step > 0 and edit.prepare(prepared) == prepared


def test_without_a_picture_an_example_is_taken_that_fits_the_source(edit: Edit, saved: list[Path]) -> None:
    text = F.normalize(edit.clip.encode_text(ensemble("a cat")).mean(0), dim=0)
    fitting = edit.pictures.tensor(edit.pictures.nearest(edit.clip, text[None], 8))
    found = []
    for seed in (0, 1, 0):
        settings = EditSettings(source="a cat", seed=seed, strength=0.0, mode="instant", steps=2, strip=1)
        found.append(to_tensor([first(finished(edit, settings))]))
        assert any(torch.allclose(found[-1][0], one, atol=1e-6) for one in fitting)
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


def test_directions_bring_their_texts(edit: Edit, saved: list[Path]) -> None:
    prepared = edit.prepare(EditSettings(directions=f"{saved[0]} | {saved[1]}"))
    assert (prepared.source, prepared.prompt) == ("a cat", "two cats")


def test_directions_propose_their_own_return_step(edit: Edit, saved: list[Path], tmp_path: Path) -> None:
    random_direction(edit.unet, return_step=650).save(tmp_path / "far.safetensors")
    far = str(tmp_path / "far.safetensors")
    assert edit.prepare(EditSettings(directions=str(saved[0]))).return_step == 400
    assert edit.prepare(EditSettings(directions=f"{saved[0]} | {far}")).return_step == 650
    assert edit.prepare(EditSettings(directions=far, return_step=123)).return_step == 123
    random_direction(tiny_unet(layer_count=2)).save(tmp_path / "odd.safetensors")
    with pytest.raises(BadInput, match="another base model"):
        edit.prepare(EditSettings(directions=str(tmp_path / "odd.safetensors")))


def test_texts_farther_apart_return_to_more_noise(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cosine in (0.95, 0.6, 0.2, -0.5):
        monkeypatch.setattr("pipelines.edit.preflight.texts_cosine", lambda *_, cosine=cosine: cosine)
        found.append(edit.prepare(EditSettings()).return_step)
    assert found == sorted(found) and found[0] < found[2] and found[0] >= 200 and found[-1] <= 700


def test_texts_that_clip_cannot_tell_apart_are_refused(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    one = F.normalize(torch.ones(1, edit.clip.config.embedding_size), dim=1)
    monkeypatch.setattr(edit.clip, "encode_text", lambda texts: one.expand(len(texts), -1))
    for ask in (edit.prepare, edit.estimate, lambda settings: finished(edit, settings)):
        with pytest.raises(BadInput, match="CLIP cannot tell 'a face' from 'an angry face'") as refused:
            ask(EditSettings())
        assert "\n" not in str(refused.value)


def test_what_to_expect_is_told_before(edit: Edit, saved: list[Path]) -> None:
    plain = edit.estimate(EditSettings())
    assert plain.match is None and -1 <= plain.alike <= 1
    assert plain.seconds > 0 and plain.megabytes > 0 and plain.return_step > 0
    longer = edit.estimate(EditSettings(mode="quick", updates=2000))
    assert longer.seconds > 3 * edit.estimate(EditSettings(mode="quick", updates=40)).seconds
    picture = uri(speckled((30, 20)))
    for settings in (
        EditSettings(image=picture),
        EditSettings(image=picture, mode="quick"),
        EditSettings(image=picture, mode="paper"),
        EditSettings(image=picture, mode="reusable", target_images=picture),
        EditSettings(image=picture, directions=str(saved[0])),
    ):
        estimate = edit.estimate(settings)
        assert estimate.match is not None and 0 <= estimate.match <= 1 and estimate.seconds > 0
        assert estimate.return_step == edit.prepare(settings).return_step
    assert torch.is_grad_enabled()


def test_the_match_is_a_rank_among_the_packs_pictures(edit: Edit) -> None:
    text = F.normalize(edit.clip.encode_text(ensemble("a face")).mean(0), dim=0)
    order = edit.pictures.nearest(edit.clip, text[None], 8)
    found = []
    for row in (order[0], order[4], order[-1]):
        estimate = edit.estimate(EditSettings(image=uri(to_pil(edit.pictures.tensor([row]))[0])))
        assert estimate.match is not None
        found.append(estimate.match)
        assert ("source does not describe it" in estimate.warnings) == (estimate.match < 0.8)
    assert found == [
        pytest.approx(7 / 8, abs=0.13),
        pytest.approx(3 / 8, abs=0.13),
        pytest.approx(0, abs=0.13),
    ]


def test_pictures_of_all_kinds_are_edited(edit: Edit, tmp_path: Path) -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 10, 20))
    clear.save(tmp_path / "clear.png")
    Image.fromarray((np.arange(400).reshape(20, 20) * 160).astype(np.uint16)).save(tmp_path / "grey16.png")
    Image.new("1", (20, 20), 1).save(tmp_path / "bits.png")
    Image.new("P", (20, 20), 3).save(tmp_path / "palette.png")
    Image.new("CMYK", (20, 20), (10, 200, 30, 0)).save(tmp_path / "print.jpg")
    for name in ("clear.png", "grey16.png", "bits.png", "palette.png", "print.jpg"):
        settings = EditSettings(mode="instant", image=str(tmp_path / name), steps=2, strip=1, strength=0.0)
        result = first(finished(edit, settings))
        with Image.open(tmp_path / name) as file:
            assert result.size == (20, 20) and result.mode == (file.mode if name != "print.jpg" else "RGB")
            if name != "print.jpg":  # which PNG cannot hold
                assert result.tobytes() == file.tobytes()


def test_strength_0_keeps_the_files_own_pixels_and_profile(edit: Edit, tmp_path: Path) -> None:
    profile = matrix_profile()
    for name, mode in (("wide.png", "RGB"), ("clear.png", "RGBA"), ("palette.png", "P"), ("grey.png", "LA")):
        picture = speckled((20, 20)).convert(mode)
        picture.save(tmp_path / name, icc_profile=profile if mode[0] in "RP" else None)
        with Image.open(tmp_path / name) as file:
            own, held = file.tobytes(), file.info.get("icc_profile")
        settings = EditSettings(mode="instant", image=str(tmp_path / name), steps=2, strip=3, strength=0.0)
        pictures, prepared = finished(edit, settings).pictures, edit.prepare(settings)
        with Image.open(io.BytesIO(picture_bytes(pictures[0].image))) as file:
            assert (file.mode, file.tobytes(), file.info.get("icc_profile")) == (mode, own, held), name
        assert pictures[0].facts["L1"] == 0 and pictures[1].image.mode == "RGB"
        assert as_seen(pictures[0].image).tobytes() == open_picture(tmp_path / name).tobytes()
        again = first(finished(edit, edit.prepare(prepared)))  # as a record holds them
        assert (again.tobytes(), again.info.get("icc_profile")) == (own, held)


def test_wrong_pictures_are_refused_in_one_sentence(edit: Edit, tmp_path: Path) -> None:
    picture, frames = speckled((30, 20)), [speckled((16, 16), seed) for seed in range(3)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (30, 20)).save(tmp_path / "black.png")
    fields: dict[str, Any]
    for fields, words in (
        ({"image": str(tmp_path / "moving.webp")}, "has 3 frames"),
        ({"image": str(tmp_path / "text.png")}, "not a PNG, JPEG or WebP"),
        ({"image": str(tmp_path / "nowhere.png")}, "there is no picture"),
        ({"image": uri(picture), "mask": uri(half((20, 30)))}, "the mask is 20x30; it must be 30x20"),
        ({"image": uri(picture), "mask": str(tmp_path / "black.png")}, "black everywhere"),
        ({"mask": uri(half((30, 20)))}, "it must be 16x16"),  # an example's size
        ({"image": uri(picture), "crop": "20,0,11x20"}, "the crop ends at 31x20"),
        ({"image": uri(picture), "crop": "0,0,5x20"}, "the least is 8x8"),
        ({"image": uri(speckled((100, 4)))}, "the least is 8x8"),
        ({"target_images": str(tmp_path / "nowhere.png")}, "there is no picture"),
        ({"directions": str(tmp_path / "text.png")}, "no safetensors file"),
        ({"source_images": "~nobody-here/pictures", "mode": "reusable"}, "nobody-here"),
    ):
        with pytest.raises(BadInput, match=words) as refused:
            edit.prepare(EditSettings(**fields))
        assert "\n" not in str(refused.value), fields


def test_a_picture_that_vanished_is_in_the_journal(edit: Edit, tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    speckled((30, 20)).save(path)
    settings = EditSettings(image=str(path), **STRONG)
    whole = finished(edit, settings, Journal(tmp_path / "run"))
    path.unlink()
    with pytest.raises(BadInput, match="there is no picture"):
        finished(edit, settings)
    identity = Journal(tmp_path / "run").identity()
    assert identity is not None
    again = EditSettings.from_dict(identity["settings"])
    assert pixels(finished(edit, again, Journal(tmp_path / "run"))) == pixels(whole)


def test_a_folder_of_lessons_is_read_without_a_macs_shadows_and_a_bad_one_is_named(
    edit: Edit, tmp_path: Path
) -> None:
    for name in ("2.png", "10.PNG"):
        speckled((20, 20)).save(tmp_path / name)
    (tmp_path / "._2.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    settings = EditSettings(
        mode="reusable", source_images=str(tmp_path), target_images=str(tmp_path / "2.png")
    )
    assert edit.prepare(settings).source_images.count("data:image") == 2
    (tmp_path / "3.png").write_bytes(b"<html>")
    for setting in ("source_images", "target_images"):
        for source in (tmp_path, f"{tmp_path / '2.png'} | {tmp_path / '3.png'}"):
            with pytest.raises(BadInput, match=r"^3\.png: the file is a web page"):
                edit.prepare(EditSettings.from_dict({"mode": "reusable", setting: str(source)}))
