"""Pixel diffusion models in their published layouts, against references written here from the papers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.core.pipeline import Result, run
from pipelines.edit.directions import TARGETS, Wearing
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.errors import BadInput
from pipelines.io.images import to_pil
from pipelines.models.ddpm.convert import convert
from pipelines.models.ddpm.network import Ddpm, DdpmConfig
from pipelines.models.source import Converted, Original
from pipelines.models.unet.network import CLEAN, walk
from pipelines.weights.readers import read_original
from tests.support.tiny import tiny_clip, tiny_critic, tiny_examples, tiny_tokenizer


def randomized(network: nn.Module, seed: int = 0) -> Any:
    """Norm scales and biases too, which fresh are 1 and 0 and hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.08 * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


# ------------------------------------------------------------------------- Ho et al. 2020, by the names of the .ckpt files


def norm(width: int, epsilon: float = 1e-6) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, epsilon)


class Block(nn.Module):
    def __init__(self, before: int, after: int, step_width: int):
        super().__init__()
        self.norm1, self.conv1 = norm(before), nn.Conv2d(before, after, 3, padding=1)
        self.temb_proj = nn.Linear(step_width, after)
        self.norm2, self.conv2 = norm(after), nn.Conv2d(after, after, 3, padding=1)
        if before != after:
            self.nin_shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.temb_proj(F.silu(step))[..., None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attend(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (one(h).flatten(2) for one in (self.q, self.k, self.v))
        weights = torch.einsum("nci,ncj->nij", q, k).div(x.shape[1] ** 0.5).softmax(-1)
        return x + self.proj_out(torch.einsum("nij,ncj->nci", weights, v).view_as(x))


class Ho(nn.Module):
    temb: Any
    down: Any
    up: Any
    mid: Any

    def __init__(self, width: int, multiples: tuple[int, ...], layer_count: int, attention: int, side: int):
        super().__init__()
        widths, step_width = [width * one for one in multiples], 4 * width
        self.width, last = width, len(widths) - 1
        self.temb = nn.Module()
        self.temb.dense = nn.ModuleList([nn.Linear(width, step_width), nn.Linear(step_width, step_width)])
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down, self.up, skips, now = nn.ModuleList(), nn.ModuleList(), [width], width
        for k, one in enumerate(widths):
            level = self.level()
            for _ in range(layer_count):
                level.block.append(Block(now, one, step_width))
                now = one
                skips.append(now)
                if side >> k == attention:
                    level.attn.append(Attend(now))
            if k < last:
                level.downsample = nn.Module()
                level.downsample.conv = nn.Conv2d(now, now, 3, stride=2)
                skips.append(now)
            self.down.append(level)
        self.mid = nn.Module()
        self.mid.block_1, self.mid.attn_1 = Block(now, now, step_width), Attend(now)
        self.mid.block_2 = Block(now, now, step_width)
        for k in reversed(range(len(widths))):
            level = self.level()
            for _ in range(layer_count + 1):
                level.block.append(Block(now + skips.pop(), widths[k], step_width))
                now = widths[k]
                if side >> k == attention:
                    level.attn.append(Attend(now))
            if k:
                level.upsample = nn.Module()
                level.upsample.conv = nn.Conv2d(now, now, 3, padding=1)
            self.up.insert(0, level)
        self.norm_out, self.conv_out = norm(width), nn.Conv2d(width, 3, 3, padding=1)

    @staticmethod
    def level() -> Any:
        level = nn.Module()
        level.block, level.attn = nn.ModuleList(), nn.ModuleList()
        return level

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.width // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
        step = self.temb.dense[0](torch.cat([angles.sin(), angles.cos()], 1))
        step = self.temb.dense[1](F.silu(step))
        h = self.conv_in(x)
        skips = [h]
        for level in self.down:
            for k, block in enumerate(level.block):
                h = block(h, step)
                h = level.attn[k](h) if len(level.attn) else h
                skips.append(h)
            if hasattr(level, "downsample"):
                h = level.downsample.conv(F.pad(h, (0, 1, 0, 1)))
                skips.append(h)
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(h, step)), step)
        for level in reversed(self.up):
            for k, block in enumerate(level.block):
                h = block(torch.cat([h, skips.pop()], 1), step)
                h = level.attn[k](h) if len(level.attn) else h
            if hasattr(level, "upsample"):
                h = level.upsample.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(h)))


