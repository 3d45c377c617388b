"""Previews by a tiny decoder: what they show, that pictures stay as they are, and who may have one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from app.cli.main import main
from pipelines.core.environment import environment_of
from pipelines.core.execute import run
from pipelines.core.pipeline import Result
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.models.flow.network import FLOWS
from pipelines.models.latent_diffusion import MOST_QUICK, Tick, preview
from pipelines.models.stable_diffusion.load import load_diffusers
from pipelines.models.stable_diffusion.previewer import load_previewer
from pipelines.studio import Studio
from pipelines.weights import catalog
from pipelines.weights.catalog import checkpoint_of, fields_for, folder_kind
from tests.pipelines.test_studio import models as models_at_hand  # noqa: F401, a fixture
from tests.support.flows import flow_folder, tiny_decoder_folder
from tests.support.tiny import CPU, diffusion_folder, tiny_clip, tiny_diffuse


def flow() -> Diffuse:
    pipe = load_diffusers(flow_folder("z-image"), CPU)
    return Diffuse(FLOWS[type(pipe).__name__](pipe), tiny_clip())


@pytest.mark.parametrize("make", [tiny_diffuse, flow])
def test_previews_are_what_diffusers_decodes_and_pictures_stay(make: Any) -> None:
    from diffusers import AutoencoderTiny

    plain, quick = make(), make()
    quick.preview = load_previewer(tiny_decoder_folder(), CPU)
    quick.preview.double()
    assert environment_of(quick) == environment_of(plain)
    quick.preview.float()
    settings = quick.prepare(DiffuseSettings(prompt="a cat", candidates=1, steps=2, width=64, height=64))
    shown: list[Any] = []
    finished: list[bytes] = []
    for pipeline in (plain, quick):
        for event in run(pipeline, settings):
            if isinstance(event, Result):
                finished.append(event.pictures[0].image.tobytes())
            elif event.stage == "draw":
                shown.append(event.draw() if event.draw else None)
    assert finished[0] == finished[1]
    assert (shown[0] - shown[2]).abs().max() > 0.1  # by another decoder
    theirs: Any = AutoencoderTiny.from_pretrained(tiny_decoder_folder())
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    tick = Tick(1, 2, clean, torch.zeros_like(clean), torch.tensor(0.0))
    model: Any = flow().diffusion
    with torch.no_grad():
        assert torch.allclose(preview(model, tick, 1, quick.preview), theirs.decode(clean).sample, atol=1e-5)


def test_a_large_preview_is_made_smaller_before_it_is_decoded() -> None:
    clean = torch.zeros(1, 4, 2 * MOST_QUICK, MOST_QUICK)
    tick = Tick(1, 2, clean, clean, torch.tensor(0.0))
    shown = preview(flow().diffusion, tick, 1, load_previewer(tiny_decoder_folder(), CPU))
    assert shown.shape == (1, 3, 8 * MOST_QUICK, 4 * MOST_QUICK)


@pytest.fixture
def models(models_at_hand: Path) -> Path:  # noqa: F811
    for name, channels in (("taesd", 4), ("taef1", 16)):
        shutil.copytree(tiny_decoder_folder(channels), models_at_hand / name)
    if not (models_at_hand / "stable-diffusion-1.5").exists():
        shutil.copytree(diffusion_folder("1.5"), models_at_hand / "stable-diffusion-1.5")
    return models_at_hand


def test_a_pack_of_diffusers_can_have_one_and_its_record_does_not_name_it(models: Path) -> None:
    assert folder_kind(models / "taesd") == "taesd" and checkpoint_of("taesd").role == "preview"
    shutil.copytree(models / "taesd", models / "mine")
    assert checkpoint_of("mine").role == "preview" and fields_for("sd-1.5", checkpoint_of("mine")) == [
        "preview"
    ]
    assert fields_for("tiny", checkpoint_of("taesd")) == []
    studio = Studio("sd-1.5", "cpu")
    studio.choose("preview", "taesd")
    pipeline: Any = studio.pipeline("diffuse")
    assert pipeline.preview.latent_channels == 4 and "preview" not in studio.models("diffuse")
    assert "preview" not in catalog.parts("sd-1.5", "guide", studio.use)
    studio.choose("preview")
    assert studio.pipeline("diffuse").preview is None  # type: ignore[attr-defined]
    studio.choose("preview", "taef1")
    with pytest.raises(BadInput, match="reads latents of 16 numbers and the model's have 4"):
        studio.pipeline("diffuse")


def test_the_command_takes_one(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["diffuse", "a cat", "--candidates", "1", "--steps", "1", "--width", "64", "--height", "64"]
    more = ["--pack", "sd-1.5", "--use", "preview=taesd", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*words, *more]) == 0
    assert main([*words, *more[2:]]) == 2  # the tiny pack has no such part
    assert "part 'preview' is not in the pack tiny" in capsys.readouterr().err


def test_a_damaged_one_is_told(models: Path) -> None:
    (models / "taesd" / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="taesd holds no decoder of previews that can be loaded"):
        load_previewer(models / "taesd", CPU)
