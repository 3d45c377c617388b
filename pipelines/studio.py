"""The Studio owns the device and the loaded models. Ask twice, get the same object: that is why CLIP exists once."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.core.pipeline import Pipeline
from pipelines.diffuse.load import load_diffusers
from pipelines.diffuse.pipeline import Diffuse
from pipelines.edit.pipeline import Edit
from pipelines.edit.source_images import Examples
from pipelines.errors import BadInput
from pipelines.generate.pipeline import Generate
from pipelines.models.checkpoint import BUILDING, Config, file_hash, load_weights, read_header
from pipelines.models.chinese_clip.network import ChineseClip, ChineseClipConfig
from pipelines.models.clip.network import Clip, ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.models.dalle.network import Dalle, DalleConfig
from pipelines.models.dalle_mini.network import DalleMini, DalleMiniConfig
from pipelines.models.dalle_mini.tokenizer import DalleMiniTokenizer
from pipelines.models.dalle_pytorch.network import (
    DallePytorch,
    DallePytorchConfig,
    DiscreteVae,
    DiscreteVaeConfig,
)
from pipelines.models.ddpm.network import Ddpm, DdpmConfig
from pipelines.models.openai_clip.network import OpenaiClip, OpenaiClipConfig
from pipelines.models.openai_clip.tokenizer import ClipTokenizer, WordPieceTokenizer
from pipelines.models.openai_dvae.network import Dvae, DvaeConfig
from pipelines.models.rudalle.network import Rudalle, RudalleConfig
from pipelines.models.rudalle.tokenizer import RudalleTokenizer
from pipelines.models.taming_vqgan.network import TamingVqgan, TamingVqganConfig
from pipelines.models.unet.network import Unet, UnetConfig
from pipelines.models.vqgan.network import Vqgan, VqganConfig
from pipelines.optimize.pipeline import Optimize
from pipelines.weights.catalog import (
    Checkpoint,
    check_use,
    checkpoint_of,
    kind_of,
    needed,
    preset,
    with_tokenizers,
)

PIPELINES: dict[str, type[Pipeline[Any]]] = {
    "generate": Generate,
    "optimize": Optimize,
    "edit": Edit,
    "diffuse": Diffuse,
}

# kind, which a file carries (the tiny pack's: its role) -> config, network. CLIPs also take their tokenizer.
NETWORKS: dict[str, tuple[type[Config], type[nn.Module]]] = {
    "clip": (ClipConfig, Clip),
    "critic": (ClipConfig, Clip),
    "vqgan": (VqganConfig, Vqgan),
    "dalle": (DalleConfig, Dalle),
    "unet": (UnetConfig, Unet),
    "openai-clip": (OpenaiClipConfig, OpenaiClip),
    "chinese-clip": (ChineseClipConfig, ChineseClip),
    "dalle-mini": (DalleMiniConfig, DalleMini),
    "rudalle": (RudalleConfig, Rudalle),
    "dalle-pytorch": (DallePytorchConfig, DallePytorch),
    "dalle-pytorch-vae": (DiscreteVaeConfig, DiscreteVae),
    "openai-dvae": (DvaeConfig, Dvae),
    "taming-vqgan": (TamingVqganConfig, TamingVqgan),
    "ddpm": (DdpmConfig, Ddpm),
}
# Those whose weights stay in the half precision that a GPU multiplies fast; their logits and vectors are float32.
HALVED = ("openai-clip", "chinese-clip", "dalle-mini", "rudalle", "dalle-pytorch")
TOKENIZERS: dict[str, Any] = {
    "tiny-tokenizer": Tokenizer,
    "clip-tokenizer": ClipTokenizer,
    "clip-chinese-tokenizer": WordPieceTokenizer,
    "dalle-mini-tokenizer": DalleMiniTokenizer,
    "dalle-mega-tokenizer": DalleMiniTokenizer,
    "rudalle-tokenizer": RudalleTokenizer,
}
ROOM = 0.5  # the share of a GPU's memory that weights may fill; the rest is for what is computed with them


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is the first GPU when there is one; BadInput for a device this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"device {name!r} is not on this machine; try cpu") from error
    return device


class Studio:
    """Loads each checkpoint at most once, whoever asks. Loaded networks are frozen and shared: never change one.

    `use` replaces parts of the pack's pipelines: {"clip": "clip-vit-l-14"}.
    """

    def __init__(self, pack: str = "tiny", device: str = "auto", use: dict[str, str] | None = None):
        self.pack, self.use, self.torch_device = pack, dict(use or {}), choose_device(device)
        check_use(pack, self.use)
        self._loaded: dict[str, Any] = {}
        self._lent: dict[str, Any] = {}
        self._hashes: dict[str, str] = {}
        self._lock = threading.RLock()

    @property
    def device(self) -> str:
        """The device in words."""
        return str(self.torch_device)

    def switch(self, pack: str) -> None:
        """Go on with another pack; what the two share stays loaded. BadInput, and all stays, when files are missing."""
        _check_present(f"the pack {pack}", needed(pack, self.use))
        with self._lock:
            self.pack = pack
            kept = {one.name for one in needed(pack, self.use)}
            self._loaded = {name: one for name, one in self._loaded.items() if name in kept}

    def on(self, device: str) -> Studio:
        """The same studio on another device, which takes this one's networks as it needs them: use this one no more."""
        other = Studio(self.pack, device, self.use)
        other._lent = dict(self._loaded)
        return other

    def load(self, name: str) -> Any:
        """The network (or tokenizer, or pictures) behind a checkpoint's name."""
        checkpoint = checkpoint_of(name)
        with self._lock:
            if name in self._lent:
                self._loaded[name] = self._take_over(checkpoint, self._lent.pop(name))
            if name not in self._loaded:
                _check_present("this", [checkpoint])
                self._loaded[name] = self._read(checkpoint)
            return self._loaded[name]

    def pipeline(self, name: str) -> Pipeline[Any]:
        """The pipeline of this pack, its models loaded and on the device."""
        with self._lock:
            names = preset(self.pack, name, self.use)
            _check_present(f"{name} in the pack {self.pack}", with_tokenizers(names.values()))
            parts = {field: self.load(one) for field, one in names.items()}
            _check_fit(parts)
            self._make_room([network for one in parts.values() for network in networks_of(one)])
            return PIPELINES[name](**parts)

    def models(self, name: str) -> dict[str, dict[str, str]]:
        """What a pipeline is made of, for the record: role -> name and SHA-256 of the file."""
        facts = {}
        for field, checkpoint in preset(self.pack, name, self.use).items():
            with self._lock:
                if checkpoint not in self._hashes:
                    self._hashes[checkpoint] = _hash(checkpoint_of(checkpoint).path)
            facts[field] = {"name": checkpoint, "sha256": self._hashes[checkpoint]}
        return facts

    def clip(self) -> Clip:
        """The pack's CLIP: the judge of Generate and the search index of the library."""
        return self.load(preset(self.pack, "optimize", self.use)["clip"])

    def _read(self, checkpoint: Checkpoint) -> Any:
        if checkpoint.role == "tokenizer":
            return _read_tokenizer(checkpoint)
        if checkpoint.role == "pictures":
            return Examples.load(checkpoint.path)
        device = self.torch_device
        if checkpoint.role == "diffusion":
            return load_diffusers(checkpoint.path, device, dtype_of("diffusion", device))
        kind = kind_of(checkpoint.path) or checkpoint.role
        if kind not in NETWORKS:
            raise BadInput(
                f"the weights {checkpoint.path.name} are of the kind {kind[:40]!r}, which is not known; fetch or add "
                "the model again"
            )
        config_type, network_type = NETWORKS[kind]
        values = read_header(checkpoint.path)[0]
        extra = [self.load(checkpoint.tokenizer)] if kind.endswith(("clip", "critic")) else []
        try:
            config: Any = config_type.from_dict(values)
            with BUILDING, init_empty_weights():  # no time and memory for numbers that are thrown away
                network: nn.Module = network_type(config, *extra)
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
            raise BadInput(
                f"the weights {checkpoint.path.name} carry a strange config; restore the file"
            ) from error
        if extra and extra[0].vocabulary_size > config.vocabulary_size:
            raise BadInput(
                f"{checkpoint.name} knows {config.vocabulary_size:,} tokens and the vocabulary {checkpoint.tokenizer} "
                f"has {extra[0].vocabulary_size:,}; they do not belong together, so fetch both again"
            )
        load_weights(checkpoint.path, network, dtype_of(kind, device))
        convert_conv2d_weight_memory_format(network, torch.channels_last)
        return network.eval().requires_grad_(False).to(device)

    def _take_over(self, checkpoint: Checkpoint, part: Any) -> Any:
        """What another studio has loaded, on this one's device and in the precision that it has there."""
        device = self.torch_device
        kind = "diffusion" if checkpoint.role == "diffusion" else kind_of(checkpoint.path) or checkpoint.role
        for network in networks_of(part):
            kept = network is getattr(part, "vae", None)  # Stable Diffusion's stays in float32
            network.to(device=device, dtype=None if kept else dtype_of(kind, device))
        return part

    def _make_room(self, parts: list[nn.Module]) -> None:
        """Bring these networks to the device; before it is full, those that wait go to the processor's memory."""
        if self.torch_device.type != "cuda":
            return
        networks = [network for one in self._loaded.values() for network in networks_of(one)]
        waiting = [one for one in networks if one not in parts and next(one.parameters()).is_cuda]
        total = torch.cuda.get_device_properties(self.torch_device).total_memory
        for one in to_move_off(parts, waiting, ROOM * total):
            one.to("cpu")
        for one in parts:
            one.to(self.torch_device)


