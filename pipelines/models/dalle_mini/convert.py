"""Converts DALL·E mini and mega: min-dalle's two PyTorch state dicts, or dalle-mini's one Flax tree, into `DalleMini`.

A Flax tree is first renamed to min-dalle's names. Then matrices that are always used together are fused, and the head is
cut to the image tokens.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from pipelines.errors import BadInput, Message
from pipelines.io.files import write_atomically
from pipelines.models.checkpoint import ABSENT
from pipelines.models.dalle_mini.network import DalleMiniConfig
from pipelines.models.dalle_mini.tokenizer import DalleMiniTokenizer
from pipelines.models.source import Converted, Joined, SourceCheckpoint

CODE_COUNT = 2**14  # of the VQGAN that both models were trained with
HEAD_SIZE = 64  # of mini and mega

# How the fused parameters of our layers are made from the published ones.
SELF_ATTENTION = {
    "attention.norm_in": ["pre_self_attn_layer_norm"],
    "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attention.out": ["self_attn.out_proj"],
    "attention.norm_out": ["self_attn_layer_norm"],
}
CROSS_ATTENTION = {
    "cross.norm_in": ["pre_encoder_attn_layer_norm"],
    "cross.query": ["encoder_attn.q_proj"],
    "cross.keys_values": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
    "cross.out": ["encoder_attn.out_proj"],
    "cross.norm_out": ["encoder_attn_layer_norm"],
}
FEED_FORWARD = {
    "feed_forward.norm_in": ["glu.ln0"],
    "feed_forward.gate_value": ["glu.fc0", "glu.fc1"],
    "feed_forward.norm_inner": ["glu.ln1"],
    "feed_forward.down": ["glu.fc2"],
}
LAYERS = {
    "encoder": {**SELF_ATTENTION, **FEED_FORWARD},
    "decoder": {**SELF_ATTENTION, **CROSS_ATTENTION, **FEED_FORWARD},
}
# Norms that feed a matrix have a shift and no scale: these may be absent, and then are 1.
WITHOUT_SCALE = re.compile(
    r"(final_ln|layers\.\d+\.(pre_self_attn_layer_norm|pre_encoder_attn_layer_norm|glu\.ln0|glu\.ln1))\.weight"
)
# the published name of each half, and our prefix of its embeddings
SIDES = {"encoder": "text", "decoder": "image"}
FLAX = {
    "FlaxBartAttention_0": "self_attn",
    "FlaxBartAttention_1": "encoder_attn",
    "GLU_0.LayerNorm_0": "glu.ln0",
    "GLU_0.LayerNorm_1": "glu.ln1",
    "GLU_0.Dense_0": "glu.fc0",
    "GLU_0.Dense_1": "glu.fc1",
    "GLU_0.Dense_2": "glu.fc2",
    "LayerNorm_0": "pre_self_attn_layer_norm",
    "LayerNorm_1": "self_attn_layer_norm",
    "LayerNorm_2": "pre_encoder_attn_layer_norm",
    "LayerNorm_3": "encoder_attn_layer_norm",
}


def merge(encoder: SourceCheckpoint, decoder: SourceCheckpoint) -> SourceCheckpoint:
    """Join min-dalle's two files, with "encoder." and "decoder." as prefixes of the names.

    BadInput when a file is not the half that it should be.
    """
    for original, half in ((encoder, "encoder"), (decoder, "decoder")):
        if _half(original.tensors) != half:
            contents = _half(original.tensors) or Message("models.other_names")
            raise BadInput("models.not_this_half", file=original.file, half=half, found=contents)
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.tensors.items()}
    tensors |= {f"decoder.{name}": tensor for name, tensor in decoder.tensors.items()}
    return SourceCheckpoint(
        f"{encoder.file} and {decoder.file}", tensors, {**encoder.metadata, **decoder.metadata}
    )


def convert(original: SourceCheckpoint) -> Converted:
    """Convert dalle-mini's Flax tree, or the result of `merge`, to kind "dalle-mini".

    The number of heads is `encoder_attention_heads` in the metadata, as in dalle-mini's config.json, or else width / 64.
    The start token is `decoder_start_token_id`, or else 16384, the number of the VQGAN's codes, as in both released
    configs; in a smaller table it is the last row. (min-dalle begins mega with the last row, 16415, which training never
    used: its table is padded to a multiple of 32 rows.) BadInput when the file is not such a model, or one half of it.
    """
    tensors = _from_flax(original) if "lm_head.kernel" in original.tensors else dict(original.tensors)
    if "decoder.lm_head.weight" not in tensors or "encoder.embed_tokens.weight" not in tensors:
        half = _half(tensors)
        contents = Message("models.only_half", {"half": half}) if half else Message("models.other_names")
        raise BadInput("models.not_both_halves", file=original.file, found=contents)
    config = _config(original, tensors)
    shapes = _shapes(config)
    for name in shapes:
        if name not in tensors and WITHOUT_SCALE.fullmatch(name.partition(".")[2]):
            tensors[name] = torch.ones(shapes[name], dtype=tensors["decoder.lm_head.weight"].dtype)
    for name in sorted(shapes.keys() | tensors.keys()):
        expected, shape = shapes.get(name), tuple(tensors[name].shape) if name in tensors else None
        if expected != shape:
            raise BadInput(
                "models.not_dalle_mini",
                file=original.file,
                name=name,
                expected=expected or ABSENT,
                found=shape or ABSENT,
            )
    return Converted("dalle-mini", config.to_dict(), _fused(config, tensors))


def _half(tensors: dict[str, Tensor]) -> str:
    """Which of min-dalle's files has these tensors: "encoder", "decoder", or "" for neither."""
    if "embed_tokens.weight" not in tensors:
        return ""
    return "decoder" if "lm_head.weight" in tensors else "encoder"