# -------------------------------------------------------- Dhariwal & Nichol 2021 (ADM), by the names of its .pt files


class AdmBlock(nn.Module):
    def __init__(self, before: int, after: int, step_width: int, scale_shift: bool, resample: str = ""):
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.ModuleList(
            [norm(before, 1e-5), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)]
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(step_width, after * (1 + scale_shift)))
        self.out_layers = nn.ModuleList(
            [norm(after, 1e-5), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(after, after, 3, padding=1)]
        )
        self.skip_connection = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.resample == "up" else x

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        h = self.in_layers[2](self.resampled(F.silu(self.in_layers[0](x))))
        told = self.emb_layers(step)[..., None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, 1)
            h = self.out_layers[0](h) * (1 + scale) + shift
        else:
            h = self.out_layers[0](h + told)
        return self.out_layers[3](F.silu(h)) + self.skip_connection(self.resampled(x))


class AdmAttend(nn.Module):
    def __init__(self, width: int, head_size: int):
        super().__init__()
        self.head_size = head_size
        self.norm, self.qkv = norm(width, 1e-5), nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        n, width, *_ = x.shape
        three = self.qkv(self.norm(x).flatten(2)).view(n, width // self.head_size, 3 * self.head_size, -1)
        q, k, v = three.split(self.head_size, 2)
        weights = torch.einsum("nhci,nhcj->nhij", q, k).div(self.head_size**0.5).softmax(-1)
        seen = torch.einsum("nhij,nhcj->nhci", weights, v)
        return x + self.proj_out(seen.reshape(n, width, -1)).view_as(x)


class Halve(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        return self.op(x)


class Double(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class FirstConv(nn.Conv2d):
    def forward(self, input: Tensor, step: Tensor | None = None) -> Tensor:
        return super().forward(input)


class Adm(nn.Module):
    input_blocks: Any
    output_blocks: Any
    middle_block: Any

    def __init__(
        self, width: int, multiples: tuple[int, ...], layer_count: int, levels: set[int], head_size: int,
        residual: bool = True, scale_shift: bool = True, out: int = 6,
    ):  # fmt: skip
        super().__init__()
        self.width, widths, steps = width, [width * one for one in multiples], 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, steps), nn.SiLU(), nn.Linear(steps, steps))
        self.input_blocks = nn.ModuleList([nn.ModuleList([FirstConv(3, widths[0], 3, padding=1)])])
        now, skips = widths[0], [widths[0]]

        def stage(before: int, after: int, level: int) -> nn.ModuleList:
            parts = nn.ModuleList([AdmBlock(before, after, steps, scale_shift)])
            return parts.append(AdmAttend(after, head_size)) if level in levels else parts

        for level, after in enumerate(widths):
            for _ in range(layer_count):
                self.input_blocks.append(stage(now, after, level))
                now = after
                skips.append(now)
            if level < len(widths) - 1:
                halve = AdmBlock(now, now, steps, scale_shift, "down") if residual else Halve(now)
                self.input_blocks.append(nn.ModuleList([halve]))
                skips.append(now)
        block = [AdmBlock(now, now, steps, scale_shift) for _ in range(2)]
        self.middle_block = nn.ModuleList([block[0], AdmAttend(now, head_size), block[1]])
        self.output_blocks = nn.ModuleList()
        for level, after in reversed(list(enumerate(widths))):
            for k in range(layer_count + 1):
                parts = stage(now + skips.pop(), after, level)
                now = after
                if level and k == layer_count:
                    parts.append(AdmBlock(now, now, steps, scale_shift, "up") if residual else Double(now))
                self.output_blocks.append(parts)
        self.out = nn.Sequential(norm(now, 1e-5), nn.SiLU(), nn.Conv2d(now, out, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.width // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        step = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
        h, skips = x, []
        for parts in self.input_blocks:
            for part in parts:
                h = part(h, step)
            skips.append(h)
        for part in self.middle_block:
            h = part(h, step)
        for parts in self.output_blocks:
            h = torch.cat([h, skips.pop()], 1)
            for part in parts:
                h = part(h, step)
        return self.out(h)


# ----------------------------------------------------------------------------------------------------------------- helpers


def read(path: Path, numbers: dict[str, Any] | None = None) -> Original:
    """The file, with what is known beside it."""
    original = read_original(path)
    return replace(original, numbers=original.numbers | (numbers or {}))


def loaded(converted: Converted) -> Any:
    """Our network, from what travels in files."""
    assert converted.kind == "ddpm"
    ddpm = Ddpm(DdpmConfig.from_dict(converted.config))
    ddpm.load_state_dict(converted.tensors)
    return ddpm.eval().requires_grad_(False)


def assert_same(ddpm: Ddpm, reference: nn.Module, side: int) -> None:
    generator = torch.Generator().manual_seed(8)
    x, t = torch.randn(2, 3, side, side, generator=generator), torch.tensor([3, 871])
    with torch.no_grad():
        expected, found = reference(x, t)[:, :3], ddpm(x, t)
    assert expected.std() > 0.05
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def tiny_ho() -> Ho:
    torch.manual_seed(0)
    return randomized(Ho(32, (1, 2, 2), 2, attention=16, side=32))


def tiny_adm(**changes: Any) -> Adm:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"layer_count": 1, "levels": {1, 2}, "head_size": 64}
    return randomized(Adm(64, (1, 2, 2), **{**sizes, **changes}))


def diffusers_unet() -> Any:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return randomized(
        UNet2DModel(
            sample_size=16, block_out_channels=(32, 64), layers_per_block=2, attention_head_dim=None, norm_eps=1e-6,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        )
    )  # fmt: skip


def tiny_ddpm() -> Any:
    """16 x 16 pictures."""
    torch.manual_seed(5)
    return randomized(Ddpm(DdpmConfig(image_size=16, widths=(32, 32), attends=(False, True), layer_count=1)))


# ------------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("wrapped", ["plain", "list", "module", "ema"])
def test_the_original_layout_gives_what_its_network_gives(wrapped: str, tmp_path: Path) -> None:
    reference = tiny_ho()
    state = reference.state_dict()
    worse = {name: torch.zeros_like(value) for name, value in state.items()}
    module = {f"module.{name}": value for name, value in state.items()}
    held: dict[str, Any] = {
        "plain": state,
        "list": [{f"module.{name}": value for name, value in worse.items()}, {"state": {}}, 3, 500, module],
        "module": {"state_dict": module},
        "ema": {"ema": state, "model": worse},
    }
    torch.save(held[wrapped], tmp_path / "celeba_hq.ckpt")
    ddpm = loaded(convert(read(tmp_path / "celeba_hq.ckpt")))
    assert ddpm.config.image_size == 32 and ddpm.config.attends == (False, True, False)
    assert_same(ddpm, reference, 32)


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({}, {}),
        ({"layer_count": 2, "levels": {2}, "out": 3}, {}),
        ({"head_size": 16}, {"num_head_channels": 16}),
        (
            {"head_size": 32, "residual": False, "scale_shift": False},
            {},
        ),  # four heads, as those before ADM have
    ],
)
def test_the_adm_layout_gives_what_its_network_gives(
    changes: dict[str, Any], numbers: dict[str, Any], tmp_path: Path
) -> None:
    reference = tiny_adm(**changes)
    torch.save(reference.state_dict(), tmp_path / "afhq.pt")
    ddpm = loaded(convert(read(tmp_path / "afhq.pt", numbers)))
    assert_same(ddpm, reference, 32)


