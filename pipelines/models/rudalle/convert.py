"""Converts ruDALL-E's state dict: pytorch_model.bin of Malevich, Emojich, Surrealist or Kandinsky."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.models.rudalle.network import Rudalle, RudalleConfig, attention_mask
from pipelines.models.rudalle.tokenizer import RudalleTokenizer
from pipelines.models.source import Converted, SourceCheckpoint, checked, count_of, size_of

NAMES = {
    "text_embeddings": "text_token",
    "text_pos_embeddings": "text_position",
    "image_embeddings": "image_token",
    "image_row_embeddings": "row",
    "image_col_embeddings": "column",
    "to_logits.0": "head_norm",
    "to_logits.1": "head",
    "transformer.final_layernorm": "norm",
}
LAYER_NAMES = {
    "input_layernorm": "norm1",
    "before_first_addition_layernorm": "after1",
    "post_attention_layernorm": "norm2",
    "before_second_addition_layernorm": "after2",
    "attention.query_key_value": "qkv",
    "attention.dense": "out",
    "mlp.dense_h_to_4h": "up",
    "mlp.dense_4h_to_h": "down",
}
MASKS = {  # buffers of the file, and our words for them; the last one tells the version
    "transformer.row_mask": "row",
    "transformer.col_mask": "column",
    "transformer.conv_mask": "convolution",
}


def convert(original: SourceCheckpoint) -> Converted:
    """Convert a ruDALL-E of any size to kind "rudalle", without its logits of text tokens. BadInput for other files."""
    sizes = _sizes(original)
    text_vocabulary: int = sizes["text_vocabulary"]
    tensors: dict[str, Tensor] = {}
    for name, tensor in original.tensors.items():
        if name in MASKS:
            continue
        module, _, kind = name.rpartition(".")
        layer = re.fullmatch(r"transformer\.layers\.(\d+)\.(.+)", module)
        if layer and layer[2] in LAYER_NAMES:
            tensors[f"blocks.{layer[1]}.{LAYER_NAMES[layer[2]]}.{kind}"] = tensor
        elif module == "to_logits.1" and tensor.ndim:
            tensors[f"head.{kind}"] = tensor[text_vocabulary:]
        else:
            tensors[f"{NAMES.get(module, module)}.{kind}"] = tensor
    return checked("rudalle", original, RudalleConfig, sizes, Rudalle, tensors)


def _sizes(original: SourceCheckpoint) -> dict[str, Any]:
    """The config's fields, from shapes; the version from the masks, or from the file's name if both versions fit."""
    width = size_of(original, "text_embeddings.weight", 1)
    sizes: dict[str, Any] = {
        "text_vocabulary": size_of(original, "text_embeddings.weight", 0),
        "image_vocabulary": size_of(original, "image_embeddings.weight", 0),
        "text_length": size_of(original, "text_pos_embeddings.weight", 0) - 1,
        "grid": size_of(original, "image_row_embeddings.weight", 0),
        "width": width,
        "layer_count": count_of(original.tensors, "transformer.layers."),
        "head_count": _head_count(original, width),
    }
    stated_version = str(
        original.metadata.get("hf_version", "v2" if "v2" in original.file else "v3")
    ).removeprefix("v")
    fitting = [version for version in (3, 2) if _masks_fit(original, RudalleConfig(**sizes, version=version))]
    if not fitting:
        raise BadInput(
            "models.rudalle_masks", file=original.file, text_length=sizes["text_length"], grid=sizes["grid"]
        )
    return sizes | {"version": int(stated_version) if stated_version in map(str, fitting) else fitting[0]}


def _head_count(original: SourceCheckpoint, width: int) -> int:
    """`num_attention_heads` of the file, or by the published rule: heads of 128 for a width of 2048, else of 64."""
    stated_count = original.metadata.get("num_attention_heads")
    count = stated_count if isinstance(stated_count, int) else width // (128 if width == 2048 else 64)
    if count < 1 or width % count:
        raise BadInput("models.rudalle_heads", file=original.file, width=width)
    return count


def _masks_fit(original: SourceCheckpoint, config: RudalleConfig) -> bool:
    """Whether the attention masks in the file, if any, are those of this config."""
    for name, pattern in MASKS.items():
        mask = original.tensors.get(name)
        if mask is not None:
            fits = mask.shape == (config.length, config.length)
            if not fits or not mask.bool().equal(attention_mask(config, pattern)):
                return False
    return True


def write_tokenizer(source: Path, target: Path) -> None:
    """Copy a published vocabulary to `target` after reading it once. BadInput when the file is not one."""
    RudalleTokenizer.load(source)
    write_atomically(target, source.read_bytes())
