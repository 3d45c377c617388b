"""Converts OpenAI's dVAE: encoder.pkl and decoder.pkl, two pickled modules, to one network."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from pipelines.errors import BadInput
from pipelines.models.openai_dvae.network import Dvae, DvaeConfig
from pipelines.models.source import Converted, SourceCheckpoint, checked, count_of, shape_of, size_of

BLOCK = re.compile(
    r"blocks\.(?:group_(?P<group>[1-4])\.block_(?P<block>\d+)\.(?P<path>id_path|res_path\.conv_(?P<layer>[1-4]))"
    r"|(?P<end>input|output\.conv))\.(?P<kind>[wb])"
)


def merge(encoder: SourceCheckpoint, decoder: SourceCheckpoint) -> SourceCheckpoint:
    """Join both files, with "encoder." and "decoder." as prefixes of the names. BadInput when one is another file."""
    for original, kernel, part in ((encoder, 7, "encoder"), (decoder, 1, "decoder")):
        first = original.tensors.get("blocks.input.w")
        if first is None or first.ndim != 4 or first.shape[-1] != kernel:
            raise BadInput(
                "models.dvae_part", file=original.file, part=part, kernel=kernel, found=shape_of(first)
            )
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.tensors.items()}
    tensors |= {f"decoder.{name}": tensor for name, tensor in decoder.tensors.items()}
    return SourceCheckpoint(
        f"{encoder.file} and {decoder.file}", tensors, encoder.metadata | decoder.metadata
    )


def convert(original: SourceCheckpoint) -> Converted:
    """Convert the result of `merge` to kind "openai-dvae". BadInput when names or shapes do not fit.

    The weight and the bias of the decoder's first convolution become the table of codes.
    """
    tensors = original.tensors
    names = {
        "encoder_width": ("encoder.blocks.input.w", 0),
        "decoder_width": ("decoder.blocks.output.conv.w", 1),
        "code_count": ("decoder.blocks.input.w", 1),
        "code_size": ("decoder.blocks.input.w", 0),
    }
    sizes: dict[str, Any] = {field: size_of(original, name, axis) for field, (name, axis) in names.items()}
    for part in ("encoder", "decoder"):
        sizes[f"{part}_blocks"] = count_of(tensors, f"{part}.blocks.group_1.block_", first=1)
    ours: dict[str, Tensor] = {}
    table, bias = tensors["decoder.blocks.input.w"], tensors.get("decoder.blocks.input.b")
    if bias is not None and bias.shape == table.shape[:1]:
        ours["codes"] = table.flatten(1).T.float() + bias.float()
    for name, tensor in tensors.items():
        if not name.startswith("decoder.blocks.input."):
            part, _, rest = name.partition(".")
            ours[f"{part}.{_our_name(rest)}"] = tensor
    return checked("openai-dvae", original, DvaeConfig, sizes, Dvae, ours)


def _our_name(name: str) -> str:
    """A published name -> the name in `Encoder` or `Decoder`; an unknown name is returned unchanged."""
    match = BLOCK.fullmatch(name)
    if match is None:
        return name
    kind = {"w": "weight", "b": "bias"}[match["kind"]]
    if match["end"]:
        return f"{match['end'].removesuffix('.conv')}.{kind}"
    place = "shortcut" if match["path"] == "id_path" else f"convolutions.{int(match['layer']) - 1}"
    return f"groups.{int(match['group']) - 1}.{int(match['block']) - 1}.{place}.{kind}"
