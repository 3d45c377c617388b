"""Converts the published CLIPs, in the three layouts that they have, and their vocabularies.

A network's activation does not follow from its shapes. OpenAI's archives have QuickGELU; elsewhere the `metadata` may
state it, flat or as the config.json of transformers or open_clip ("hidden_act", or "quick_gelu" true or false), and so may
"quickgelu" in the file's name. Otherwise a default is taken, and the config's `note` records it: "quick_gelu" for the
layout of transformers and a bare .pt of OpenAI's names, "gelu" for open_clip's safetensors, .bin and training checkpoints.
The metadata may also hold "num_attention_heads", "heads" or "head_width"; else heads are as wide as in published models.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from pipelines.errors import BadInput, Message
from pipelines.io.files import write_atomically
from pipelines.io.values import is_dict
from pipelines.models.openai_clip.network import OpenaiClip, OpenaiClipConfig
from pipelines.models.openai_clip.tokenizer import END, START, ClipTokenizer, WordPieceTokenizer
from pipelines.models.source import Converted, SourceCheckpoint, checked

# buffers of some versions, which follow from the rest
IDLE = ("position_ids", "attn_mask", "num_batches_tracked")
# kept among the tensors of its archives
OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
# image towers H, g and G; 64 in all others, and in all text towers
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
UNNAMED = "the file does not name its activation;"

# Parts of names, transformers' and OpenAI's; applied in this order.
TRANSFORMERS_NAMES = (
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding", "visual.conv1"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm", "visual.ln_pre"),
    ("vision_model.post_layernorm", "visual.ln_post"),
    ("vision_model.encoder.layers", "visual.transformer.resblocks"),
    ("text_model.embeddings.token_embedding", "token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.encoder.layers", "transformer.resblocks"),
    ("text_model.final_layer_norm", "ln_final"),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn", "attn"),
)

# What tells relatives apart that are not supported: a key's beginning, and what it is.
UNSUPPORTED = (
    ("visual.trunk.", Message("models.timm_tower")),
    ("text.transformer.embeddings.", Message("models.transformers_tower")),
    ("text.transformer.encoder.", Message("models.transformers_tower")),
    ("text.transformer.shared.", Message("models.transformers_tower")),
    ("text_decoder.", Message("models.coca")),
    ("visual.attn_pool.", Message("models.attentional_pooler")),
    ("bert.", Message("models.original_chinese_clip")),
)


def convert(original: SourceCheckpoint) -> Converted:
    """Convert a CLIP of OpenAI or open_clip, or a CLIPModel of transformers, to kind "openai-clip".

    BadInput when the file is none of these, or incomplete.
    """
    original, bare = bared(original)
    tensors = original.tensors
    if "text_model.embeddings.token_embedding.weight" in tensors:
        return convert_openai(renamed(original), "quick_gelu", f"{UNNAMED} transformers' default was taken")
    if "token_embedding.weight" in tensors or "text.token_embedding.weight" in tensors:
        if any(name in tensors for name in OPENAI_NUMBERS):
            return convert_openai(original, "quick_gelu", "")
        if original.file.endswith(".pt") and bare:
            return convert_openai(original, "quick_gelu", f"{UNNAMED} OpenAI's was taken")
        return convert_openai(original, "gelu", f"{UNNAMED} open_clip's default was taken")
    raise no_clip(original)


def bared(original: SourceCheckpoint) -> tuple[SourceCheckpoint, bool]:
    """The tensors without the prefixes of training checkpoints and without unused buffers; True if none had a prefix.

    BadInput for related models that are not supported.
    """
    tensors = {
        name.removeprefix("state_dict.").removeprefix("module."): value
        for name, value in original.tensors.items()
        if not name.endswith(IDLE)
    }
    for beginning, stranger in UNSUPPORTED:
        if any(name.startswith(beginning) for name in tensors):
            raise BadInput("models.clip_unsupported", file=original.file, kind=stranger)
    return replace(original, tensors=tensors), tensors.keys() <= original.tensors.keys()


def no_clip(original: SourceCheckpoint) -> BadInput:
    """The error for a file that has the names of no CLIP."""
    names = ", ".join(sorted(original.tensors)[:3]) or Message("models.nothing")
    return BadInput("models.not_a_clip", file=original.file, found=names)


def convert_openai(original: SourceCheckpoint, activation: str, note: str) -> Converted:
    """Convert from OpenAI's names. `activation` and `note` apply when the file states no activation.

    BadInput when a tensor is missing or has an unexpected shape.
    """
    tensors = {
        name.removeprefix("text."): value
        for name, value in original.tensors.items()
        if name not in OPENAI_NUMBERS
    }
    original = replace(original, tensors=tensors)
    image_activation, stated = told_activation(original, "vision", activation)
    text_activation, _ = told_activation(original, "text", image_activation)
    vocabulary_size, text_width = shape(original, "token_embedding.weight", 2)
    config = OpenaiClipConfig(
        **image_sizes(original),
        embedding_size=shape(original, "text_projection", 2)[1],
        text_width=text_width,
        text_layer_count=count(original, "transformer.resblocks."),
        text_head_count=told_heads(original, "text", text_width),
        text_inner_width=shape(original, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        image_activation=image_activation,
        text_activation=text_activation,
        context_length=shape(original, "positional_embedding", 2)[0],
        vocabulary_size=vocabulary_size,
        note="" if stated else note,
    )
    tensors = folded(original).tensors
    if "logit_scale" in tensors:
        tensors["log_scale"] = tensors.pop("logit_scale").squeeze()
    return checked(
        "openai-clip",
        original,
        OpenaiClipConfig,
        config.to_dict(),
        # names and shapes need no vocabulary
        lambda clip_config: OpenaiClip(clip_config, cast(ClipTokenizer, None)),
        tensors,
    )


# ---------------------------------------------------------------------------------------------------- sizes and facts


def shape(original: SourceCheckpoint, name: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor. BadInput when it is absent or does not have `rank` dimensions."""
    value = original.tensors.get(name)
    if value is None:
        raise BadInput("models.clip_tensor_missing", file=original.file, name=name, rank=rank)
    if value.dim() != rank:
        dimensions = tuple(value.shape)
        raise BadInput("models.clip_tensor_shape", file=original.file, name=name, shape=dimensions, rank=rank)
    return tuple(value.shape)


