"""Converts the published VQGANs.

They are those of CompVis and LDM (Lightning), Sber (Gumbel, wavelets), dalle-mini (Flax), min-dalle, and LlamaGen.
"""

from __future__ import annotations

import re
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.values import is_dict
from pipelines.models.source import Converted, SourceCheckpoint, checked, count_of, size_of
from pipelines.models.taming_vqgan.network import TamingVqgan, TamingVqganConfig

# Where a file keeps the network: in Lightning's dictionary, as another network's first stage, as rudalle's model.
PREFIXES = [
    outer + inner
    for outer in ("", "state_dict.")
    for inner in ("", "first_stage_model.", "model.", "params.")
]
TABLES = {
    "quantize.embedding.weight": "codes",
    "quantize.embed.weight": "codes",  # Gumbel
    "quantize.proj.weight": "logits.weight",
    "quantize.proj.bias": "logits.bias",
    "embedding.weight": "codes",  # min-dalle
}
PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def convert(original: SourceCheckpoint) -> Converted:
    """Convert to kind "taming-vqgan", without losses, optimizers and averaged weights. BadInput without a VQGAN.

    Sizes are inferred from shapes; the side of a training picture is 256 unless the file states it.
    """
    bare = _bare(original.tensors)
    flax = any(name.endswith(".kernel") for name in bare)
    llamagen = any(name.startswith("decoder.conv_blocks.") for name in bare)
    bare = _from_llamagen(bare) if llamagen else bare
    tensors: dict[str, Tensor] = {}
    for name, tensor in _without_wavelets(_from_flax(bare) if flax else bare).items():
        if name in TABLES or name.startswith(PARTS):
            tensors[TABLES.get(name, name)] = tensor
    network = SourceCheckpoint(original.file, tensors, original.metadata)

    def size(name: str, axis: int = 0) -> int:
        return size_of(network, name, axis)

    if "codes" not in tensors:
        raise BadInput("models.no_codes", file=original.file)
    levels = max(1, count_of(tensors, "decoder.up."))
    widths = [size(f"decoder.up.{k}.block.0.conv1.weight") for k in range(levels)]
    has_encoder = "encoder.conv_in.weight" in tensors
    wavelet = size("decoder.conv_out.weight") == 12
    sizes: dict[str, Any] = {
        "image_size": (_resolution(original.metadata) or 256) * (1 + wavelet),
        "input_width": size("encoder.conv_in.weight") if has_encoder else widths[0],
        "widths": widths,
        "block_count": count_of(tensors, "decoder.up.0.block.") - 1,
        "attention_levels": [k for k in range(levels) if f"decoder.up.{k}.attn.0.q.weight" in tensors],
        "latent_size": size("post_quant_conv.weight"),
        "code_count": size("codes"),
        "code_size": size("codes", 1),
        "gumbel": "logits.weight" in tensors,
        "wavelet": wavelet,
        "unit_length": llamagen,
        "unit_range": flax or "embedding.weight" in bare,  # dalle-mini's training, whose heir min-dalle is
        "has_encoder": has_encoder,
    }
    return checked("taming-vqgan", original, TamingVqganConfig, sizes, TamingVqgan, tensors)


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the VQGAN, without their common prefix."""
    for prefix in PREFIXES:
        inside = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if any(name.startswith("decoder.") for name in inside):
            return inside
    return tensors


def _from_flax(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of vqgan-jax by PyTorch's names and layout.

    vqgan-jax joins the number in a list by an underscore (down_0.block_1, but the middle's block_1 is its own name).
    Kernels are (height, width, in, out), and a norm's scale and bias may have leading axes of length 1. (vqgan-jax
    also applies all attentions of a level after each block; our network keeps to the order in which the weights
    were trained, one after each block, as min-dalle does.)
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".mid." not in name:
            name = re.sub(r"\b(down|up|block|attn)_(\d+)\.", r"\1.\2.", name)
        module, _, leaf = name.rpartition(".")
        if leaf == "kernel" and tensor.ndim == 4:
            tensor = tensor.permute(3, 2, 0, 1)
        elif leaf in ("scale", "bias"):
            tensor = tensor.flatten()
        renamed[f"{module}.{'bias' if leaf == 'bias' else 'weight'}"] = tensor
    return renamed


def _from_llamagen(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of LlamaGen (Sun et al. 2024) by taming's names, the codes divided by their lengths.

    Its decoder counts levels from the smallest up, and what is in the middle by numbers.
    """
    last = count_of(tensors, "decoder.conv_blocks.") - 1
    middle = {"0": "block_1", "1": "attn_1", "2": "block_2"}
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^encoder\.conv_blocks\.", "encoder.down.", name)
        name = re.sub(r"^decoder\.conv_blocks\.(\d+)", lambda up: f"decoder.up.{last - int(up[1])}", name)
        name = re.sub(r"\.mid\.(\d)\.", lambda part: f".mid.{middle.get(part[1], part[1])}.", name)
        renamed[name.replace(".res.", ".block.")] = tensor
    if (codes := renamed.get("quantize.embedding.weight")) is not None:
        renamed["quantize.embedding.weight"] = F.normalize(codes.float(), dim=-1)
    return renamed


def _without_wavelets(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the wrapper of Sber's wavelet decoder: the inner decoder, without constant filters."""
    if not any(name.startswith("decoder.decoder.") for name in tensors):
        return tensors
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(("decoder.", "post_quant_conv."))
    }
    for name, tensor in tensors.items():
        if name.startswith("decoder.") and not name.startswith("decoder.idwt."):
            kept[name.removeprefix("decoder.")] = tensor
    return kept


def _resolution(numbers: dict[str, Any]) -> int | None:
    """Pixels along a side of a training picture, from the hyperparameters at any depth; None when absent."""
    resolution = numbers.get("resolution")
    if isinstance(resolution, int) and 16 <= resolution <= 4096 and resolution % 16 == 0:
        return resolution
    inside = (_resolution(number) for number in numbers.values() if is_dict(number))
    return next((size for size in inside if size), None)