@pytest.mark.parametrize("form", ["safetensors", "bin", "old names", "without config"])
def test_a_diffusers_folder_gives_what_its_network_gives(form: str, tmp_path: Path) -> None:
    unet = diffusers_unet()
    unet.save_pretrained(tmp_path, safe_serialization=form != "bin")
    numbers = json.loads((tmp_path / "config.json").read_text()) if form != "without config" else {}
    if form == "bin":
        original = read(tmp_path / "diffusion_pytorch_model.bin", numbers)
    else:
        tensors = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
        if form == "old names":
            for new, old in (
                ("to_q", "query"),
                ("to_k", "key"),
                ("to_v", "value"),
                ("to_out.0", "proj_attn"),
            ):
                tensors = {name.replace(f".{new}.", f".{old}."): value for name, value in tensors.items()}
        save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
        original = read(tmp_path / "diffusion_pytorch_model.safetensors", numbers)
    ddpm = loaded(convert(original))
    if form != "without config":
        assert ddpm.config.image_size == 16
    assert_same(ddpm, Silent(unet), 16)


class Silent(nn.Module):
    """A diffusers network that returns its tensor."""

    def __init__(self, unet: Any):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t).sample


def test_a_folder_of_heads_and_shifts_of_its_own_is_read_from_its_config() -> None:
    from diffusers import UNet2DModel

    torch.manual_seed(1)
    unet = randomized(
        UNet2DModel(
            sample_size=16, block_out_channels=(16, 32), layers_per_block=1, attention_head_dim=8, norm_num_groups=8,
            down_block_types=("AttnDownBlock2D", "ResnetDownsampleBlock2D"), downsample_type="resnet",
            up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D"), upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
        )
    )  # fmt: skip
    assert_same(loaded(convert(Original("x", unet.state_dict(), dict(unet.config)))), Silent(unet), 16)