def count(original: SourceCheckpoint, beginning: str) -> int:
    """How many different numbers follow `beginning` in the names: layers, or a stage's blocks."""
    return len({n[len(beginning) :].split(".")[0] for n in original.tensors if n.startswith(beginning)})


def grid(original: SourceCheckpoint, name: str) -> int:
    """The side of the square grid of a position table (1 + side^2, width). BadInput when it is not square."""
    places = shape(original, name, 2)[0] - 1
    side = math.isqrt(max(places, 0))
    if side == 0 or side * side != places:
        raise BadInput("models.clip_not_square", file=original.file, name=name, places=places)
    return side


def image_sizes(original: SourceCheckpoint) -> dict[str, Any]:
    """The image tower's fields of the config, from OpenAI's names. BadInput when a tensor is missing."""
    if "visual.layer1.0.conv1.weight" in original.tensors:
        width = shape(original, "visual.layer1.0.conv1.weight", 4)[0]
        return {
            "image_size": 32 * grid(original, "visual.attnpool.positional_embedding"),
            "image_width": width,
            "image_head_count": told_heads(original, "vision", 32 * width),
            "image_block_counts": tuple(count(original, f"visual.layer{k}.") for k in (1, 2, 3, 4)),
        }
    width, _, patch, _ = shape(original, "visual.conv1.weight", 4)
    return {
        "image_size": patch * grid(original, "visual.positional_embedding"),
        "patch_size": patch,
        "image_width": width,
        "image_head_count": told_heads(original, "vision", width),
        "image_layer_count": count(original, "visual.transformer.resblocks."),
        "image_inner_width": shape(original, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
    }


def told(original: SourceCheckpoint, tower: str, *names: str) -> Any:
    """The first value among the plain values for a tower, "vision" or "text", under any of these names; None if absent."""
    top = original.metadata
    inner: dict[str, Any] = top.get("model_cfg") or {}
    for place in (top, inner):
        for section in (place.get(f"{tower}_config"), place.get(f"{tower}_cfg"), place):
            for name in names:
                if is_dict(section) and section.get(name) is not None:
                    return section[name]
    return None


def told_activation(original: SourceCheckpoint, tower: str, default: str) -> tuple[str, bool]:
    """A tower's activation, and whether the file states it. BadInput for one that is not supported."""
    activation = told(original, tower, "hidden_act")
    if activation is None and (quick := told(original, tower, "quick_gelu")) is not None:
        activation = "quick_gelu" if quick else "gelu"
    if activation is None and "quickgelu" in original.file.lower():
        activation = "quick_gelu"
    if activation not in (None, "quick_gelu", "gelu"):
        raise BadInput("models.clip_activation", file=original.file, activation=activation)
    return activation or default, activation is not None


def told_heads(original: SourceCheckpoint, tower: str, width: int) -> int:
    """The number of heads of a tower, as stated, or else as in the published models. BadInput when it does not divide."""
    heads = told(original, tower, "num_attention_heads", "heads")
    if heads is None:
        head_width = told(original, tower, "head_width") or (
            HEAD_WIDTHS.get(width, 64) if tower == "vision" else 64
        )
        heads = width / head_width
    if not isinstance(heads, (int, float)) or heads < 1 or width % heads:
        raise BadInput("models.clip_heads", file=original.file, tower=tower, width=width)
    return int(heads)


# ------------------------------------------------------------------------------------------------------ names to names


def renamed(original: SourceCheckpoint) -> SourceCheckpoint:
    """The names of transformers to OpenAI's: q, k and v in one tensor, and both projections transposed."""
    tensors: dict[str, Tensor] = {}
    for name, value in original.tensors.items():
        for theirs, ours in TRANSFORMERS_NAMES:
            name = name.replace(theirs, ours)
        tensors[name] = value
    for name in [name for name in tensors if ".attn.q_proj." in name]:
        names = [name.replace("q_proj", f"{letter}_proj") for letter in "qkv"]
        if (
            len({tensors[part].shape if part in tensors else part for part in names}) == 1
        ):  # else they fit no network
            tensors[name.replace("q_proj.", "in_proj_")] = torch.cat([tensors.pop(part) for part in names])
    for theirs, ours in (
        ("visual_projection.weight", "visual.proj"),
        ("text_projection.weight", "text_projection"),
    ):
        if theirs in tensors:
            tensors[ours] = tensors.pop(theirs).swapdims(0, -1)
    return replace(original, tensors=tensors)


def folded(original: SourceCheckpoint) -> SourceCheckpoint:
    """Fold every batch norm into the bias-free convolution before it: bn1 into conv1, downsample.1 into downsample.0."""
    tensors = dict(original.tensors)
    for mean_name in [name for name in tensors if name.endswith(".running_mean")]:
        norm = mean_name.removesuffix(".running_mean")
        conv = norm.replace(".bn", ".conv").replace("downsample.1", "downsample.0")
        parts = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        channels = shape(original, f"{conv}.weight", 4)[:1]
        if any(part not in tensors or tensors[part].shape != channels for part in parts):
            continue  # it fits no network
        gain, bias, mean, variance = (tensors.pop(part).double() for part in parts)
        gain = gain / (variance + 1e-5).sqrt()
        kernel = tensors.pop(f"{conv}.weight").double() * gain[:, None, None, None]
        conv = conv.removesuffix(".0") if "downsample" in conv else conv
        tensors[f"{conv}.weight"], tensors[f"{conv}.bias"] = kernel.float(), (bias - mean * gain).float()
    return replace(original, tensors=tensors)


# -------------------------------------------------------------------------------------------------------- vocabularies

OPENAI_MERGES = 49408 - 2 * 256 - 2
WORDS = r"(?i:<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def byte_letters() -> list[str]:
    """One printable character for each byte, in the order of OpenAI's table: printable bytes come first."""
    themselves = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in themselves]
    return [chr(byte) for byte in themselves] + [chr(256 + k) for k in range(len(others))]


