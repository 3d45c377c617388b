"""Writes the archives of this folder, by Python 3.8 with torch 1.7.1, numpy, attrs, and the code of CLIP and DALL-E 0.1.

    python3.8 make.py FOLDER, with clip's model.py as clip_model.py and the package dall_e on PYTHONPATH

These are the forms of 2021: TorchScript with tensors of half precision, modules pickled whole, Lightning's checkpoints
with optimizers and a class as a key, and stacked matrices of which a state dict holds transposed views. Every number is
that of `value`, so that the tests know them without another file.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch


def value(name: str, shape: Any) -> np.ndarray:
    """Multiples of 1/512 within (-1, 1), exact in half precision, that begin by the name's checksum."""
    count = int(np.prod(shape, dtype=np.int64))
    start = zlib.crc32(name.encode()) % 1009
    return (((np.arange(count) * 7919 + start) % 1009 - 504) / 512).astype("f4").reshape(shape)


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """The module with `value` in all its numbers."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(value(name, tuple(tensor.shape))))
    return module.eval()


def clip(folder: Path) -> None:
    """As OpenAI published theirs: a traced module with the three sizes as attributes, its matrices in half precision."""
    from clip_model import CLIP

    model = filled(CLIP(16, 32, 1, 64, 16, 13, 40, 64, 1, 1))
    for name, size in (("input_resolution", 32), ("context_length", 13), ("vocab_size", 40)):
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(size))
    example = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 13, dtype=torch.int64))
    traced = torch.jit.trace(model, example, check_trace=False)
    for name, tensor in traced.state_dict().items():
        if name.endswith(("proj", "weight")) and tensor.ndim > 1 and "embedding" not in name:
            parts = name.split(".")
            owner = traced
            for part in parts[:-1]:
                owner = getattr(owner, part)
            getattr(owner, parts[-1]).data = tensor.half()
    torch.jit.save(traced, str(folder / "ViT.pt"))


def dvae(folder: Path) -> None:
    """Two modules pickled whole, the first in the zip form and the second in the form before."""
    import attr
    from dall_e import Decoder, Encoder

    attr.set_run_validators(False)  # they ask for at least 64 channels
    encoder = filled(Encoder(n_hid=4, n_blk_per_group=1, vocab_size=12))
    decoder = filled(Decoder(n_init=4, n_hid=4, n_blk_per_group=1, vocab_size=12))
    torch.save(encoder, str(folder / "encoder.pkl"))
    torch.save(decoder, str(folder / "decoder.pkl"), _use_new_zipfile_serialization=False)


class ModelCheckpoint:
    """Lightning kept the state of its callbacks by their classes."""


def lightning(folder: Path) -> None:
    """A checkpoint of a training: weights, the state of two Adams, and a class as a key; in both forms."""
    network = filled(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4)))
    adams = [torch.optim.Adam(network.parameters()) for _ in range(2)]
    for adam in adams:
        network(torch.ones(1, 3, 4, 4)).sum().backward()
        adam.step()
    filled(network)
    held: dict[str, Any] = {
        "epoch": 3,
        "pytorch-lightning_version": "1.0.8",
        "callbacks": {ModelCheckpoint: {"best": torch.tensor(0.5)}},
        "optimizer_states": [adam.state_dict() for adam in adams],
        "lr_schedulers": [],
        "state_dict": network.state_dict(),
        "hparams": {"ddconfig": {"resolution": 32, "ch_mult": (1, 2)}},
    }
    torch.save(held, str(folder / "last.ckpt"))
    torch.save(held, str(folder / "last_before.ckpt"), _use_new_zipfile_serialization=False)


def stacked(folder: Path) -> None:
    """As min-dalle's files: one storage a matrix for all layers, and its transposed views by the layers' names."""
    state = {}
    for name, shape in (("fc0", (3, 4, 6)), ("fc2", (3, 6, 4))):
        stack = torch.from_numpy(value(name, shape)).half()
        state.update({f"layers.{k}.{name}.weight": stack[k].t() for k in range(3)})
    torch.save(state, str(folder / "stacked.pt"))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(torch.__version__)
    for make in (clip, dvae, lightning, stacked):
        make(place)
