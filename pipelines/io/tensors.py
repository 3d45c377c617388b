"""Opening safetensors files, with types: the library declares none for an opened file. The header of one in memory."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from safetensors import safe_open

from pipelines.io.values import is_dict

if TYPE_CHECKING:  # torch takes a second to import
    from torch import Tensor


MAX_HEADER = 1_000_000  # bytes


class TensorFile(Protocol):
    """An opened safetensors file."""

    def metadata(self) -> dict[str, str] | None:
        """The texts in its header, by name. None when there are none."""
        ...

    def keys(self) -> list[str]:
        """The names of its tensors."""
        ...

    def get_tensor(self, name: str) -> Tensor:
        """One tensor, of the dtype and shape that it has in the file."""
        ...


def open_tensors(path: Path, framework: Literal["pt", "np"] = "pt") -> AbstractContextManager[TensorFile]:
    """Open a safetensors file for reading.

    With "np" torch is not imported, which is enough for metadata and names. The library's SafetensorError and OSError
    pass through when the file is damaged or cannot be opened.
    """
    return cast("AbstractContextManager[TensorFile]", safe_open(path, framework))


def header_of(data: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file in memory: an entry a tensor, and texts under "__metadata__" where it has any.

    ValueError when the bytes have none, or one of more than MAX_HEADER bytes. Nothing else of the file is checked.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(MAX_HEADER, len(data) - 8):
        raise ValueError("no safetensors file")
    try:
        header = json.loads(data[8 : 8 + length])
    except RecursionError:
        header = None
    if not is_dict(header):
        raise ValueError("no safetensors file")
    return header
