"""Opening safetensors files, with types: the library declares none for an opened file."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from safetensors import safe_open

if TYPE_CHECKING:  # torch takes a second to import
    from torch import Tensor


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