def tokenizer_from_merges(
    lines: Iterable[str], vocabulary: dict[str, int] | None = None
) -> tokenizers.Tokenizer:
    """CLIP's tokenizer from the lines of OpenAI's table or of a merges.txt; the first line may name the version.

    Without a vocabulary, ids are OpenAI's: bytes, bytes that end a word, 48,894 merges, start, end. ValueError when a
    line is not a pair.
    """
    pairs = [line.split() for line in lines if line.strip() and "#version" not in line]
    if vocabulary is None:
        pairs = pairs[:OPENAI_MERGES]  # its table goes on, unused
    if not all(len(pair) == 2 for pair in pairs):
        raise ValueError("its merges are not pairs of pieces, one pair a line")
    merges = [(first, second) for first, second in pairs]
    if vocabulary is None:
        letters = byte_letters()
        names = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges), START, END]
        vocabulary = {name: k for k, name in enumerate(names)}
    book = tokenizers.Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    book.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    book.decoder = decoders.ByteLevel()
    cast(Any, book).add_special_tokens([START, END])
    return book


def tokenizer_from_words(lines: Iterable[str]) -> tokenizers.Tokenizer:
    """BERT's tokenizer, uncased, from the lines of a vocab.txt."""
    vocabulary = {line.rstrip("\r\n"): k for k, line in enumerate(lines)}
    book = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    book.normalizer = normalizers.BertNormalizer(lowercase=True)
    book.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    book.decoder = decoders.WordPiece()
    return book


def read_tokenizer(source: Path) -> tokenizers.Tokenizer:
    """Read a vocabulary in any published form, also gzipped.

    Forms are OpenAI's table, vocab.json with merges.txt in the same folder, tokenizer.json, and vocab.txt. Raises OSError,
    ValueError, or what the tokenizers library raises.
    """
    data = source.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    if not text.startswith("{"):
        lines = text.removesuffix("\n").split("\n")
        return tokenizer_from_words(lines) if "[CLS]" in lines else tokenizer_from_merges(lines)
    book = json.loads(text)
    if not isinstance(book.get("model"), dict):  # "model" is also a word of the vocabulary
        return tokenizer_from_merges(source.with_name("merges.txt").read_text("utf-8").split("\n"), book)
    vocabulary: dict[str, int] = book["model"]["vocab"]
    if "merges" not in book["model"]:
        return tokenizer_from_words(sorted(vocabulary, key=lambda name: vocabulary[name]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in book["model"]["merges"]]
    return tokenizer_from_merges(merges, vocabulary)


def write_tokenizer(source: Path, target: Path) -> None:
    """Convert a published vocabulary in any form to a tokenizer.json at `target`. BadInput when it is not one."""
    try:
        book = read_tokenizer(source)
        specials = WordPieceTokenizer if book.token_to_id("[CLS]") is not None else ClipTokenizer
        specials(book)
    except Exception as error:  # the library raises bare Exception
        raise BadInput("models.not_a_clip_vocabulary", file=source.name, reason=error) from error
    write_atomically(target, book.to_str().encode())
