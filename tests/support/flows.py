"""Rectified flows with random weights, as diffusers saves them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.support.tiny import MODELS, letters, randomized, text_encoder

WIDTH, SIDE = 16, 64
# Qwen3's form of a conversation, as far as these pipelines use it.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)


def _words() -> Any:
    from transformers import Qwen2Tokenizer

    from pipelines.models.openai_clip.convert import byte_letters

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    vocabulary = {word: k for k, word in enumerate([*byte_letters(), *special])}
    tokenizer: Any = Qwen2Tokenizer(vocabulary, [], chat_template=TEMPLATE)
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:3]})
    tokenizer.add_tokens(special[3:])
    return tokenizer


def _language_model(layers: int, speaks: bool) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    torch.manual_seed(40)
    config = Qwen3Config(
        vocab_size=270, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=600,
    )  # fmt: skip
    return randomized((Qwen3ForCausalLM if speaks else Qwen3Model)(config), 41)


def _scheduler(**changes: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**changes)


VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4,
    "sample_size": SIDE,
}  # fmt: skip


def _z_image(scheduler: Any) -> Any:
    import diffusers

    torch.manual_seed(42)
    network = diffusers.ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
    )  # fmt: skip
    vae = randomized(diffusers.AutoencoderKL(**VAE, shift_factor=0.1, scaling_factor=0.4), 43)
    return diffusers.ZImagePipeline(
        scheduler, vae, _language_model(3, speaks=False), _words(), randomized(network, 44)
    )


def _klein(scheduler: Any, distilled: bool) -> Any:
    import diffusers

    torch.manual_seed(45)
    network = diffusers.Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=3 * WIDTH, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )  # fmt: skip
    vae = randomized(diffusers.AutoencoderKLFlux2(**VAE), 46)
    vae.bn.running_mean.normal_(0, 0.3)
    vae.bn.running_var.uniform_(0.5, 2)
    return diffusers.Flux2KleinPipeline(
        scheduler, vae, _language_model(28, speaks=True), _words(), randomized(network, 47), is_distilled=distilled
    )  # fmt: skip


def _t5() -> tuple[Any, Any]:
    """An encoder of 64 numbers a token and its tokenizer of letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(code), -3.0) for code in range(33, 127)]
    torch.manual_seed(50)
    sizes = {"d_model": 64, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    encoder = T5EncoderModel(T5Config(vocab_size=len(pieces), **sizes))
    return randomized(encoder, 51), T5Tokenizer(pieces, extra_ids=0)


def _stable_diffusion_3() -> Any:
    import diffusers

    torch.manual_seed(52)
    network = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=64, caption_projection_dim=16, pooled_projection_dim=64,
        pos_embed_max_size=16,
    )  # fmt: skip
    vae = randomized(diffusers.AutoencoderKL(**VAE, shift_factor=0.1, scaling_factor=0.4), 53)
    encoder, words = _t5()
    return diffusers.StableDiffusion3Pipeline(
        randomized(network, 54), _scheduler(shift=3.0), vae, text_encoder(30, projects=True), letters(),
        text_encoder(31, projects=True), letters(), encoder, words,
    )  # fmt: skip


def _flux_1() -> Any:
    import diffusers

    torch.manual_seed(55)
    network = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=64, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    vae = randomized(diffusers.AutoencoderKL(**VAE, shift_factor=0.1, scaling_factor=0.4), 56)
    encoder, words = _t5()
    return diffusers.FluxPipeline(
        _scheduler(shift=1.0), vae, text_encoder(32), letters(), encoder, words, randomized(network, 57)
    )


def _sana() -> Any:
    import diffusers
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n"]
    vocabulary = {word: k for k, word in enumerate([*special, *map(chr, range(33, 127))])}
    torch.manual_seed(58)
    config = Gemma2Config(
        vocab_size=len(vocabulary), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=4096,
    )  # fmt: skip
    network = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=WIDTH,
        sample_size=8, guidance_embeds=True, qk_norm="rms_norm_across_heads",
    )  # fmt: skip
    blocks = ("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock")
    sizes = {"block_out_channels": (8, 8, 8, 16), "block_types": blocks, "layers_per_block": (1,) * 4}
    sizes["qkv_multiscales"] = ((), (), (), (5,))
    vae = diffusers.AutoencoderDC(
        latent_channels=4, attention_head_dim=8, scaling_factor=0.41,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sizes.items()},
    )  # fmt: skip
    return diffusers.SanaSprintPipeline(
        GemmaTokenizer(vocabulary, []), randomized(Gemma2Model(config), 59), randomized(vae, 60),
        randomized(network, 61), diffusers.SCMScheduler(),
    )  # fmt: skip


@cache
def flow_folder(kind: str) -> Path:
    """A folder: "z-image", "z-image by size", "klein", "klein base", "sd-3", "flux-1" or "sana"."""
    by_size = {"use_dynamic_shifting": True}
    pipe = {
        "z-image": lambda: _z_image(_scheduler(shift=3.0)),
        "z-image by size": lambda: _z_image(_scheduler(**by_size)),
        "klein": lambda: _klein(_scheduler(**by_size), distilled=True),
        "sd-3": _stable_diffusion_3,
        "flux-1": _flux_1,
        "sana": _sana,
        "klein base": lambda: _klein(_scheduler(**by_size), distilled=False),
    }[kind]()
    path = Path(MODELS.name) / kind
    pipe.save_pretrained(path)
    return path


@cache
def tiny_decoder_folder(channels: int = 4) -> Path:
    """A TAESD of latents of so many numbers."""
    import diffusers

    torch.manual_seed(62)
    sizes = {"block_out_channels": (8, 8, 8, 8)}
    vae = diffusers.AutoencoderTiny(
        latent_channels=channels, num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sizes.items()},
    )  # fmt: skip
    path = Path(MODELS.name) / f"tiny-decoder-{channels}"
    randomized(vae, 63).save_pretrained(path)
    return path
