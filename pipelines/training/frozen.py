"""Networks of a pack on which other trainings stand, frozen: its CLIP, its critic and its codecs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.models.checkpoint import codes_hash, load_weights, read_codes, read_header, read_kind
from pipelines.models.clip.network import Clip, ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.models.spec import SPECS


def load_clip(pack: Path, device: torch.device, name: str = "clip") -> Clip:
    """The CLIP of a pack, or its critic, frozen, in evaluation mode."""
    file = pack / f"{name}.safetensors"
    clip = Clip(ClipConfig.from_dict(read_header(file)[0]), Tokenizer.load(pack / "tokenizer.json"))
    load_weights(file, clip)
    return clip.eval().requires_grad_(False).to(device)


def load_codec(file: Path, device: torch.device) -> Any:
    """The codec of a checkpoint, frozen, in evaluation mode: a Vqgan, or a Dvae where the file says so."""
    spec = SPECS[read_kind(file) or "vqgan"]
    codec = spec.part("network")(spec.part("config").from_dict(read_header(file)[0]))
    load_weights(file, codec)
    return codec.eval().requires_grad_(False).to(device)


def codec_learned(file: Path) -> tuple[Tensor, dict[str, str]]:
    """The code book (k, c) float32 of a codec's checkpoint, and what a network that learns with it notes of it.

    BadInput when the file has none that can be read.
    """
    if (codes := read_codes(file)) is None:
        raise BadInput("models.weights_damaged", file=file.name, reason="codes")
    return codes.float(), {"file": file.name, "codes": codes_hash(codes)}
