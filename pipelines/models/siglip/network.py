"""SigLIP 2 (Tschannen et al. 2025): a CLIP of many languages, trained with a sigmoid for each pair of picture and text.

The network is SiglipModel of transformers, for square pictures of one size. This file gives it the methods of the Clip
role.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.openai_clip.network import OpenaiClipConfig, TransformersClip
from pipelines.models.siglip.tokenizer import SiglipTokenizer


@dataclass(frozen=True)
class SiglipConfig(OpenaiClipConfig):
    """Sizes of both towers. The activation of both is GELU's approximation by tanh."""

    context_length: int = 64
    vocabulary_size: int = 256_000
    image_activation: str = "gelu_pytorch_tanh"
    text_activation: str = "gelu_pytorch_tanh"


class Siglip(TransformersClip):
    """The SiglipModel of transformers as a Clip.

    `log_scale` and `bias` make a probability of a cosine: sigmoid(exp(log_scale) * cosine + bias). Ranking and guidance
    need the cosine only, whose order is the same.
    """

    def __init__(self, config: SiglipConfig, tokenizer: SiglipTokenizer):
        from transformers import SiglipConfig as TheirConfig
        from transformers import SiglipModel

        super().__init__(config, cast(Any, tokenizer))
        self.bias = nn.Parameter(torch.tensor(-10.0))
        text = {
            **self.sizes_of_text_tower(config),
            "max_position_embeddings": config.context_length,
            "projection_size": config.embedding_size,
        }
        vision = self.sizes_of_image_tower(config)
        self.network = SiglipModel(TheirConfig(text_config=text, vision_config=vision))
        del self.network.logit_scale, self.network.logit_bias

    def tokenize(self, prompts: list[str]) -> Tensor:
        """List of n texts -> (n, context_length) token ids with an end, cut, and padded to the whole length.

        The state at the last place is the text's, so padding is part of what the network reads.
        """
        book, length = self.tokenizer, self.config.context_length
        tokens = torch.full((len(prompts), length), SiglipTokenizer.padding, dtype=torch.long)
        for row, prompt in zip(tokens, prompts, strict=True):
            ids = [*book.encode(prompt)[: length - 1], book.end]
            row[: len(ids)] = torch.tensor(ids)
        return tokens.to(self.device)

    def prepare(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] of any size -> (n, 3, s, s) float32 in [-1, 1].

        Squares of the tower's size are not resized; others are, bilinear with antialiasing, as published.
        """
        size, images = (self.config.image_size, self.config.image_size), images.float()
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)

    def text_features(self, tokens: Tensor) -> Tensor:
        """(n, context_length) token ids -> (n, d), not normalized. Padding is not masked."""
        return cast(Any, self.network).get_text_features(input_ids=tokens).pooler_output