def _from_flax(original: SourceCheckpoint) -> dict[str, Tensor]:
    """Flax names to min-dalle's: layers are stacked on axis 0, kernels are transposed, a norm's weight is its "scale"."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in original.tensors.items():
        name = name.removeprefix("model.").replace("lm_head.", "decoder.lm_head.")
        if name.endswith(".kernel") and tensor.ndim > 1:
            tensor = tensor.mT
        name = re.sub(r"\.(kernel|scale|embedding)$", ".weight", name)
        stacked = re.fullmatch(r"(encoder|decoder)\.layers\.FlaxBart(En|De)coderLayers\.(.+)\.(\w+)", name)
        if not stacked or not tensor.ndim:
            tensors[name] = tensor
            continue
        side, _, module, kind = stacked.groups()
        for published, ours in FLAX.items():
            if module == published or module.startswith(published + "."):
                module = ours + module.removeprefix(published)
                break
        for number, layer in enumerate(tensor):
            tensors[f"{side}.layers.{number}.{module}.{kind}"] = layer
    return tensors


def _config(original: SourceCheckpoint, tensors: dict[str, Tensor]) -> DalleMiniConfig:
    """Sizes, from shapes."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors or tensors[name].ndim != 2:
            raise BadInput("models.dalle_mini_lacks", file=original.file, name=name)
        return tuple(tensors[name].shape)

    text_vocabulary, width = shape("encoder.embed_tokens.weight")
    image_length = shape("decoder.embed_positions.weight")[0]
    token_count = shape("decoder.embed_tokens.weight")[0]
    if math.isqrt(image_length) ** 2 != image_length:
        raise BadInput(
            "models.not_square",
            file=original.file,
            image_length=image_length,
            square=math.isqrt(image_length) ** 2,
        )
    heads = original.metadata.get(
        "encoder_attention_heads", width // HEAD_SIZE if not width % HEAD_SIZE else None
    )
    if not str(heads).isdecimal() or not int(heads) or width % int(heads):
        raise BadInput("models.heads_do_not_divide", file=original.file, width=width, heads=heads)
    start = original.metadata.get("decoder_start_token_id", min(CODE_COUNT, token_count - 1))
    if type(start) is not int or not 0 < start < token_count:
        raise BadInput("models.start_token", file=original.file, start=start, count=token_count)
    counts = {side: _layer_count(side, tensors) for side in SIDES}
    return DalleMiniConfig(
        text_vocabulary=text_vocabulary,
        image_vocabulary=min(CODE_COUNT, start),
        start_token=start,
        text_length=shape("encoder.embed_positions.weight")[0],
        grid=math.isqrt(image_length),
        width=width,
        inner_width=shape("decoder.layers.0.glu.fc0.weight")[0],
        encoder_layer_count=counts["encoder"],
        decoder_layer_count=counts["decoder"],
        head_count=int(heads),
        token_rows=token_count,
    )


