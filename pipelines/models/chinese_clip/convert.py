"""Converts the published Chinese CLIPs, in the layout of transformers, with helpers of `openai_clip.convert`.

Where the file names no activation, the default of transformers is taken, and the config's `note` records it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from pipelines.models.chinese_clip.network import ChineseClip, ChineseClipConfig
from pipelines.models.openai_clip.convert import (
    UNNAMED,
    bared,
    count,
    image_sizes,
    no_clip,
    renamed,
    shape,
    told_activation,
    told_heads,
)
from pipelines.models.openai_clip.tokenizer import WordPieceTokenizer
from pipelines.models.source import Converted, SourceCheckpoint, checked

WORDS = "text_model.embeddings.word_embeddings.weight"  # a name that only this family has


def convert(original: SourceCheckpoint) -> Converted:
    """Convert a ChineseCLIPModel of transformers to kind "chinese-clip"; names stay. BadInput for any other file."""
    original, _ = bared(original)
    if WORDS not in original.tensors:
        raise no_clip(original)
    tensors = {
        f"network.{name}": value
        for name, value in original.tensors.items()
        if not name.startswith("text_model.pooler.") and name != "logit_scale"
    }
    if "logit_scale" in original.tensors:
        tensors["log_scale"] = original.tensors["logit_scale"].squeeze()
    image_activation, stated = told_activation(original, "vision", "quick_gelu")
    text_config: dict[str, Any] = original.metadata.get("text_config") or {}
    text_activation: str = text_config.get("hidden_act", "gelu")
    text = "text_model.embeddings."
    vocabulary_size, text_width = shape(original, WORDS, 2)
    config = ChineseClipConfig(
        **image_sizes(renamed(original)),
        embedding_size=shape(original, "text_projection.weight", 2)[0],
        text_width=text_width,
        text_layer_count=count(original, "text_model.encoder.layer."),
        text_head_count=told_heads(original, "text", text_width),
        text_inner_width=shape(original, "text_model.encoder.layer.0.intermediate.dense.weight", 2)[0],
        vocabulary_size=vocabulary_size,
        position_count=shape(original, f"{text}position_embeddings.weight", 2)[0],
        type_count=shape(original, f"{text}token_type_embeddings.weight", 2)[0],
        image_activation=image_activation,
        text_activation=text_activation,
        note="" if stated else f"{UNNAMED} transformers' default was taken",
    )
    config = replace(config, context_length=min(config.context_length, config.position_count))
    return checked(
        "chinese-clip",
        original,
        ChineseClipConfig,
        config.to_dict(),
        lambda clip_config: ChineseClip(clip_config, cast(WordPieceTokenizer, None)),
        tensors,
    )
