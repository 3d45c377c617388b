"""Stable Diffusion in Generate: our walk against diffusers' own, and the promises that every pipeline keeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipelines.clip.ranking import rank
from pipelines.core.execute import run
from pipelines.core.pipeline import Step
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, picture_to_uri, to_tensor
from pipelines.models.stable_diffusion.load import load_diffusers
from pipelines.models.stable_diffusion.network import StableDiffusion
from tests.support.diffuse import assert_same_walk, half_mask, painting, pictures_of, pipe_of
from tests.support.tiny import CPU, SIDE, diffusion_folder, randomized, tiny_clip, tiny_diffuse


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("1.5", {"negative_prompt": "a blue cat"}),
        ("1.5", {"width": 96, "height": 64}),
        ("2.1", {}),
        ("turbo", {}),
        ("turbo", {"steps": 3}),
        ("xl", {"negative_prompt": "a blue cat", "width": 72}),
        ("xl", {}),
        ("xl", {"guidance": 1.0}),
    ],
)
def test_pictures_from_text_are_those_of_diffusers(
    kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {} if kind == "turbo" else {"steps": 4}
    settings = DiffuseSettings(**{"seed": 7, "candidates": 2, **steps, **changes})
    pipeline = tiny_diffuse(kind)
    size = pipeline.prepare(settings)
    if kind == "turbo" and not changes:
        assert (size.steps, size.guidance) == (1, 1.0)
    assert_same_walk(pipeline, settings, "Text2Image", monkeypatch, height=size.height, width=size.width)


@pytest.mark.parametrize("kind", ["1.5", "2.1", "turbo", "xl"])
def test_pictures_from_a_picture_are_those_of_diffusers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = painting()
    settings = DiffuseSettings(candidates=2, steps=5, strength=0.6, image=picture_to_uri(image))
    assert_same_walk(tiny_diffuse(kind), settings, "Image2Image", monkeypatch, image=image, strength=0.6)


@pytest.mark.parametrize(
    ("kind", "strength"), [("1.5", 0.6), ("2.1", 1.0), ("xl", 0.8), ("inpainting", 1.0), ("inpainting", 0.5)]
)
def test_pictures_within_a_mask_are_those_of_diffusers(
    kind: str, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = painting(), half_mask()
    settings = DiffuseSettings(
        candidates=2, steps=4, strength=strength, image=picture_to_uri(image), mask=picture_to_uri(mask)
    )
    pipeline = tiny_diffuse(kind)
    given = {"image": image, "mask_image": mask, "strength": strength, "height": SIDE, "width": SIDE}
    assert_same_walk(pipeline, settings, "Inpainting", monkeypatch, **given)
    for picture in pictures_of(pipeline, settings):
        drawn, before = np.asarray(picture.image), np.asarray(image)
        assert (drawn[:, SIDE // 2 :] == before[:, SIDE // 2 :]).all()
        assert (drawn[:, : SIDE // 2] != before[:, : SIDE // 2]).mean() > 0.9


def test_xl_reads_with_both_of_its_text_encoders() -> None:
    settings = DiffuseSettings(candidates=1, steps=2)
    plain = pictures_of(tiny_diffuse("xl"), settings)[0].image.tobytes()
    for name in ("text_encoder", "text_encoder_2"):
        pipeline = Diffuse(StableDiffusion(load_diffusers(diffusion_folder("xl"), CPU)), tiny_clip())
        randomized(getattr(pipe_of(pipeline), name), 77)
        assert pictures_of(pipeline, settings)[0].image.tobytes() != plain


def test_a_candidate_redrawn_alone_is_the_same() -> None:
    pipeline = tiny_diffuse("1.5")
    settings = DiffuseSettings(candidates=5, keep=5, steps=2, seed=3, image=picture_to_uri(painting()))
    together = pictures_of(pipeline, settings)
    assert len({one.image.tobytes() for one in together}) == 5
    for one in together[:2]:
        alone = pictures_of(pipeline, DiffuseSettings(
            candidates=1, steps=2, seed=one.seed, image=picture_to_uri(painting())
        ))  # fmt: skip
        assert alone[0].image.tobytes() == one.image.tobytes()


def test_batches_of_several_rows_draw_the_same_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_diffuse("turbo")
    settings = DiffuseSettings(candidates=5, keep=5, steps=2, seed=3, guidance=3.0)
    ones = {one.seed: one for one in pictures_of(pipeline, settings)}
    monkeypatch.setattr(StableDiffusion, "rows", lambda *_: 4)
    for one in pictures_of(pipeline, settings):
        apart = np.asarray(one.image).astype(int) - np.asarray(ones[one.seed].image)
        assert abs(apart).max() <= 1


def test_our_clip_ranks_them() -> None:
    pipeline = tiny_diffuse()
    found = pictures_of(pipeline, DiffuseSettings(prompt="two cats", candidates=6, keep=6))
    by_candidate = sorted(found, key=lambda one: one.facts["candidate"])
    vectors = pipeline.clip.encode_image(to_tensor([one.image for one in by_candidate]))
    ranking = rank(pipeline.clip, "two cats", vectors)
    assert [one.facts["candidate"] for one in found] == ranking.order
    assert [one.score for one in by_candidate] == pytest.approx(ranking.scores, abs=1e-5)
    best = pictures_of(pipeline, DiffuseSettings(prompt="two cats", candidates=6, keep=2))
    assert [one.seed for one in best] == [one.seed for one in found[:2]]
    hidden = pictures_of(
        pipeline, DiffuseSettings(prompt="two cats", candidates=6, keep=6, hide_duplicates=True)
    )
    alone = [one.seed for one in found if one.facts["duplicate_of"] is None]
    assert len(alone) < 6 and [one.seed for one in hidden] == alone


def test_every_step_is_yielded_and_can_be_looked_at() -> None:
    pipeline = tiny_diffuse("2.1")
    settings = DiffuseSettings(candidates=2, steps=3, width=512, height=64)
    steps = [one for one in run(pipeline, settings) if isinstance(one, Step)]
    drawn = [(step.done, step.total) for step in steps if step.stage == "draw"]
    assert drawn == [(k, 6) for k in range(1, 7)]
    assert [step.done for step in steps if step.stage == "rank"] == [1, 2]
    first = next(run(pipeline, settings))
    assert isinstance(first, Step)
    assert [one.size for one in first.preview()] == [(256, 32)]  # half the size: looking is cheap


@pytest.mark.parametrize("kind", ["1.5", "2.1", "turbo"])
def test_the_last_preview_shows_where_the_walk_ends(kind: str) -> None:
    pipeline = Diffuse(StableDiffusion(load_diffusers(diffusion_folder(kind), CPU)), tiny_clip())
    pipe_of(pipeline).unet.conv_out.weight.data *= 0.1  # calm, as trained networks are
    previews: list[Tensor] = []
    final = None
    for event in run(pipeline, DiffuseSettings(candidates=1, steps=12)):
        if isinstance(event, Step) and event.draw is not None:
            (previews if event.stage == "draw" else (final := [])).append(event.draw())
    assert final is not None
    misses = [(preview - final[0]).abs().mean().item() for preview in previews]
    assert misses[-1] < 0.1 and misses[-1] < misses[0] / 2


def test_closing_ends_it_within_a_step_and_leaves_the_model_as_it_was() -> None:
    pipeline = tiny_diffuse("1.5")
    settings = DiffuseSettings(candidates=1, steps=4, seed=2)
    whole = pictures_of(pipeline, settings)[0].image.tobytes()
    calls: list[int] = []
    handle = pipe_of(pipeline).unet.register_forward_hook(lambda *_: calls.append(1))
    events = run(pipeline, settings)
    for _ in range(2):
        next(events)
    events.close()
    handle.remove()
    assert len(calls) == 2 and torch.is_grad_enabled()
    assert pictures_of(pipeline, settings)[0].image.tobytes() == whole


def test_what_is_proposed_is_written_down() -> None:
    settings = tiny_diffuse("1.5").prepare(DiffuseSettings())
    assert (settings.width, settings.height, settings.steps, settings.guidance) == (64, 64, 25, 7.5)
    assert settings.candidates == 4
    settings = tiny_diffuse("xl").prepare(DiffuseSettings(width=128))
    assert (settings.width, settings.height, settings.steps, settings.guidance) == (128, 128, 30, 5.0)
    wide = picture_to_uri(painting(size=(320, 80)))
    settings = tiny_diffuse("turbo").prepare(
        DiffuseSettings(image=wide, mask=picture_to_uri(half_mask((320, 80))))
    )
    assert (settings.width, settings.height, settings.steps, settings.guidance) == (256, 64, 2, 1.0)
    assert open_picture(settings.image).size == open_picture(settings.mask).size == (256, 64)
    assert tiny_diffuse("turbo").prepare(settings) == settings


def test_diffusers_arguments_are_known_by_their_names() -> None:
    example = {
        "prompt": "a photo of an astronaut", "negative_prompt": "blurry", "guidance_scale": 7.5,
        "num_inference_steps": 30, "num_images_per_prompt": 4, "height": 512, "width": 768, "seed": 1024,
    }  # fmt: skip
    settings = DiffuseSettings.from_dict(example)
    assert (settings.guidance, settings.steps, settings.candidates) == (7.5, 30, 4)
    assert settings.notes_on_prompt() == []
    unguided = DiffuseSettings.from_dict({**example, "guidance_scale": 1})
    assert ["no effect at guidance 1" in str(note) for note in unguided.notes_on_prompt()] == [True]
    with pytest.raises(BadInput, match="given twice"):
        DiffuseSettings.from_dict({"guidance": 3.0, "guidance_scale": 7.5})


def test_a_prompt_is_read_as_the_model_reads_it() -> None:
    reading = tiny_diffuse().read_prompt("A red heart, Two cats")
    assert reading.limit == 14 and "".join(reading.tokens) == "Aredheart,Twoc"
    assert reading.cut == "ats" and reading.unknown == []


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("1.5", {"width": 100}, "width 100 is not a multiple of 8; try 96 or 104"),
        ("1.5", {"height": 8}, "height 8 is too small"),
        ("1.5", {"negative_prompt": "a\x00"}, "control character"),
        ("1.5", {"mask": picture_to_uri(half_mask())}, "no picture"),
        ("1.5", {"image": picture_to_uri(painting()), "steps": 3, "strength": 0.3}, "give 4 steps"),
        ("1.5", {"image": picture_to_uri(painting()), "mask": picture_to_uri(half_mask((32, 48)))}, "32x48"),
        (
            "1.5",
            {
                "image": picture_to_uri(painting()),
                "mask": picture_to_uri(Image.new("RGB", (SIDE, SIDE), (90, 90, 90))),
            },
            "dark everywhere",
        ),
        ("inpainting", {}, "only completes pictures"),
    ],
)
def test_wrong_settings_are_refused(kind: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        tiny_diffuse(kind).prepare(DiffuseSettings(**changes))


def test_half_precision_draws_nearly_the_same() -> None:
    settings = DiffuseSettings(candidates=1, steps=3, guidance=2.0)
    full = pictures_of(tiny_diffuse("2.1"), settings)[0].image
    pipe = load_diffusers(diffusion_folder("2.1"), CPU, torch.bfloat16)
    assert pipe.unet.dtype == torch.bfloat16 and pipe.vae.dtype == torch.float32
    half = pictures_of(Diffuse(StableDiffusion(pipe), tiny_clip()), settings)[0].image
    apart = abs(np.asarray(full).astype(int) - np.asarray(half))
    assert 0 < apart.mean() < 8


def test_other_folders_are_refused_in_one_sentence(tmp_path: Path) -> None:
    def changed(name: str, change: Callable[[Path, dict[str, Any]], None]) -> Path:
        path = tmp_path / name
        shutil.copytree(diffusion_folder("1.5"), path)
        index = json.loads((path / "model_index.json").read_text())
        change(path, index)
        (path / "model_index.json").write_text(json.dumps(index))
        return path

    def pickled(path: Path, index: dict[str, Any]) -> None:
        (path / "unet" / "diffusion_pytorch_model.safetensors").rename(
            path / "unet" / "diffusion_pytorch_model.bin"
        )

    def cut_off(path: Path, index: dict[str, Any]) -> None:
        file = path / "vae" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])

    def own_code(path: Path, index: dict[str, Any]) -> None:
        index["unet"] = ["mine", "MyUnet"]
        (path / "unet" / "mine.py").write_text("raise SystemExit('the code was run')")

    def flux(path: Path, index: dict[str, Any]) -> None:
        index["_class_name"] = "QwenImagePipeline"

    cases = [
        (tmp_path / "nothing", "no diffusers folder"),
        (changed("pickled", pickled), "unet holds no .safetensors weights"),
        (changed("cut", cut_off), "cannot be loaded"),
        (changed("code", own_code), "code of its own for unet"),
        (changed("flux", flux), "is a QwenImagePipeline"),
    ]
    for path, words in cases:
        with pytest.raises(BadInput) as refused:
            load_diffusers(path, CPU)
        assert words in str(refused.value) and path.name in str(refused.value)
        assert "\n" not in str(refused.value)


def test_weights_that_are_published_in_half_precision_only_are_found(tmp_path: Path) -> None:
    path = tmp_path / "half"
    shutil.copytree(diffusion_folder("turbo"), path)
    for file in path.rglob("*.safetensors"):
        file.rename(file.with_name(file.stem + ".fp16.safetensors"))
    settings = DiffuseSettings(candidates=1)
    found = pictures_of(Diffuse(StableDiffusion(load_diffusers(path, CPU)), tiny_clip()), settings)
    assert found[0].image.tobytes() == pictures_of(tiny_diffuse(), settings)[0].image.tobytes()