def test_the_published_faces_have_their_number_of_parameters() -> None:
    with torch.device("meta"):
        ddpm, published = Ddpm(DdpmConfig()), Ho(128, (1, 1, 2, 2, 4, 4), 2, attention=16, side=256)
    assert sum(p.numel() for p in ddpm.parameters()) == 113_673_219
    assert ddpm.config.factor == 32
    converted = convert(Original("celeba_hq.ckpt", published.state_dict(), {}))
    assert DdpmConfig.from_dict(converted.config) == DdpmConfig()


def test_the_published_dogs_have_their_shapes() -> None:
    with torch.device("meta"):
        dogs = Adm(128, (1, 1, 2, 2, 4, 4), 1, {4}, 64)
    config = DdpmConfig.from_dict(convert(Original("afhq_dog_4m.pt", dogs.state_dict(), {})).config)
    assert (config.image_size, config.head_size, config.learned_variance) == (256, 64, True)
    assert config.residual_resampling and config.scale_shift


def test_the_noise_is_that_of_the_paper() -> None:
    alphas = tiny_ddpm().alphas_cumprod
    assert alphas.shape == (1000,) and alphas[0].item() == pytest.approx(1 - 1e-4, rel=1e-5)
    assert alphas[499].sqrt().item() == pytest.approx(0.28, abs=0.005)


