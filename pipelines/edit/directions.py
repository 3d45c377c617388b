"""Directions: LoRA adapters (Hu et al. 2022) of a diffusion model as small files, and copies of a model with adapters.

An adapter changes attention and convolutions. Its file is safetensors, with the two texts, the return step, the hashes of
the base model and of CLIP, the seed and figures as metadata. The adapters are those of peft.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from pipelines.core.settings import clean_prompt
from pipelines.errors import BadInput
from pipelines.io.files import bytes_to_uri, read_file_or_uri, write_atomically
from pipelines.io.tensors import header_of
from pipelines.io.values import is_dict
from pipelines.models.base import Denoiser
from pipelines.models.checkpoint import META_INIT_LOCK, canonical_bytes, network_hash
from pipelines.models.sampling import generator_of

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj")
MAX_BYTES = 32_000_000
MAX_RANK = 64
# facts that are text, and their length
TEXTS = {"source": 2000, "target": 2000, "base": 64, "clip": 200, "mode": 40}


@dataclass(frozen=True)
class Direction:
    """`tensors` are float16, by peft's names; `facts` are JSON values, with those of TEXTS, rank and return_step."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def rank(self) -> int:
        """The rank of the adapter."""
        return self.facts["rank"]

    @property
    def return_step(self) -> int:
        """The noise level that it was learned for, a step from 1 to 999."""
        return self.facts["return_step"]

    @property
    def words(self) -> str:
        """Source and target text in one line."""
        return f"{self.facts['source']} → {self.facts['target']}"

    def to_bytes(self) -> bytes:
        """The contents of the file. Equal directions give equal bytes."""
        adapter = {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.rank,
            "target_modules": sorted(TARGETS),
        }
        metadata = {
            "facts": json.dumps(self.facts, ensure_ascii=False, sort_keys=True),
            "lora_adapter_metadata": json.dumps(adapter),  # as diffusers names it
        }
        return canonical_bytes(
            save({name: tensor.contiguous() for name, tensor in self.tensors.items()}, metadata)
        )

    def save(self, path: str | Path) -> None:
        """Write the file atomically. BadInput unless the name ends in .safetensors; CannotSave when writing fails."""
        check_direction_name(path)
        write_atomically(path, self.to_bytes())

    def to_uri(self) -> str:
        """The contents of the file as a data URI, which `read_direction` accepts."""
        return bytes_to_uri(self.to_bytes())


def check_direction_name(path: str | Path) -> None:
    """BadInput unless the name ends in .safetensors."""
    if Path(path).suffix.lower() != ".safetensors":
        raise BadInput("edit.direction_suffix", path=str(path)[:80])