def _layer_count(side: str, tensors: dict[str, Tensor]) -> int:
    return len({name.split(".")[2] for name in tensors if re.match(rf"{side}\.layers\.\d+\.", name)})


def _shapes(config: DalleMiniConfig) -> dict[str, tuple[int, ...]]:
    """Every name of min-dalle -> its shape."""
    width, inner, tokens = config.width, config.inner_width, config.table_size
    shapes: dict[str, tuple[int, ...]] = {"decoder.lm_head.weight": (tokens, width)}
    sizes = {
        "encoder": (config.text_vocabulary, config.text_length, config.encoder_layer_count),
        "decoder": (tokens, config.image_length, config.decoder_layer_count),
    }
    matrices = {"glu.fc0": (inner, width), "glu.fc1": (inner, width), "glu.fc2": (width, inner)}
    for side, (vocabulary, length, layer_count) in sizes.items():
        shapes[f"{side}.embed_tokens.weight"] = (vocabulary, width)
        shapes[f"{side}.embed_positions.weight"] = (length, width)
        norms = {"layernorm_embedding": width, "final_ln": width}
        for number in range(layer_count):
            for module in (module_name for published in LAYERS[side].values() for module_name in published):
                name = f"layers.{number}.{module}"
                if module in matrices or module.endswith("_proj"):
                    shapes[f"{side}.{name}.weight"] = matrices.get(module, (width, width))
                else:
                    norms[name] = inner if module == "glu.ln1" else width
        for name, size in norms.items():
            shapes[f"{side}.{name}.weight"] = shapes[f"{side}.{name}.bias"] = (size,)
    return shapes


def _fused(config: DalleMiniConfig, tensors: dict[str, Tensor]) -> Joined:
    """min-dalle's tensors, all present -> the tensors of `DalleMini`."""
    fused = {"image_head.weight": [tensors["decoder.lm_head.weight"][: config.image_vocabulary]]}
    for side, prefix in SIDES.items():
        fused[f"{prefix}_token.weight"] = [tensors[f"{side}.embed_tokens.weight"]]
        fused[f"{prefix}_position.weight"] = [tensors[f"{side}.embed_positions.weight"]]
        for kind in ("weight", "bias"):
            fused[f"{prefix}_norm_in.{kind}"] = [tensors[f"{side}.layernorm_embedding.{kind}"]]
            fused[f"{prefix}_norm_out.{kind}"] = [tensors[f"{side}.final_ln.{kind}"]]
        for number in range(_layer_count(side, tensors)):
            for ours, published in LAYERS[side].items():
                for kind in ("weight", "bias"):
                    names = [f"{side}.layers.{number}.{module}.{kind}" for module in published]
                    parts = [tensors[name] for name in names if name in tensors]  # matrices have no bias
                    if parts:
                        fused[f"{side}.{number}.{ours}.{kind}"] = parts
    return Joined(fused)


def write_tokenizer(source: Path, target: Path) -> None:
    """Convert a published vocabulary, with its merges in the same folder, to a tokenizer.json at `target`.

    BadInput when the file is not such a vocabulary. CannotSave when `target` cannot be written.
    """
    write_atomically(target, DalleMiniTokenizer.load(source).vocabulary.to_str().encode())
