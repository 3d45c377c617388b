"""The file format of every network: safetensors whose metadata hold the config, training facts and licence."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipelines.errors import BadInput, Message
from pipelines.io.files import write_atomically
from pipelines.io.values import is_dict, is_list
from pipelines.models.base import Network

# Held while networks or adapters are built: accelerate's `init_empty_weights` changes torch for all threads.
META_INIT_LOCK = threading.RLock()
ABSENT = Message("models.absent")  # said in the place of a shape


class Config:
    """Base of every network's config: a frozen dataclass of plain values, kept in the checkpoint's metadata."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(cast(Any, self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The config from JSON values, with lists as tuples. TypeError for a field that the config does not have."""
        fields: dict[str, Any] = {k: tuple(v) if is_list(v) else v for k, v in values.items()}
        return cls(**fields)


def save_checkpoint(
    path: Path, network: nn.Module, config: dict[str, Any], facts: dict[str, Any], kind: str = ""
) -> None:
    """Write the weights as float16 with the JSON metadata "config" and "facts", and the `kind` of network if given.

    The write is atomic: an old file stays whole until the new one is complete. CannotSave when the disk is full.
    """
    tensors = {
        name: value.detach()
        .to("cpu", torch.float16 if value.is_floating_point() else value.dtype)
        .contiguous()
        for name, value in network.state_dict().items()
    }
    metadata = {"config": json.dumps(config), "facts": json.dumps(facts, ensure_ascii=False)}
    metadata |= {"kind": kind} if kind else {}
    write_atomically(path, save(tensors, metadata))


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the facts of a checkpoint, without its weights. BadInput when it is missing or damaged."""
    if not path.is_file():
        raise BadInput("models.weights_missing", file=path.name)
    try:
        with cast(Any, safe_open(path, "pt")) as file:
            metadata: dict[str, str] = file.metadata() or {}
        config, facts = json.loads(metadata["config"]), json.loads(metadata["facts"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BadInput("models.weights_damaged", file=path.name, reason=error) from error
    if not is_dict(config) or not is_dict(facts):
        raise BadInput("models.weights_without_config", file=path.name)
    return config, facts


def read_kind(path: Path) -> str:
    """The kind of network that a checkpoint names, a key of SPECS; "" where it names none, or cannot be read."""
    try:
        with cast(Any, safe_open(path, "pt")) as file:
            metadata: dict[str, str] = file.metadata() or {}
        return metadata.get("kind", "")
    except (SafetensorError, OSError):
        return ""


def load_weights(path: Path, network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Load a checkpoint's weights into a network of its config, in `dtype`.

    BadInput when names or shapes differ, or when a weight is not a finite number.
    Parameters on the meta device are replaced by the file's tensors; others are overwritten.
    """
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    tensors: dict[str, Tensor] = {}
    try:
        with cast(Any, safe_open(path, "pt")) as file:
            names: list[str] = file.keys()
            shapes: dict[str, tuple[int, ...]] = {
                name: tuple(file.get_slice(name).get_shape()) for name in names
            }
            for name in sorted(expected.keys() | shapes.keys()):
                if expected.get(name) != shapes.get(name):
                    raise BadInput(
                        "models.weights_do_not_fit",
                        file=path.name,
                        name=name,
                        expected=expected.get(name, ABSENT),
                        found=shapes.get(name, ABSENT),
                    )
            for name in shapes:
                tensors[name] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise BadInput("models.weights_damaged", file=path.name, reason=error) from error
    check_finite(tensors, path.name)
    for name, value in tensors.items():
        tensors[name] = value.to(dtype) if value.is_floating_point() else value
    network.load_state_dict(tensors, assign=any(parameter.is_meta for parameter in network.parameters()))


def check_finite(tensors: Mapping[str, Tensor], file: str) -> None:
    """BadInput, naming the tensor, when weights hold NaN or infinity. Masks may hold infinity.

    A sum is finite unless one of its numbers is not; only where it is not are the numbers looked at one by one.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or "mask" in name:
            continue
        plain = tensor if tensor.element_size() > 1 else tensor.float()
        if not math.isfinite(plain.sum(dtype=torch.float32)) and not plain.isfinite().all():
            raise BadInput("models.weights_not_finite", file=file, name=name[:80])


def read_codes(path: Path) -> Tensor | None:
    """The code book (k, c) in a codec's checkpoint, as it is stored; None where the file has none that can be read."""
    try:
        with cast(Any, safe_open(path, "pt")) as file:
            return file.get_tensor("codes")
    except (SafetensorError, OSError):
        return None


def codes_hash(codes: Tensor) -> str:
    """SHA-256 of a code book (k, c) as float16, in hexadecimal. Equal code books give tokens one meaning."""
    return hashlib.sha256(codes.to("cpu", torch.float16).contiguous().numpy().tobytes()).hexdigest()


def canonical_bytes(data: bytes) -> bytes:
    """The bytes of a safetensors file with the keys of its header sorted.

    safetensors writes metadata in random order; sorted, equal contents have equal hashes.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + data[end:]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def network_hash(network: Network) -> str:
    """SHA-256 of a network's weights as float32, in hexadecimal; the same on every machine."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
