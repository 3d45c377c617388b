"""DDPM and ADM in their published forms, against the references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.core.execute import run
from pipelines.core.pipeline import Result
from pipelines.edit.directions import TARGETS, AdaptedUnet
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.errors import BadInput
from pipelines.io.images import to_pil
from pipelines.models.ddim import CLEAN, ddim_walk
from pipelines.models.ddpm.convert import convert
from pipelines.models.ddpm.network import Ddpm, DdpmConfig
from pipelines.models.source import SourceCheckpoint
from tests.support.ddpm import (
    Adm,
    Ho,
    assert_same,
    diffusers_unet,
    loaded,
    randomized,
    read,
    tiny_adm,
    tiny_ddpm,
    tiny_ho,
)
from tests.support.tiny import tiny_clip, tiny_critic, tiny_examples, tiny_tokenizer


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
        ({"multiples": (1, 2, 2), "width": 32, "head_size": 32}, {"num_head_channels": 32}),
        ({"multiples": (0.5, 1, 1), "width": 128}, {}),  # the first multiplier of 512 px
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


def test_adm_of_512_pixels_is_loaded_at_its_full_size() -> None:
    """By shapes alone: the network of Disco Diffusion's 512x512_diffusion_uncond_finetune_008100.pt."""
    with torch.device("meta"):
        reference = Adm(256, (0.5, 1, 1, 2, 2, 4, 4), 2, {4, 5, 6}, 64)
    converted = convert(SourceCheckpoint("512.pt", dict(reference.state_dict()), {}))
    config = DdpmConfig.from_dict(converted.config)
    assert (config.image_size, config.widths[0], config.step_width, config.head_size) == (512, 128, 256, 64)
    assert config.attends == (False,) * 4 + (True,) * 3 and config.learned_variance
    assert sum(tensor.numel() for tensor in converted.tensors.values()) > 550e6


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
    assert_same(
        loaded(convert(SourceCheckpoint("x", unet.state_dict(), dict(unet.config)))), Silent(unet), 16
    )


def test_the_published_faces_have_their_number_of_parameters() -> None:
    with torch.device("meta"):
        ddpm, published = Ddpm(DdpmConfig()), Ho(128, (1, 1, 2, 2, 4, 4), 2, attention=16, side=256)
    assert sum(p.numel() for p in ddpm.parameters()) == 113_673_219
    assert ddpm.config.factor == 32
    converted = convert(SourceCheckpoint("celeba_hq.ckpt", published.state_dict(), {}))
    assert DdpmConfig.from_dict(converted.config) == DdpmConfig()


def test_the_published_dogs_have_their_shapes() -> None:
    with torch.device("meta"):
        dogs = Adm(128, (1, 1, 2, 2, 4, 4), 1, {4}, 64)
    config = DdpmConfig.from_dict(convert(SourceCheckpoint("afhq_dog_4m.pt", dogs.state_dict(), {})).config)
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
            convert(SourceCheckpoint("strange.ckpt", tensors, numbers))
        assert words in str(refused.value) and "strange.ckpt" in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["ho", "adm"])
def test_adapters_find_every_kind_of_layer_and_change_nothing_at_strength_0(kind: str) -> None:
    if kind == "ho":
        ddpm = tiny_ddpm()
    else:
        ddpm = loaded(convert(SourceCheckpoint("adm.pt", tiny_adm().state_dict(), {})))
    adapted_unet = AdaptedUnet(ddpm)
    torch.manual_seed(0)
    for parameter in adapted_unet.new_adapter(rank=2):
        parameter.data.normal_()
    missing = {name for name in TARGETS if not any(f".{name}." in one for one in adapted_unet.tensors())}
    assert missing <= ({"conv"} if kind == "adm" else set())  # ADM halves and doubles in residual blocks
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([400, 400])
    with torch.no_grad():
        adapted_unet.set_strengths([torch.tensor([0.0, 1.0])])
        changed, plain = adapted_unet.noise_of(x, 400), ddpm(x, t)
    assert torch.equal(changed[0], plain[0]) and not torch.allclose(changed[1], plain[1], atol=1e-2)


def test_a_walk_up_and_down_comes_back() -> None:
    ddpm = tiny_ddpm()
    ddpm.network.conv_out.weight.data *= (
        0.1  # calm, as trained networks are, so that short walks can come back
    )
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    misses = []
    for count in (5, 80):
        up = ddim_walk(ddpm, x, CLEAN, 299, count)
        assert up.shape == x.shape and (up - x).abs().mean() > 0.05
        misses.append((ddim_walk(ddpm, up, 299, CLEAN, count) - x).abs().mean().item())
    assert misses[1] < misses[0] / 5


def test_edit_at_strength_0_gives_the_picture_back_on_this_base() -> None:
    tokenizer = tiny_tokenizer()
    examples = tiny_examples()
    edit = Edit(tiny_ddpm(), tiny_clip(tokenizer), tiny_critic(tokenizer), examples)
    settings = EditSettings(
        prompt="a red heart", source="two cats", mode="quick", updates=2, steps=3, strip=2, return_step=300
    )
    *_, result = run(edit, settings)
    assert isinstance(result, Result)
    by_strength = {picture.facts["strength"]: picture.image for picture in result.pictures}
    given = [to_pil(examples.tensor([row]))[0].tobytes() for row in range(len(examples))]
    assert by_strength[0.0].tobytes() in given
    assert by_strength[1.0].tobytes() != by_strength[0.0].tobytes()
