"""Reference code of CLIP's published forms, and random weights in them."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.models.checkpoint import load_weights
from pipelines.models.chinese_clip.network import ChineseClip, ChineseClipConfig
from pipelines.models.openai_clip.convert import (
    tokenizer_from_merges,
    tokenizer_from_words,
)
from pipelines.models.openai_clip.network import DEVIATION, MEAN, OpenaiClip, OpenaiClipConfig
from pipelines.models.openai_clip.tokenizer import ClipTokenizer, WordPieceTokenizer
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.convert import convert_originals

PROMPTS = ["a watercolor of a fox", "Ein schöner Tag, 3 °C", "红心 🎨", "", "very " * 100 + "long"]


WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"一只红色的心狐狸画",
    "fox",
    "##es",
    "a",
    "un",
    "##known",
    ",",
    "3",
]


def load_alone(package: str, file: str, name: str) -> Any:
    """One file of an installed package, without the package's own beginning, which may ask for torchvision."""
    package_spec = importlib.util.find_spec(package)
    assert package_spec is not None
    assert package_spec.submodule_search_locations is not None
    path = Path(package_spec.submodule_search_locations[0]) / file
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@cache
def openai_code() -> Any:
    return load_alone("clip", "model.py", "reference_clip_model")


@cache
def simple_tokenizer() -> Any:
    return load_alone("clip", "simple_tokenizer.py", "reference_clip_tokenizer").SimpleTokenizer()


@cache
def open_clip_code() -> Any:
    """open_clip's model.py; what it takes from files that need torchvision or timm is not used by these towers."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    package = types.ModuleType("reference_open_clip")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules[package.__name__] = package
    for name, values in {
        "utils": {"to_2tuple": lambda x: (x, x), "freeze_batch_norm_2d": None, "feature_take_indices": None},
        "hf_model": {"HFTextEncoder": None},
        "timm_model": {"TimmModel": None},
    }.items():
        module = types.ModuleType(f"{package.__name__}.{name}")
        vars(module).update(values)
        sys.modules[module.__name__] = module
    return load_alone("open_clip", "model.py", f"{package.__name__}.model")


def shuffled(network: nn.Module, seed: int = 0) -> Any:
    """Random weights for everything, norms and biases too, which begin as 0 or 1 and would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point() or name.endswith("attn_mask"):
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + noise.abs())
            elif name == "logit_scale":
                value.copy_(2.0 + noise)
            elif "embedding" in name:
                value.copy_(0.5 * noise)
            elif value.dim() > 1:
                value.copy_(noise * 1.5 * value[0].numel() ** -0.5)
            else:
                value.add_(0.3 * noise)
    return network.float().eval()


def openai_vit(vocabulary_size: int = 300, context_length: int = 13) -> Any:
    return shuffled(
        openai_code().CLIP(24, 35, 3, 128, 7, context_length, vocabulary_size, 64, 1, 2)
    )  # 5 x 5 patches


def openai_resnet() -> Any:
    return shuffled(openai_code().CLIP(24, 96, (2, 1, 3, 1), 16, None, 9, 200, 128, 2, 3))


def transformers_clip(activation: str, **sizes: int) -> Any:
    from transformers import CLIPConfig, CLIPModel

    layers = {"hidden_act": activation, "num_hidden_layers": 2} | sizes
    config = CLIPConfig(
        projection_dim=20,
        text_config=layers | {"vocab_size": 120, "max_position_embeddings": 11, "eos_token_id": 119},
        vision_config=layers | {"image_size": 27, "patch_size": 9},
    )
    return shuffled(CLIPModel(config))


def chinese_clip() -> Any:
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    sizes = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80}
    config = ChineseCLIPConfig(
        projection_dim=20,
        text_config=sizes | {"num_hidden_layers": 3, "vocab_size": len(WORDS), "max_position_embeddings": 60},
        vision_config=sizes | {"num_hidden_layers": 2, "image_size": 24, "patch_size": 6},
    )
    return shuffled(ChineseCLIPModel(config))


@cache
def table() -> Path:
    spec = importlib.util.find_spec("clip")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"


@cache
def book() -> ClipTokenizer:
    return ClipTokenizer(tokenizer_from_merges(gzip.decompress(table().read_bytes()).decode().split("\n")))


@cache
def chinese_book() -> WordPieceTokenizer:
    return WordPieceTokenizer(tokenizer_from_words(WORDS))


def ours(original: SourceCheckpoint, folder: Path) -> Any:
    """Converted, written as safetensors, read back into our network."""
    converted = convert_originals([original], "clip")
    path = folder / "ours.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in converted.tensors.items()}, path)
    values = json.loads(json.dumps(converted.config))
    network: nn.Module
    if converted.kind == "openai-clip":
        network = OpenaiClip(OpenaiClipConfig.from_dict(values), book())
    else:
        assert converted.kind == "chinese-clip"
        network = ChineseClip(ChineseClipConfig.from_dict(values), chinese_book())
    load_weights(path, network)
    return network.eval()


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max())


def pictures(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5)) * 2 - 1


def normalized(images: Tensor) -> Tensor:
    return ((images + 1) / 2 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)


def texts(vocabulary_size: int, length: int) -> Tensor:
    """Two texts of different lengths; the largest id ends them, 0 fills up."""
    tokens = torch.randint(1, vocabulary_size - 1, (2, length), generator=torch.Generator().manual_seed(6))
    tokens[0, 4], tokens[0, 5:], tokens[1, -1] = vocabulary_size - 1, 0, vocabulary_size - 1
    return tokens


def features(output: Any) -> Tensor:
    return output if torch.is_tensor(output) else output.pooler_output


def assert_same_images(clip: Any, reference: Any, prepared: Callable[[Tensor], Tensor] = normalized) -> None:
    """Features; and the gradient that reaches the pixels, in float64 where there are ReLUs, since those have an edge."""

    def expected(x: Tensor) -> Tensor:
        hugging = hasattr(reference, "get_image_features")
        return reference.get_image_features(x).pooler_output if hugging else reference.encode_image(x)

    images = pictures(clip.config.image_size)
    assert close(clip.image_features(clip.prepare(images)), expected(prepared(images)))
    gradients = []
    direction = torch.randn(clip.config.embedding_size, generator=torch.Generator().manual_seed(7))
    dtype = torch.float64 if clip.config.image_block_counts else torch.float32
    for network in (clip, reference):
        network.to(dtype)
    for encode in (clip.encode_image, lambda x: F.normalize(expected(clip.prepare(x).to(dtype)), dim=-1)):
        pixels = images.clone().requires_grad_()
        (encode(pixels) * direction).sum().backward()
        gradients.append(pixels.grad)
    for network in (clip, reference):
        network.float()
    assert gradients[1].abs().max() > 1e-4
    assert close(*gradients)
