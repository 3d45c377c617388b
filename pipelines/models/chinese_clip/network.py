"""Chinese CLIP (Yang et al. 2022): a Vision Transformer, and a Chinese BERT as the text tower.

The network is the one of transformers; this file gives it the methods of the Clip role.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from pipelines.models.openai_clip.network import OpenaiClipConfig, TransformersClip
from pipelines.models.openai_clip.tokenizer import WordPieceTokenizer


@dataclass(frozen=True)
class ChineseClipConfig(OpenaiClipConfig):
    """Sizes of both towers. `context_length` is that of training; the BERT has `position_count` positions."""

    context_length: int = 52
    vocabulary_size: int = 21128
    text_activation: str = "gelu"
    position_count: int = 512
    type_count: int = 2


class ChineseClip(TransformersClip):
    """The ChineseCLIPModel of transformers as a Clip. `log_scale` is its temperature."""

    def __init__(self, config: ChineseClipConfig, tokenizer: WordPieceTokenizer):
        from transformers import ChineseCLIPConfig, ChineseCLIPModel

        super().__init__(config, tokenizer)
        text = {
            **self.sizes_of_text_tower(config),
            "max_position_embeddings": config.position_count,
            "type_vocab_size": config.type_count,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
        vision = self.sizes_of_image_tower(config)
        self.network = ChineseCLIPModel(
            ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=config.embedding_size)
        )
        del self.network.logit_scale

    def text_features(self, tokens: Tensor) -> Tensor:
        """(n, t) token ids, 0 as padding, which is masked -> (n, d), not normalized."""
        network = cast(Any, self.network)
        return network.get_text_features(input_ids=tokens, attention_mask=tokens != 0).pooler_output