def dtype_of(kind: str, device: torch.device) -> torch.dtype:
    """What a kind of network computes in: half precision only on a GPU, and only those that bear it."""
    if device.type == "cuda" and kind == "diffusion":
        return torch.float16
    return torch.bfloat16 if device.type == "cuda" and kind in HALVED else torch.float32


def networks_of(part: Any) -> list[nn.Module]:
    """The networks in a part of a pipeline: itself, those of a diffusers pipeline, or none."""
    inside = getattr(part, "components", {}).values() if not isinstance(part, nn.Module) else [part]
    return [one for one in inside if isinstance(one, nn.Module)]


def _check_present(what: str, checkpoints: list[Checkpoint]) -> None:
    """BadInput when models are not here yet, before any is loaded. What is shipped is looked for when it is read."""
    if gone := [one.name for one in checkpoints if not one.present and not one.file]:
        raise BadInput(f"{what} needs {', '.join(gone)}; run: python launch.py models fetch {gone[0]}")


def _check_fit(parts: dict[str, Any]) -> None:
    """BadInput when a DALL·E draws tokens that its codec does not have."""
    if "dalle" in parts:
        drawn, known = parts["dalle"].config.image_vocabulary, len(parts["vqgan"].codes)
        if drawn > known:
            raise BadInput(
                f"this DALL·E draws with {drawn:,} image tokens and this codec has {known:,}; give the codec that "
                "the DALL·E learned with"
            )


