"""Reference code: the networks of Ho et al. 2020 and of ADM, by the names in their files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.ddpm.network import Ddpm, DdpmConfig
from pipelines.models.source import Converted, SourceCheckpoint
from pipelines.weights.readers import read_original


def randomized(network: nn.Module, seed: int = 0) -> Any:
    """Norm scales and biases too, which fresh are 1 and 0 and hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.08 * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


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
        widths, step_width = [width * multiple for multiple in multiples], 4 * width
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
        self, width: int, multiples: tuple[float, ...], layer_count: int, levels: set[int], head_size: int,
        residual: bool = True, scale_shift: bool = True, out: int = 6,
    ):  # fmt: skip
        super().__init__()
        self.width, widths, steps = width, [int(width * multiple) for multiple in multiples], 4 * width
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


def read(path: Path, numbers: dict[str, Any] | None = None) -> SourceCheckpoint:
    """The file, with what is known beside it."""
    original = read_original(path)
    return replace(original, metadata=original.metadata | (numbers or {}))


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
    sizes: dict[str, Any] = {
        "width": 64,
        "multiples": (1, 2, 2),
        "layer_count": 1,
        "levels": {1, 2},
        "head_size": 64,
    }
    return randomized(Adm(**{**sizes, **changes}))


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
