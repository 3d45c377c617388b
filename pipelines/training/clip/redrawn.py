"""Icons that the pack's prior has noised part of the way and drawn again under their name, for CLIP to learn from.

They are wrong as pictures by this network are wrong, and still show what their name says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from pipelines.core.generators import finished
from pipelines.io.files import write_atomically
from pipelines.models.checkpoint import file_hash, load_weights, read_header
from pipelines.models.latent_diffusion import Known, walk
from pipelines.models.prior.diffusion import PriorDiffusion
from pipelines.models.prior.network import Prior, PriorConfig
from pipelines.training.data.captions import name_in_words
from pipelines.training.data.compositing import to_images
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.frozen import load_clip, load_codec

STEPS = 10  # from noise alone; a picture that is noised to t makes the share t of them
STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7)
BATCH = 32


@dataclass(frozen=True)
class RedrawnIcons:
    """Latents (icons, c, h, w) float16 of the training icons on white, drawn again, in the order of `emoji.train`."""

    diffusion: PriorDiffusion
    latents: Tensor

    @classmethod
    def of(
        cls, pack: Path, emoji: Dataset, folder: Path, device: torch.device, seed: int = 0
    ) -> RedrawnIcons:
        """Those by the prior, codec and CLIP of a pack; made once, and kept in `folder`."""
        diffusion = _prior_of(pack, device)
        name = f"redrawn-{file_hash(pack / 'prior.safetensors')[:12]}-{emoji.hash}-{seed}.safetensors"
        path = folder / name
        if not path.exists():
            write_atomically(path, save({"latents": _drawn_again(diffusion, emoji, seed)}))
        return cls(diffusion, load_file(path)["latents"])

    def decode(self, latents: Tensor) -> Tensor:
        """Rows of `latents` (n, c, h, w) -> pictures (n, 3, s, s) in [-1, 1]."""
        with torch.no_grad():
            return self.diffusion.decode(latents.float()).clamp(-1, 1)


@torch.no_grad()
def _drawn_again(model: PriorDiffusion, emoji: Dataset, seed: int) -> Tensor:
    rng, parts = np.random.default_rng((seed, 5)), []
    side, guidance = model.image_size, model.proposed_guidance
    for rows in np.array_split(emoji.train, -(-len(emoji.train) // BATCH)):
        latents = model.encode(to_images(on_background(emoji.rgba[rows])).to(model.device))
        names = [name_in_words(emoji.icons[k], rng) for k in rows]
        seeds = [int(number) for number in rng.integers(2**32, size=len(rows))]
        known = Known(latents, float(rng.choice(STRENGTHS)))
        condition = model.condition_of(["" for _ in names] + names)
        drawn = finished(walk(model, seeds, (side, side), condition, STEPS, guidance, known))
        parts.append(drawn.half().cpu())
    return torch.cat(parts).contiguous()


def _prior_of(pack: Path, device: torch.device) -> PriorDiffusion:
    prior = Prior(PriorConfig.from_dict(read_header(pack / "prior.safetensors")[0]))
    load_weights(pack / "prior.safetensors", prior)
    prior.eval().requires_grad_(False).to(device)
    return PriorDiffusion(prior, load_codec(pack / "codec.safetensors", device), load_clip(pack, device))
