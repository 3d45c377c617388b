"""The diffusion model: its step against diffusers' schedulers, its file, and how it learns, at tiny sizes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image, ImageDraw
from safetensors.numpy import save_file
from safetensors.torch import load_file

from pipelines.models.checkpoint import load_weights, read_header, save_checkpoint
from pipelines.models.ddim import CLEAN, ddim_step, ddim_walk
from pipelines.models.unet.network import Unet, UnetConfig
from pipelines.training.data.compositing import composed
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import Icon, may_be_mirrored
from pipelines.training.loop import Budget, fit
from pipelines.training.unet import UnetTrainer, even_steps, min_snr_weight, noise_loss
from tests.support.pictures import size_of
from tests.support.tiny import UNET_SIZES, tiny_unet


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four discs in three styles, written as `build` writes them, read at 16 x 16."""
    blobs, records = [], []
    for k, style in enumerate(("noto", "twemoji", "emojione")):
        for n, colour in enumerate(("red", "green", "blue", "gold")):
            picture = Image.new("RGBA", (128, 128))
            ImageDraw.Draw(picture).ellipse((8 * k, 8 * n, 90 + 8 * k, 90 + 8 * n), fill=colour)
            file = io.BytesIO()
            picture.save(file, "WEBP", lossless=True)
            blobs.append(file.getvalue())
            records.append([style, f"{colour} disc", [], "", [], []])
    path = tmp_path_factory.mktemp("data") / "emoji.safetensors"
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0, *map(len, blobs)]).astype(np.int64),
    }
    save_file(tensors, path, {"icons": json.dumps(records), "phrases": "a round thing"})
    return Dataset(path, size=16)


def tiny_trainer(emoji: Dataset, **changes: Any) -> UnetTrainer:
    trainer = UnetTrainer(Accelerator(cpu=True), emoji, batch_size=4, **{**UNET_SIZES, **changes})
    trainer.sheet_steps = 2
    return trainer


# ----------------------------------------------------------------------------------------------------------- the model


@pytest.mark.parametrize("patch", [1, 2])
def test_the_noise_has_the_shape_of_the_picture(patch: int) -> None:
    unet = tiny_unet(patch=patch)
    assert unet.config.factor == 2 * patch
    for size in ((16, 16), (8, 24)):
        x = torch.randn(2, 3, *size)
        noise = unet(x, torch.tensor([0, 999]))
        assert noise.shape == x.shape and noise.dtype == torch.float32 and noise.isfinite().all()
    assert not torch.equal(unet(x, torch.tensor([0, 0]))[1], noise[1])  # the step matters


def test_the_noise_schedule_is_that_of_the_open_checkpoints() -> None:
    from diffusers import DDIMScheduler

    alphas = tiny_unet().alphas_cumprod
    assert alphas.shape == (1000,) and alphas.dtype == torch.float32
    assert torch.allclose(alphas, DDIMScheduler().alphas_cumprod, rtol=1e-4, atol=0)


def test_the_sizes_of_the_pack_fit_their_budget() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet = Unet(UnetConfig())
        unet(torch.empty(1, 3, 64, 64), torch.empty(1, dtype=torch.long))
    assert 2 * sum(p.numel() for p in unet.parameters()) < 10e6  # bytes as float16
    assert counter.get_total_flops() < 3e9
    names = {name.rsplit(".", 1)[-1] for name, _ in unet.named_modules()}
    assert {"to_q", "to_k", "to_v", "to_out", "conv1", "conv2"} <= names  # where a LoRA goes


def test_a_checkpoint_brings_the_same_network_back(tmp_path: Path) -> None:
    unet = tiny_unet().half().float()  # as the file keeps it
    save_checkpoint(tmp_path / "unet.safetensors", unet, unet.config.to_dict(), {"steps": 7})
    assert "alphas_cumprod" not in load_file(tmp_path / "unet.safetensors")
    config, facts = read_header(tmp_path / "unet.safetensors")
    torch.manual_seed(5)
    again = Unet(UnetConfig.from_dict(config)).eval()
    load_weights(tmp_path / "unet.safetensors", again)
    assert again.config == unet.config and facts == {"steps": 7}
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([300])
    with torch.no_grad():
        assert torch.equal(again(x, t), unet(x, t))


