"""The families of networks and vocabularies, one row each. A new family is one folder beside this file and one row here.

Rows name classes and functions as text, so that this file imports nothing heavy; `ModelSpec.part` imports them when asked.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelSpec:
    """One family. Names of classes and functions are "module.name" within the folder of the family; "" for none.

    A network's `convert` takes a SourceCheckpoint and returns a Converted. A vocabulary's takes the published file and
    the path to write. `merge` takes the two SourceCheckpoints of a model that is published in two files and returns one.
    """

    kind: str  # unique; what a converted file says it is. Files of the tiny pack do not say it
    role: str  # its part: clip, dalle, vqgan, unet, diffusion, preview, tokenizer, prior, matting or judge
    folder: str = ""  # in pipelines/models
    config: str = ""  # dataclass, a Config
    network: str = ""  # class, made from a config and, where the row names one, a tokenizer or a CLIP
    tokenizer: str = ""  # class that reads a vocabulary, of role tokenizer only
    # checkpoint whose vocabulary the network reads with, where it carries its own tokenizer
    vocabulary: str = ""
    # checkpoint of the CLIP whose text tower the network reads with, where it has none
    text_encoder: str = ""
    family: str = ""  # its name on the command line, `models add --family`; related kinds share one
    convert: str = ""
    merge: str = ""
    mark: str = ""  # tensor that, among the kinds of one family name, only files of this kind have
    half: str = ""  # torch's name of the type that it computes in on a GPU; "" for float32
    suffix: str = ".safetensors"  # of its files; "" for a folder

    def part(self, field: str) -> Any:
        """The class or function that a field names, imported now. AttributeError or ImportError when there is none."""
        module, _, name = getattr(self, field).rpartition(".")
        return getattr(importlib.import_module(f"pipelines.models.{self.folder}.{module}"), name)


# Where a family is not named, published files are offered to the converters in this order.
ROWS = (
    ModelSpec(
        kind="openai-clip",
        role="clip",
        folder="openai_clip",
        config="network.OpenaiClipConfig",
        network="network.OpenaiClip",
        vocabulary="clip-tokenizer",
        family="clip",
        convert="convert.convert",
        half="bfloat16",
    ),
    ModelSpec(
        kind="chinese-clip",
        role="clip",
        folder="chinese_clip",
        config="network.ChineseClipConfig",
        network="network.ChineseClip",
        vocabulary="clip-chinese-tokenizer",
        family="clip",
        convert="convert.convert",
        mark="text_model.embeddings.word_embeddings.weight",
        half="bfloat16",
    ),
    ModelSpec(
        kind="siglip",
        role="clip",
        folder="siglip",
        config="network.SiglipConfig",
        network="network.Siglip",
        vocabulary="siglip-tokenizer",
        family="clip",
        convert="convert.convert",
        mark="logit_bias",
        half="bfloat16",
    ),
    ModelSpec(
        kind="dalle-mini",
        role="dalle",
        folder="dalle_mini",
        config="network.DalleMiniConfig",
        network="network.DalleMini",
        family="dalle_mini",
        convert="convert.convert",
        merge="convert.merge",
        half="bfloat16",
    ),
    ModelSpec(
        kind="rudalle",
        role="dalle",
        folder="rudalle",
        config="network.RudalleConfig",
        network="network.Rudalle",
        family="rudalle",
        convert="convert.convert",
        half="bfloat16",
    ),
    ModelSpec(
        kind="dalle-pytorch",
        role="dalle",
        folder="dalle_pytorch",
        config="network.DallePytorchConfig",
        network="network.DallePytorch",
        family="dalle_pytorch",
        convert="convert.convert",
        half="bfloat16",
    ),
    ModelSpec(
        kind="dalle-pytorch-vae",
        role="vqgan",
        folder="dalle_pytorch",
        config="network.DiscreteVaeConfig",
        network="network.DiscreteVae",
        family="dalle_pytorch_vae",
        convert="convert.convert_vae",
    ),
    ModelSpec(
        kind="openai-dvae",
        role="vqgan",
        folder="openai_dvae",
        config="network.DvaeConfig",
        network="network.Dvae",
        family="dvae",
        convert="convert.convert",
        merge="convert.merge",
    ),
    ModelSpec(
        kind="taming-vqgan",
        role="vqgan",
        folder="taming_vqgan",
        config="network.TamingVqganConfig",
        network="network.TamingVqgan",
        family="vqgan",
        convert="convert.convert",
    ),
    ModelSpec(
        kind="ddpm",
        role="unet",
        folder="ddpm",
        config="network.DdpmConfig",
        network="network.Ddpm",
        family="ddpm",
        convert="convert.convert",
    ),
    # Vocabularies. One that the user added is offered to these readers in this order.
    ModelSpec(
        kind="clip-tokenizer",
        role="tokenizer",
        folder="openai_clip",
        tokenizer="tokenizer.ClipTokenizer",
        family="clip_tokenizer",
        convert="convert.write_tokenizer",
        suffix=".json",
    ),
    ModelSpec(
        kind="wordpiece-tokenizer",
        role="tokenizer",
        folder="openai_clip",
        tokenizer="tokenizer.WordPieceTokenizer",
        family="clip_tokenizer",
        convert="convert.write_tokenizer",
        suffix=".json",
    ),
    ModelSpec(
        kind="siglip-tokenizer",
        role="tokenizer",
        folder="siglip",
        tokenizer="tokenizer.SiglipTokenizer",
        family="siglip_tokenizer",
        convert="convert.write_tokenizer",
        suffix=".json",
    ),
    ModelSpec(
        kind="dalle-mini-tokenizer",
        role="tokenizer",
        folder="dalle_mini",
        tokenizer="tokenizer.DalleMiniTokenizer",
        family="dalle_mini_tokenizer",
        convert="convert.write_tokenizer",
        suffix=".json",
    ),
    ModelSpec(
        kind="rudalle-tokenizer",
        role="tokenizer",
        folder="rudalle",
        tokenizer="tokenizer.RudalleTokenizer",
        family="rudalle_tokenizer",
        convert="convert.write_tokenizer",
        suffix=".model",
    ),
    # Stable Diffusion: a folder of diffusers, kept as it is.
    ModelSpec(kind="diffusion", role="diffusion", family="diffusers", half="float16", suffix=""),
    # Rectified flows: such a folder too. Float16 does not hold the states of their language models.
    ModelSpec(kind="flow", role="diffusion", family="diffusers", half="bfloat16", suffix=""),
    # A tiny decoder of latents, such a folder too.
    ModelSpec(kind="taesd", role="preview", family="diffusers", suffix=""),
    # Trained by this project.
    ModelSpec(
        kind="clip",
        role="clip",
        folder="clip",
        config="network.ClipConfig",
        network="network.Clip",
        vocabulary="tiny-tokenizer",
    ),
    ModelSpec(
        kind="tokenizer", role="tokenizer", folder="clip", tokenizer="tokenizer.Tokenizer", suffix=".json"
    ),
    ModelSpec(
        kind="vqgan", role="vqgan", folder="vqgan", config="network.VqganConfig", network="network.Vqgan"
    ),
    ModelSpec(kind="dvae", role="vqgan", folder="vqgan", config="dvae.DvaeConfig", network="dvae.Dvae"),
    ModelSpec(
        kind="dalle", role="dalle", folder="dalle", config="network.DalleConfig", network="network.Dalle"
    ),
    ModelSpec(
        kind="dalle-semantic",
        role="dalle",
        folder="dalle_semantic",
        config="network.SemanticDalleConfig",
        network="network.SemanticDalle",
        text_encoder="tiny-clip",
    ),
    ModelSpec(
        kind="transformer",
        role="dalle",
        folder="transformer",
        config="network.TransformerConfig",
        network="network.Transformer",
    ),
    ModelSpec(kind="unet", role="unet", folder="unet", config="network.UnetConfig", network="network.Unet"),
    ModelSpec(
        kind="prior", role="prior", folder="prior", config="network.PriorConfig", network="network.Prior"
    ),
    ModelSpec(
        kind="matting",
        role="matting",
        folder="matting",
        config="network.MattingConfig",
        network="network.Matting",
    ),
    ModelSpec(
        kind="judge", role="judge", folder="judge", config="network.JudgeConfig", network="network.Judge"
    ),
)
SPECS: dict[str, ModelSpec] = {spec.kind: spec for spec in ROWS}


def families(*, vocabularies: bool = False) -> dict[str, list[ModelSpec]]:
    """The convertible rows by their name in `models add --family`, in table order; networks, or else vocabularies."""
    rows: dict[str, list[ModelSpec]] = {}
    for spec in SPECS.values():
        if spec.convert and (spec.role == "tokenizer") == vocabularies:
            rows.setdefault(spec.family, []).append(spec)
    return rows


def suffixes() -> list[str]:
    """The file suffixes of models, each once; "" stands for folders."""
    return list(dict.fromkeys(spec.suffix for spec in SPECS.values()))
