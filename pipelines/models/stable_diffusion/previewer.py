"""Previews by a tiny decoder (TAESD, Ollin Boer Bohan 2023), which reads the normalized latents of a codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipelines.errors import BadInput, one_line
from pipelines.models.checkpoint import check_finite
from pipelines.models.stable_diffusion.load import UNREADABLE


class TinyDecoder(nn.Module):
    """An AutoencoderTiny of diffusers, of which only the decoder is used."""

    only_shows = True  # what it makes is looked at and not kept, so it is no part of a run's environment

    def __init__(self, vae: Any):
        super().__init__()
        self.vae = vae

    @property
    def latent_channels(self) -> int:
        """Numbers per latent that it reads."""
        return self.vae.config.latent_channels

    def decode(self, latents: Tensor) -> Tensor:
        """Normalized latents (n, c, h, w) -> (n, 3, 8 h, 8 w) float32, about [-1, 1]."""
        return self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0].float()


def load_previewer(folder: Path, device: torch.device) -> TinyDecoder:
    """The decoder in a local folder of diffusers, frozen. Nothing is downloaded, and no pickle is opened.

    BadInput when the folder holds no such decoder, or weights that are not finite.
    """
    import diffusers

    try:
        kind: Any = cast(Any, diffusers).AutoencoderTiny
        vae: Any = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except UNREADABLE as error:
        raise BadInput("diffuse.preview_damaged", model=folder.name, reason=one_line(error, 120)) from None
    decoder = TinyDecoder(vae).eval().requires_grad_(False)
    check_finite(dict(vae.named_parameters()), folder.name)
    return decoder.to(device)