# ------------------------------------------------------------------------------------------------------------ the step


def test_a_step_down_is_that_of_diffusers() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(20)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    alphas = scheduler.alphas_cumprod.double()
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = alphas, torch.ones((), dtype=torch.float64)
    times = scheduler.timesteps.tolist()
    for here, there in zip(times, [*times[1:], None], strict=True):
        noise = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        theirs = scheduler.step(noise, here, x).prev_sample
        x = ddim_step(x, noise, alphas[here], 1.0 if there is None else alphas[there])
        assert torch.allclose(x, theirs, rtol=1e-12, atol=1e-12)


def test_a_step_up_is_that_of_diffusers() -> None:
    from diffusers import DDIMInverseScheduler

    scheduler = DDIMInverseScheduler(clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(20)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    alphas = scheduler.alphas_cumprod.double()
    scheduler.alphas_cumprod, scheduler.initial_alpha_cumprod = alphas, torch.ones((), dtype=torch.float64)
    times = scheduler.timesteps.tolist()
    assert times == sorted(times)
    for here, there in zip([None, *times[:-1]], times, strict=True):
        noise = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        theirs = scheduler.step(noise, there, x).prev_sample  # theirs is told where the step goes
        x = ddim_step(x, noise, 1.0 if here is None else alphas[here], alphas[there])
        assert torch.allclose(x, theirs, rtol=1e-12, atol=1e-12)


def test_a_step_there_and_back_returns() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator)
    there = torch.tensor([0.5, 0.02], dtype=torch.float64).view(2, 1, 1, 1)  # each picture its own level
    back = ddim_step(ddim_step(x, noise, 0.9, there), noise, there, 0.9)
    assert torch.allclose(back, x, rtol=1e-12, atol=1e-12)


def test_a_walk_follows_the_exact_flow_of_a_gaussian() -> None:
    """For pictures from N(0, s^2) the best noise guess is linear in x, and where x should arrive is known."""

    class Best(torch.nn.Module):
        alphas_cumprod = tiny_unet().alphas_cumprod
        asked: list[int] = []  # noqa: RUF012

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.asked.append(int(t[0]))
            alpha = self.alphas_cumprod[t].view(-1, 1, 1, 1)
            return (1 - alpha).sqrt() * x / (alpha * 0.25 + 1 - alpha)

    best, x = Best(), torch.full((1, 3, 2, 2), 0.7)
    latent = ddim_walk(best, x, CLEAN, 599, 40)
    assert best.asked[:3] == [0, 14, 29] and len(best.asked) == 40
    alpha = best.alphas_cumprod[599]
    exact = x * ((alpha * 0.25 + 1 - alpha) / 0.25).sqrt()
    assert 0.01 < (latent / exact - 1).abs().max() < 0.06  # 40 plain steps are a little short
    assert (ddim_walk(best, x, CLEAN, 599, 600) / exact - 1).abs().max() < 0.005
    assert (ddim_walk(best, latent, 599, CLEAN, 40) / x - 1).abs().max() < 0.12


# -------------------------------------------------------------------------------------------------------- the training


def test_min_snr_weights_follow_their_closed_form() -> None:
    alphas = tiny_unet().alphas_cumprod.double()
    ratio = (alphas / (1 - alphas)).numpy()
    slowly = [min(one, 5.0) / one for one in ratio]
    assert np.allclose(min_snr_weight(alphas).numpy(), slowly, rtol=1e-12)
    assert min_snr_weight(torch.tensor([5 / 6, 0.5])).tolist() == pytest.approx([1.0, 1.0])
    assert min_snr_weight(torch.tensor(0.9), gamma=3.0).item() == pytest.approx(1 / 3)