def _read_tokenizer(checkpoint: Checkpoint) -> Any:
    """A vocabulary of the catalog, or one that the user added, which tells by its tokens what it is."""
    if checkpoint.name in TOKENIZERS:
        return TOKENIZERS[checkpoint.name].load(checkpoint.path)
    for one in (ClipTokenizer, WordPieceTokenizer, DalleMiniTokenizer, RudalleTokenizer):
        with suppress(BadInput):
            return one.load(checkpoint.path)
    raise BadInput(f"{checkpoint.path.name} is no vocabulary that is known here; add it again")


def to_move_off(parts: list[nn.Module], waiting: list[nn.Module], room: float) -> list[nn.Module]:
    """Which of the waiting networks must leave so that all weights are at most `room` bytes: the heaviest first."""
    total = sum(weight(one) for one in (*parts, *waiting))
    leaving: list[nn.Module] = []
    for one in sorted(waiting, key=weight, reverse=True):
        if total <= room:
            break
        leaving.append(one)
        total -= weight(one)
    return leaving


def weight(network: nn.Module) -> int:
    """Bytes of a network's parameters."""
    return sum(one.numel() * one.element_size() for one in network.parameters())


def memory_needed(pack: str, pipeline: str, use: dict[str, str] | None = None) -> int:
    """Bytes on the device that a pipeline of a pack wants, an estimate; 0 for the tiny pack, which fits everywhere."""
    return sum(checkpoint_of(name).memory for name in preset(pack, pipeline, use).values())


def _hash(path: Path) -> str:
    """A file's SHA-256; of a folder, the SHA-256 over those of its files in order of their names."""
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for one in sorted(path.rglob("*")):
        if one.is_file():
            digest.update(json.dumps([one.relative_to(path).as_posix(), file_hash(one)]).encode())
    return digest.hexdigest()
