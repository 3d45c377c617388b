"""Converts checkpoints of DALLE-pytorch, {"hparams", "vae_params", "weights", ...}.

`convert` reads the transformer, and `convert_vae` the DiscreteVAE from the same file or from a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isqrt
from typing import Any, cast

import torch
from torch import Tensor

from pipelines.errors import BadInput, Message
from pipelines.io.values import is_dict
from pipelines.models.dalle_pytorch.network import (
    ATTENTION_TYPES,
    DallePytorch,
    DallePytorchConfig,
    DiscreteVae,
    DiscreteVaeConfig,
    rotary_angles,
)
from pipelines.models.source import Converted, SourceCheckpoint, checked, count_of, size_of

NAMES = {
    "text_emb.weight": "text_token.weight",
    "image_emb.weight": "image_token.weight",
    "text_pos_emb.weight": "text_position.weight",
    "to_logits.0.weight": "norm.weight",
    "to_logits.0.bias": "norm.bias",
}
AXES = {  # of the learned positions, before and after axial-positional-embedding 0.3
    "image_pos_emb.weights_0": "row.weight",
    "image_pos_emb.weights_1": "column.weight",
    "image_pos_emb.weights.0": "row.weight",
    "image_pos_emb.weights.1": "column.weight",
}
LAYER = re.compile(r"transformer\.layers\.layers\.(\d+)\.([01])\.((?:fn\.)*)(.+)")
MAX_COUNT = 1_000_000  # no count among the hparams comes near it
SHIFTED = re.compile(r"transformer\.layers\.layers\.0\.1\.(fn\.){3,}net\..*")  # the shift wraps it once more
LAYER_NAMES = {  # of the two halves of a layer, without the wrappers' "fn.", of which versions differ in number
    "0": {
        "scale": "scale1",
        "norm.weight": "norm1.weight",
        "norm.bias": "norm1.bias",
        "norm_out.weight": "after1.weight",
        "norm_out.bias": "after1.bias",
        "to_qkv.weight": "qkv.weight",
        "to_out.0.weight": "out.weight",
        "to_out.0.bias": "out.bias",
    },
    "1": {
        "scale": "scale2",
        "norm.weight": "norm2.weight",
        "norm.bias": "norm2.bias",
        "norm_out.weight": "after2.weight",
        "norm_out.bias": "after2.bias",
        "net.0.weight": "up.weight",
        "net.0.bias": "up.bias",
        "net.3.weight": "down.weight",
        "net.3.bias": "down.bias",
    },
}


def convert(original: SourceCheckpoint) -> Converted:
    """Convert the transformer to kind "dalle-pytorch", without its logits of text tokens.

    BadInput when the file is no such checkpoint, or has layers that `DallePytorch` lacks.
    """
    hparams, state = _parts(original)
    original = SourceCheckpoint(original.file, state, hparams)
    _refuse_unknown(original)
    if "text_emb.linear.weight" in state:  # one matrix for embeddings and logits
        size_of(original, "to_logits.1.weight", 0)
        count = _told(original, "num_text_tokens", 10_000) + _told(original, "text_seq_len", 256)
        state["text_emb.weight"] = state["to_logits.1.weight"][:count]
        state["image_emb.weight"] = state["to_logits.1.weight"][count:]
    sizes = _sizes(original)
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer = LAYER.fullmatch(name)
        if name == "transformer.pos_emb" or re.match(r"(text|image)_emb\.linear\.", name):
            continue
        if layer and layer[4] in LAYER_NAMES[layer[2]]:
            ours = f"blocks.{layer[1]}.{LAYER_NAMES[layer[2]][layer[4]]}"
            tensors[ours] = tensor.flatten() if layer[4] == "scale" else tensor
        elif name in AXES and tensor.ndim == 4:
            tensors[AXES[name]] = tensor.reshape(-1, tensor.shape[-1])
        elif name.startswith("to_logits.1.") and tensor.ndim:
            tensors[name.replace("to_logits.1", "head")] = tensor[sizes["text_vocabulary"] :]
        else:
            tensors[NAMES.get(name, name)] = tensor
    return checked("dalle-pytorch", original, DallePytorchConfig, sizes, DallePytorch, tensors)


def _parts(original: SourceCheckpoint) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The hparams, and the transformer's tensors by their names within it."""
    hparams = original.metadata.get("hparams")
    state = {
        name.removeprefix("weights."): tensor
        for name, tensor in original.tensors.items()
        if name.startswith("weights.") and not name.startswith("weights.vae.")
    }
    if not is_dict(hparams) or not state:
        keys = ", ".join(sorted(original.metadata))[:60] or Message("models.no_plain_values")
        count = len(original.tensors)
        raise BadInput("models.not_dalle_pytorch", file=original.file, found=keys, count=count)
    return hparams, state