def test_other_files_are_refused_in_one_sentence() -> None:
    ho, adm, unet = tiny_ho().state_dict(), tiny_adm().state_dict(), diffusers_unet()
    labels = {**adm, "label_emb.weight": torch.zeros(10, 256)}
    less = {name: value for name, value in ho.items() if name != "mid.block_1.conv1.weight"}
    wide = {**ho, "conv_out.weight": torch.zeros(3, 48, 3, 3)}
    vqgan = {
        "encoder.conv_in.weight": torch.zeros(8, 3, 3, 3),
        "encoder.down.0.block.0.norm1.weight": torch.zeros(8),
    }
    stable = {f"model.diffusion_model.{name}": value for name, value in adm.items()}
    stable["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.norm1.weight"] = torch.zeros(8)
    short = {name: value for name, value in adm.items() if not name.startswith("input_blocks.3")}
    odd = dict(unet.config) | {"time_embedding_type": "fourier"}
    cases: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
        ({}, {}, "found nothing"),
        (vqgan, {}, "found encoder.conv_in.weight"),
        (less, {}, "mid_block.resnets.0.conv1.weight should be"),
        (wide, {}, "conv_out.weight should be"),
        ({**ho, "extra.weight": torch.zeros(2)}, {}, "extra.weight should be absent"),
        (labels, {}, "256x256_diffusion_uncond.pt"),
        (stable, {}, "transformer_blocks"),
        (short, {}, "input_blocks.4.0.in_layers.0.weight has no place"),
        (unet.state_dict(), odd, "time_embedding_type 'fourier'"),
        ({"temb.dense.0.weight": torch.zeros(8, 8)}, {}, "no such network"),
        ({"time_embed.0.weight": torch.zeros(8, 8)}, {}, "input_blocks.1.0.in_layers.0.weight is missing"),
        (
            {**ho, "conv_out.weight": torch.tensor(0.0)},
            {},
            "conv_out.weight should be (3, 32, 3, 3) and is ()",
        ),
    ]
    for tensors, numbers, words in cases:
        with pytest.raises(BadInput) as refused:
            convert(Original("strange.ckpt", tensors, numbers))
        assert words in str(refused.value) and "strange.ckpt" in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["ho", "adm"])
def test_adapters_find_every_kind_of_layer_and_change_nothing_at_strength_0(kind: str) -> None:
    if kind == "ho":
        ddpm = tiny_ddpm()
    else:
        ddpm = loaded(convert(Original("adm.pt", tiny_adm().state_dict(), {})))
    worn = Wearing(ddpm)
    torch.manual_seed(0)
    for parameter in worn.add(rank=2):
        parameter.data.normal_()
    missing = {name for name in TARGETS if not any(f".{name}." in one for one in worn.tensors())}
    assert missing <= ({"conv"} if kind == "adm" else set())  # ADM halves and doubles in residual blocks
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([400, 400])
    with torch.no_grad():
        worn.set_strengths([torch.tensor([0.0, 1.0])])
        changed, plain = worn.noise_of(x, 400), ddpm(x, t)
    assert torch.equal(changed[0], plain[0]) and not torch.allclose(changed[1], plain[1], atol=1e-2)


def test_a_walk_up_and_down_comes_back() -> None:
    ddpm = tiny_ddpm()
    ddpm.network.conv_out.weight.data *= (
        0.1  # calm, as trained networks are, so that short walks can come back
    )
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    misses = []
    for count in (5, 80):
        up = walk(ddpm, x, CLEAN, 299, count)
        assert up.shape == x.shape and (up - x).abs().mean() > 0.05
        misses.append((walk(ddpm, up, 299, CLEAN, count) - x).abs().mean().item())
    assert misses[1] < misses[0] / 5


def test_edit_at_strength_0_gives_the_picture_back_on_this_base() -> None:
    tokenizer = tiny_tokenizer()
    examples = tiny_examples()
    edit = Edit(tiny_ddpm(), tiny_clip(tokenizer), tiny_critic(tokenizer), examples)
    settings = EditSettings(
        prompt="a red heart", source="two cats", updates=2, steps=3, strip=2, return_step=300, strength=1.0
    )
    *_, result = run(edit, settings)
    assert isinstance(result, Result)
    by_strength = {picture.facts["strength"]: picture.image for picture in result.pictures}
    given = [to_pil(examples.tensor([row]))[0].tobytes() for row in range(len(examples))]
    assert by_strength[0.0].tobytes() in given
    assert by_strength[1.0].tobytes() != by_strength[0.0].tobytes()