def read_direction(source: str | Path) -> Direction:
    """Read an untrusted direction from a path or a data URI. The header is checked before tensors are made.

    BadInput when it is too large, damaged, or not a direction that Edit saved.
    """
    data = read_file_or_uri(
        source,
        MAX_BYTES,
        missing=BadInput("edit.direction_missing", path=str(source)[:80]),
        too_large=BadInput("edit.direction_too_heavy", most=MAX_BYTES // 1_000_000),
        damaged=BadInput("edit.direction_uri_damaged"),
    )
    try:
        header = header_of(data)
    except ValueError:
        raise BadInput("edit.not_safetensors") from None
    metadata = header.pop("__metadata__", {})
    try:
        facts = json.loads(metadata["facts"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise BadInput("edit.direction_without_facts") from None
    if not is_dict(facts):
        raise BadInput("edit.direction_facts_form")
    for name, most in TEXTS.items():
        if not isinstance(facts.get(name), str) or len(facts[name]) > most:
            raise BadInput("edit.direction_text", field=name, most=most)
    for name in ("source", "target"):
        facts[name] = clean_prompt(facts[name])
    for name, most in (("rank", MAX_RANK), ("return_step", 999)):
        value = facts.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise BadInput("edit.direction_number", field=name, most=most)
    for name, entry in header.items():
        if not is_dict(entry) or entry.get("dtype") != "F16":
            raise BadInput("edit.direction_dtype", tensor=name[:60])
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise BadInput("edit.direction_damaged", reason=str(error)[:80]) from None
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise BadInput("edit.direction_not_finite")
    return Direction(tensors, facts)


class AdaptedUnet:
    """A copy of a denoiser with adapters, each with its own strength for every picture of a batch.

    It shares the denoiser's weights. At strength 0 its output is that of the denoiser, bit for bit.
    """

    def __init__(self, unet: Denoiser):
        shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
        self.unet = copy.deepcopy(unet, shared).requires_grad_(False)
        self.base = network_hash(unet)
        self.names: list[str] = []
        self.layers: list[Any] = []

    def new_adapter(self, rank: int, seed: int = 0) -> list[Tensor]:
        """Add a new adapter, initialized from the seed, without effect; returns its parameters, with gradients on."""
        self._inject(rank)
        generator = generator_of(seed)
        parameters: list[Tensor] = []
        for layer in self.layers:
            down, up = layer.lora_A[self.names[-1]], layer.lora_B[self.names[-1]]
            bound = 1 / math.sqrt(down.weight[0].numel())
            drawn = (torch.rand(down.weight.shape, generator=generator) * 2 - 1) * bound
            down.weight.data.copy_(drawn)
            up.weight.data.zero_()
            parameters += [down.weight, up.weight]
        return [parameter.requires_grad_(True) for parameter in parameters]

    def load_adapter(self, direction: Direction) -> None:
        """Add a saved direction. BadInput when it was learned on another base model."""
        if direction.facts["base"] != self.base:
            raise BadInput(
                "edit.direction_of_other_model",
                words=direction.words[:80],
                learned_on=direction.facts["base"][:12],
                base=self.base[:12],
            )
        self._inject(direction.rank)
        self.set_weights(direction.tensors)

    def set_weights(self, tensors: dict[str, Tensor]) -> None:
        """Set the weights of the adapter added last. BadInput when names or shapes differ from its own."""
        expected = {name: tensor.shape for name, tensor in self.tensors().items()}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if expected != shapes:
            odd = sorted(expected.items() ^ shapes.items(), key=str)[0][0]
            raise BadInput("edit.direction_does_not_fit", tensor=odd[:80])
        for name, parameter in self._parameters().items():
            parameter.data.copy_(tensors[name].to(parameter.dtype))

    def tensors(self) -> dict[str, Tensor]:
        """The weights of the adapter added last, float32, by peft's names."""
        return {name: parameter.detach() for name, parameter in self._parameters().items()}

    def set_strengths(self, strengths: list[Tensor]) -> None:
        """Set (n,) strengths for each adapter, in the order added: one for each picture of the next batches."""
        for layer in self.layers:
            convolves = isinstance(layer.base_layer, nn.Conv2d)
            per_picture = layer.base_layer in self._time_layers
            for name, strength in zip(self.names, strengths, strict=True):
                shape = (-1, 1, 1, 1) if convolves else (-1, 1) if per_picture else (-1, 1, 1)
                layer.scaling[name] = strength.view(shape)

    def noise_of(self, x: Tensor, step: int) -> Tensor:
        """(n, c, h, w) noisy x at a step -> the noise in it, the same shape; a NoisePredictor of `ddim`."""
        return self.unet(x, torch.full((len(x),), step, device=x.device))

    def _inject(self, rank: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=list(TARGETS), lora_dropout=0.0, bias="none"
        )
        self.names.append(f"direction{len(self.names)}")
        with META_INIT_LOCK, cast(Any, torch.random).fork_rng(devices=[]), warnings.catch_warnings():
            # several adapters are meant; the weights that peft draws are replaced
            warnings.simplefilter("ignore")
            inject_adapter_in_model(config, self.unet.network, self.names[-1])
        self.layers = [module for module in self.unet.modules() if isinstance(module, LoraLayer)]
        for layer in self.layers:
            layer._active_adapter = list(self.names)
        self.unet.requires_grad_(False)
        self.unet.eval()
        self._time_layers = {
            layer.base_layer
            for name, layer in self.unet.named_modules()
            if name.endswith("time_emb_proj") and isinstance(layer, LoraLayer)
        }

    def _parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the adapter added last, by the names that peft writes into files."""
        mark = f".{self.names[-1]}."
        return {
            name.replace(mark, "."): parameter
            for name, parameter in self.unet.network.named_parameters()
            if mark in name
        }