def _refuse_unknown(original: SourceCheckpoint) -> None:
    """BadInput for the kinds of layers that the network does not have."""
    hparams = original.metadata
    if hparams.get("reversible"):
        raise BadInput("models.reversible", file=original.file, value=str(hparams["reversible"])[:40])
    if hparams.get("sparse_attn"):
        raise BadInput(
            "models.sparse_attention",
            file=original.file,
            value=str(hparams["sparse_attn"])[:40],
            known=", ".join(ATTENTION_TYPES),
        )
    for attention_type in _attention_types(hparams):
        if attention_type not in ATTENTION_TYPES:
            raise BadInput(
                "models.attention_type",
                file=original.file,
                type=attention_type,
                known=", ".join(ATTENTION_TYPES),
            )


def _attention_types(hparams: dict[str, Any]) -> tuple[str, ...]:
    types: Any = hparams.get("attn_types") or ("full",)
    if isinstance(types, list | tuple):
        return tuple(map(str, cast(Sequence[Any], types)))
    return (str(types)[:40],)


def _told(original: SourceCheckpoint, name: str, default: int) -> int:
    """An integer hparam from 1 to MOST, or the library's default when absent. BadInput for another value."""
    value = original.metadata.get(name, default)
    if not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise BadInput("models.not_a_count", file=original.file, name=name, value=str(value)[:40])
    return value


def _sizes(original: SourceCheckpoint) -> dict[str, Any]:
    """The config's fields: from shapes where possible, else from the hparams, else the library's defaults."""
    hparams, state = original.metadata, original.tensors
    rotary = "text_pos_emb.weight" not in state
    text_length = (
        _told(original, "text_seq_len", 256) if rotary else size_of(original, "text_pos_emb.weight", 0) - 1
    )
    if rotary:
        grid = isqrt(max(0, size_of(original, "transformer.pos_emb", 1) - text_length - 1))
    else:
        grid = next((state[name].shape[1] for name in AXES if name in state and state[name].ndim == 4), 0)
    sizes: dict[str, Any] = {
        "text_vocabulary": size_of(original, "text_emb.weight", 0),
        "image_vocabulary": size_of(original, "image_emb.weight", 0),
        "text_length": text_length,
        "grid": grid,
        "width": size_of(original, "text_emb.weight", 1),
        "layer_count": count_of(state, "transformer.layers.layers."),
        "head_count": _told(original, "heads", 8),
        "head_size": _told(original, "dim_head", 64),
        "attention_types": _attention_types(hparams),
        "rotary": rotary,
        "shift_tokens": any(SHIFTED.fullmatch(name) for name in state),
        "sandwich": any(name.endswith(".norm_out.weight") for name in state),
        "stable": bool(hparams.get("stable", False)),
    }
    return sizes | ({"pixel_frequencies": _pixel_frequencies(original, sizes)} if rotary else {})


def _pixel_frequencies(original: SourceCheckpoint, sizes: dict[str, Any]) -> str:
    """The rule, "linear" or "octaves", that gives the rotary angles in the file. BadInput when neither does."""
    stored_angles = original.tensors["transformer.pos_emb"].float()
    for rule in ("linear", "octaves"):
        angles = rotary_angles(DallePytorchConfig(**sizes, pixel_frequencies=rule))
        if stored_angles.shape == (1, *angles.shape) and torch.allclose(
            stored_angles[0], angles, rtol=1e-3, atol=1e-2
        ):
            return rule
    raise BadInput(
        "models.rotary_positions",
        file=original.file,
        shape=tuple(stored_angles.shape),
        text_length=sizes["text_length"],
        grid=sizes["grid"],
        head_size=sizes["head_size"],
    )


def convert_vae(original: SourceCheckpoint) -> Converted:
    """Convert the DiscreteVAE of a DALL·E checkpoint, or of a file that train_vae.py saved, to kind "dalle-pytorch-vae".

    Its names begin with "weights.vae." in the former, and with "weights." in the latter. BadInput without a DiscreteVAE.
    """
    inside = any(name.startswith("weights.vae.") for name in original.tensors)
    prefix, hparams = ("weights.vae.", "vae_params") if inside else ("weights.", "hparams")
    numbers = original.metadata.get(hparams)
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in original.tensors.items()
        if name.startswith(prefix)
    }
    if "codebook.weight" not in state or not is_dict(numbers):
        raise BadInput("models.no_discrete_vae", file=original.file, hparams=hparams, prefix=prefix)
    original = SourceCheckpoint(original.file, state, numbers)
    sizes = {
        "image_size": _told(original, "image_size", 256),
        "code_count": size_of(original, "codebook.weight", 0),
        "code_size": size_of(original, "codebook.weight", 1),
        "layer_count": sum(bool(re.fullmatch(r"encoder\.\d+\.0\.weight", name)) for name in state),
        "block_count": sum(bool(re.fullmatch(r"encoder\.\d+\.net\.0\.weight", name)) for name in state),
        "width": size_of(original, "encoder.0.0.weight", 0),
    }
    tensors = {"codes" if name == "codebook.weight" else name: tensor for name, tensor in state.items()}
    return checked("dalle-pytorch-vae", original, DiscreteVaeConfig, sizes, DiscreteVae, tensors)
