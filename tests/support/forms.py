"""Files of every published form, made for the tests of their readers."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from torch import nn

Saver = Callable[[Any, Path], None]


def save_old(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_plain(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


SAVERS: dict[str, Saver] = {"zip": torch.save, "legacy": save_old, "plain": save_plain}


each_pickled_form = pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)


def save_script(path: Path) -> nn.Module:
    """A TorchScript archive with half and full precision, the form of OpenAI's CLIP."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3).half(), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(2, 2)))
    net.register_buffer("input_resolution", torch.tensor(224))
    torch.jit.save(torch.jit.script(net), path)
    return net


def flax_array(shape: tuple[int, ...], name: str, data: bytes, kind: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(kind, msgpack.packb((shape, name, data)))


def flax_file() -> bytes:
    values = np.arange(300, dtype="<f4").reshape(20, 15)
    flat = values.reshape(-1)
    pieces = {str(i): flat[i * 128 : (i + 1) * 128] for i in range(3)}
    half = torch.tensor([1.5, -2.0, 0.125]).bfloat16()
    tree = {
        "params": {
            "kernel": flax_array((20, 15), "float32", values.tobytes()),
            "half": flax_array((3,), "bfloat16", half.view(torch.int16).numpy().tobytes()),
            "empty": flax_array((0, 2), "float16", b""),
            "large": {
                "__msgpack_chunked_array__": True,
                "shape": {"0": 20, "1": 15},
                "chunks": {key: flax_array((len(v),), "float32", v.tobytes()) for key, v in pieces.items()},
            },
        },
        "step": flax_array((), "int32", struct.pack("<i", 7), kind=3),
        "turn": msgpack.ExtType(2, msgpack.packb((1.0, -2.0))),
        "words": {
            "name": "mini",
            "long": "x" * 300,
            "numbers": [1, -1, 200, -200, 70000, -70000, 2**40, 0.5],
        },
        "flags": {"yes": True, "no": False, "none": None},
    }
    return msgpack.packb(tree)
