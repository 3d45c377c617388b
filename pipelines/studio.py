"""The Studio owns the device and the loaded models. Ask twice, get the same object: that is why CLIP exists once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.base import Pipeline
from pipelines.catalog import CHECKPOINTS, PRESETS, Checkpoint
from pipelines.dalle import Generate
from pipelines.diffusion_clip import Edit
from pipelines.errors import BadInput
from pipelines.examples import Examples
from pipelines.models.checkpoint import file_hash, load_weights, read_header
from pipelines.models.clip import Clip, ClipConfig
from pipelines.models.dalle import Dalle, DalleConfig
from pipelines.models.tokenizer import Tokenizer
from pipelines.models.unet import Unet, UnetConfig
from pipelines.models.vqgan import Vqgan, VqganConfig
from pipelines.vqgan_clip import Optimize

PIPELINES: dict[str, type[Pipeline[Any]]] = {
    "generate": Generate,
    "optimize": Optimize,
    "edit": Edit,
}


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
    """Loads each checkpoint at most once, whoever asks. Loaded networks are frozen and shared: never change one."""

    def __init__(self, pack: str = "tiny", device: str = "auto"):
        if pack not in PRESETS:
            raise BadInput(f"pack {pack!r} is not known; try {', '.join(PRESETS)}")
        self.pack, self.torch_device = pack, choose_device(device)
        self._loaded: dict[str, Any] = {}
        self._hashes: dict[str, str] = {}
        self._lock = threading.RLock()

    @property
    def device(self) -> str:
        """The device in words."""
        return str(self.torch_device)

    def load(self, name: str) -> Any:
        """The network (or tokenizer, or pictures) behind a checkpoint's name."""
        if name not in CHECKPOINTS:
            raise BadInput(f"model {name!r} is not known; the models are {', '.join(CHECKPOINTS)}")
        with self._lock:
            if name not in self._loaded:
                checkpoint = CHECKPOINTS[name]
                self._loaded[name] = LOADERS[checkpoint.role](self, checkpoint)
            return self._loaded[name]

    def pipeline(self, name: str) -> Pipeline[Any]:
        """The pipeline of this pack, its models loaded."""
        with self._lock:
            parts = {field: self.load(checkpoint) for field, checkpoint in self._preset(name).items()}
            return PIPELINES[name](**parts)

    def models(self, name: str) -> dict[str, dict[str, str]]:
        """What a pipeline is made of, for the record: role -> name and SHA-256 of the file."""
        facts = {}
        for field, checkpoint in self._preset(name).items():
            with self._lock:
                if checkpoint not in self._hashes:
                    self._hashes[checkpoint] = file_hash(CHECKPOINTS[checkpoint].path)
            facts[field] = {"name": checkpoint, "sha256": self._hashes[checkpoint]}
        return facts

    def clip(self) -> Clip:
        """The pack's CLIP: the judge of Generate and the search index of the library."""
        return self.load(self._preset("generate")["clip"])

    def _preset(self, name: str) -> dict[str, str]:
        presets = PRESETS[self.pack]
        if name not in presets:
            raise BadInput(f"pipeline {name!r} is not in the pack {self.pack}; it has {', '.join(presets)}")
        return presets[name]

    def _place(self, network: torch.nn.Module, path: Path) -> Any:
        load_weights(path, network)
        return network.eval().requires_grad_(False).to(self.torch_device)


def _config_of(checkpoint: Checkpoint, kind: Any) -> Any:
    try:
        return kind.from_dict(read_header(checkpoint.path)[0])
    except TypeError as error:
        raise BadInput(
            f"the weights {checkpoint.path.name} carry a strange config; restore the file"
        ) from error


def _load_tokenizer(studio: Studio, checkpoint: Checkpoint) -> Tokenizer:
    return Tokenizer.load(checkpoint.path)


def _load_clip(studio: Studio, checkpoint: Checkpoint) -> Clip:
    clip = Clip(_config_of(checkpoint, ClipConfig), studio.load(f"{checkpoint.pack}-tokenizer"))
    convert_conv2d_weight_memory_format(clip.image, torch.channels_last)
    return studio._place(clip, checkpoint.path)


def _load_vqgan(studio: Studio, checkpoint: Checkpoint) -> Vqgan:
    vqgan = Vqgan(_config_of(checkpoint, VqganConfig))
    convert_conv2d_weight_memory_format(vqgan, torch.channels_last)
    return studio._place(vqgan, checkpoint.path)


def _load_dalle(studio: Studio, checkpoint: Checkpoint) -> Dalle:
    return studio._place(Dalle(_config_of(checkpoint, DalleConfig)), checkpoint.path)


def _load_unet(studio: Studio, checkpoint: Checkpoint) -> Unet:
    unet = Unet(_config_of(checkpoint, UnetConfig))
    convert_conv2d_weight_memory_format(unet, torch.channels_last)
    return studio._place(unet, checkpoint.path)


def _load_pictures(studio: Studio, checkpoint: Checkpoint) -> Examples:
    return Examples.load(checkpoint.path)


LOADERS: dict[str, Callable[[Studio, Checkpoint], Any]] = {
    "tokenizer": _load_tokenizer,
    "clip": _load_clip,
    "critic": _load_clip,
    "vqgan": _load_vqgan,
    "dalle": _load_dalle,
    "unet": _load_unet,
    "pictures": _load_pictures,
}
