"""Converts the published SigLIP 2 of one picture size, in the layout of transformers, and its vocabulary.

Heads are as stated in config.json, or else as in the published models. The variants for any picture size (NaFlex) and
the first SigLIP, whose vocabulary is another one, are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from pipelines.errors import BadInput, Message
from pipelines.io.files import write_atomically
from pipelines.models.openai_clip.convert import bared, count, no_clip, shape, told
from pipelines.models.siglip.network import Siglip, SiglipConfig
from pipelines.models.siglip.tokenizer import SiglipTokenizer, lower_cased
from pipelines.models.source import Converted, SourceCheckpoint, checked

HEAD_WIDTHS = {1152: 72, 1536: 96}  # of the towers so400m and g; 64 in all others
FIRST_VOCABULARY = 32_000  # tokens of the first SigLIP
PATCHES = "vision_model.embeddings.patch_embedding.weight"
PLACES = "vision_model.embeddings.position_embedding.weight"
WORDS = "text_model.embeddings.token_embedding.weight"


def convert(original: SourceCheckpoint) -> Converted:
    """Convert a SiglipModel of transformers to kind "siglip"; names stay. BadInput for any other file."""
    original, _ = bared(original)
    if PATCHES not in original.tensors or WORDS not in original.tensors:
        raise no_clip(original)
    if len(original.tensors[PATCHES].shape) == 2:
        raise BadInput("models.clip_unsupported", file=original.file, kind=Message("models.siglip_naflex"))
    vocabulary_size, text_width = shape(original, WORDS, 2)
    if vocabulary_size == FIRST_VOCABULARY:
        raise BadInput("models.clip_unsupported", file=original.file, kind=Message("models.siglip_first"))
    own = {"logit_scale": "log_scale", "logit_bias": "bias"}
    tensors = {own.get(name, f"network.{name}"): value for name, value in original.tensors.items()}
    for name in own.values():
        if name in tensors:
            tensors[name] = tensors[name].squeeze()
    layers = "text_model.encoder.layers."
    config = SiglipConfig(
        **_image_sizes(original),
        embedding_size=shape(original, "text_model.head.weight", 2)[0],
        text_width=text_width,
        text_layer_count=count(original, layers),
        text_head_count=_heads(original, "text", text_width),
        text_inner_width=shape(original, f"{layers}0.mlp.fc1.weight", 2)[0],
        context_length=shape(original, "text_model.embeddings.position_embedding.weight", 2)[0],
        vocabulary_size=vocabulary_size,
        image_activation=_activation(original, "vision"),
        text_activation=_activation(original, "text"),
    )
    return checked(
        "siglip",
        original,
        SiglipConfig,
        config.to_dict(),
        lambda clip_config: Siglip(clip_config, cast(SiglipTokenizer, None)),
        tensors,
    )


def _image_sizes(original: SourceCheckpoint) -> dict[str, Any]:
    """The image tower's fields. A stated size may be larger than its patches, which then leave out the rest."""
    width, _, patch, _ = shape(original, PATCHES, 4)
    places, layers = shape(original, PLACES, 2)[0], "vision_model.encoder.layers."
    side = round(places**0.5)
    size = told(original, "vision", "image_size") or side * patch
    if not isinstance(size, int) or side * side != places or size // patch != side:
        raise BadInput("models.clip_not_square", file=original.file, name=PLACES, places=places)
    return {
        "image_size": size,
        "patch_size": patch,
        "image_width": width,
        "image_head_count": _heads(original, "vision", width),
        "image_layer_count": count(original, layers),
        "image_inner_width": shape(original, f"{layers}0.mlp.fc1.weight", 2)[0],
    }


def _heads(original: SourceCheckpoint, tower: str, width: int) -> int:
    """The number of heads of a tower. BadInput when it does not divide the width."""
    heads = told(original, tower, "num_attention_heads") or width / HEAD_WIDTHS.get(width, 64)
    if not isinstance(heads, (int, float)) or heads < 1 or width % heads:
        raise BadInput("models.clip_heads", file=original.file, tower=tower, width=width)
    return int(heads)


def _activation(original: SourceCheckpoint, tower: str) -> str:
    """A tower's activation, which is the same in all published models. BadInput for another one."""
    usual = SiglipConfig.image_activation
    stated = told(original, tower, "hidden_act") or usual
    if stated != usual:
        raise BadInput("models.siglip_activation", file=original.file, activation=str(stated)[:40])
    return usual


def write_tokenizer(source: Path, target: Path) -> None:
    """Convert a published tokenizer.json to one that reads in lower case. BadInput when it is not Gemma's."""
    try:
        book = lower_cased(source.read_text("utf-8"))
        SiglipTokenizer(book)
    except Exception as error:  # the library raises bare Exception
        raise BadInput("models.not_a_siglip_vocabulary", file=source.name, reason=error) from error
    write_atomically(target, book.to_str().encode())