def test_the_steps_of_a_batch_lie_evenly() -> None:
    for offset in (0.0, 0.37, 0.999):
        steps = even_steps(8, 1000, offset)
        assert steps.min() >= 0 and steps.max() < 1000
        assert sorted(steps // 125) == list(range(8))


def test_pictures_are_composed_as_the_data_does_it(emoji: Dataset) -> None:
    colours = np.array([[255, 255, 255], [10, 200, 90], [0, 0, 0]])
    still = composed(emoji.rgba[:3], colours, np.zeros((3, 4)))
    plain = on_background(emoji.rgba[:3], colours[:, None, None])
    assert np.abs((still.permute(0, 2, 3, 1).numpy() + 1) * 127.5 - plain).max() < 1.01
    moved = composed(emoji.rgba[:1], colours[:1], np.array([[0.0, 0.0, 4 / 8, -2 / 8]]))
    assert torch.allclose(moved[..., :14, 4:], still[:1, :, 2:, :12], atol=1e-4)  # 4 pixels right and 2 up
    small = composed(emoji.rgba[:1], colours[:1], np.array([[0.0, np.log(2), 0.0, 0.0]]))
    assert small[0, :, :3].min() > 0.99  # nothing but background reaches the border


def test_writing_is_never_mirrored() -> None:
    assert may_be_mirrored(Icon("noto", "dog face"))
    for name in ("flag japan", "keycap 3", "letter b", "ok button", "3rd place medal", "a"):
        assert not may_be_mirrored(Icon("noto", name)), name


def test_a_batch_depends_on_seed_and_step_alone(emoji: Dataset) -> None:
    trainer = tiny_trainer(emoji)
    pictures, noise, times = trainer.batch(3)
    trainer.batch(4)
    torch.manual_seed(99)
    for one, same in zip((pictures, noise, times), tiny_trainer(emoji).batch(3), strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(pictures, trainer.batch(4)[0])
    assert pictures.shape == noise.shape == (4, 3, 16, 16) and pictures.min() >= -1 and pictures.max() <= 1
    assert times.dtype == torch.long and sorted((times // 250).tolist()) == [0, 1, 2, 3]


def test_two_steps_of_training(emoji: Dataset, tmp_path: Path) -> None:
    trainer = tiny_trainer(emoji)
    before = {k: v.clone() for k, v in trainer.networks["unet"].state_dict().items()}
    losses = [step.metrics["loss"] for step in fit(trainer, tmp_path, Budget(steps=2))]
    assert all(0 < loss < 2 for loss in losses)
    key = "network.conv_out.weight"
    state = load_file(tmp_path / "state.safetensors")
    assert not torch.equal(state[f"network/unet/{key}"], before[key])
    assert not torch.equal(state[f"average/unet/{key}"], before[key])
    assert not torch.equal(state[f"average/unet/{key}"], state[f"network/unet/{key}"])
    assert torch.equal(state[f"average/unet/{key}"], trainer.networks["unet"].state_dict()[key])
    assert size_of(tmp_path / "sheet.png") == (8 * 18, 4 * 18)


def test_what_is_exported_has_the_same_figures(emoji: Dataset, tmp_path: Path) -> None:
    trainers = [tiny_trainer(emoji), tiny_trainer(emoji)]
    trainers[0].networks["unet"].load_state_dict(tiny_unet().half().float().state_dict())
    trainers[0].export(tmp_path / "unet.safetensors", {})
    load_weights(tmp_path / "unet.safetensors", trainers[1].networks["unet"])
    figures, again = (trainer.evaluate() for trainer in trainers)
    assert set(figures) == {"loss", "round trip PSNR"} and all(
        np.isfinite(figure) for figure in figures.values()
    )
    assert figures == again


def test_training_teaches(emoji: Dataset, tmp_path: Path) -> None:
    trainer = tiny_trainer(emoji, rate=4e-3, widths=(16, 16))
    unet, batch = trainer.networks["unet"], trainer.batch(1000)
    before = noise_loss(unet, unet.alphas_cumprod, *batch).item()
    for _ in fit(trainer, tmp_path, Budget(steps=40)):
        pass
    after = noise_loss(unet, unet.alphas_cumprod, *batch).item()
    assert after < 0.85 * before


def test_a_resumed_training_repeats_the_uninterrupted_one(emoji: Dataset, tmp_path: Path) -> None:
    for folder in ("whole", "resumed"):
        trainer = tiny_trainer(emoji)
        training = fit(trainer, tmp_path / folder, Budget(steps=4), save_every=-1.0)
        if folder == "resumed":
            for _ in range(
                3
            ):  # the state of the second step is saved on the way to the third, and the process dies
                next(training)
            trainer = tiny_trainer(emoji)
            training = fit(trainer, tmp_path / folder, Budget(steps=4))
        for _ in training:
            pass
    whole, resumed = (load_file(tmp_path / folder / "state.safetensors") for folder in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
