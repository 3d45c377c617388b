"""Rectified flows with random weights, as diffusers saves them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.support.tiny import MODELS, randomized

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


@cache
def flow_folder(kind: str) -> Path:
    """A folder: "z-image", "z-image by size", "klein" or "klein base"."""
    by_size = {"use_dynamic_shifting": True}
    pipe = {
        "z-image": lambda: _z_image(_scheduler(shift=3.0)),
        "z-image by size": lambda: _z_image(_scheduler(**by_size)),
        "klein": lambda: _klein(_scheduler(**by_size), distilled=True),
        "klein base": lambda: _klein(_scheduler(**by_size), distilled=False),
    }[kind]()
    path = Path(MODELS.name) / kind
    pipe.save_pretrained(path)
    return path
