"""What the catalog knows of a model, and where its file belongs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.io.files import path_to_write
from pipelines.models.spec import SPECS, ModelSpec

PROJECT = Path(__file__).parents[2]
WORKING = 500_000_000  # bytes of memory that converting takes beside the arrays


@dataclass(frozen=True)
class File:
    """One published file. `size` (bytes) and `sha256` are None where they are not known.

    `mirrors` are other addresses of the same bytes, tried in this order. They are of use only with a SHA-256.
    """

    url: str
    sha256: str | None = None
    size: int | None = None
    name: str = ""  # when the address does not end in one, or its folder matters
    mirrors: tuple[str, ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """All addresses, the publisher's first."""
        return (self.url, *self.mirrors)

    @property
    def path(self) -> str:
        """Its path below the model's download folder."""
        return self.name or Path(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Checkpoint:
    """One model: what it is, where its file or folder belongs, where it was published, and what it needs."""

    name: str
    kind: str  # its row in SPECS; "" where there is none
    licence: str
    origin: str
    about: str
    pack: str = "full"  # "tiny" is shipped; "full" are the open weights; "own" is what the user added
    role: str = ""  # what it may be used for; that of its kind when not given
    vocabulary: str = ""  # the checkpoint that it reads by; that of its kind when not given
    file: str = ""  # below the project, or anywhere when it is absolute; "" for the folder of models
    files: tuple[File, ...] = ()  # that are published
    parameters: int = 0
    working: int = 0  # bytes of memory that it needs beside its weights, an estimate
    width: int = 4  # bytes a parameter takes in memory
    megabytes: int = 0  # of the download, about, where the files do not tell their sizes
    largest: int = 0  # bytes of the largest array in its files, where that is much beside WORKING

    def __post_init__(self) -> None:
        if not self.role:
            object.__setattr__(self, "role", self.spec.role)
        if not self.vocabulary:
            object.__setattr__(self, "vocabulary", self.spec.vocabulary)

    @property
    def spec(self) -> ModelSpec:
        """The row of its kind in SPECS. An empty row where there is none."""
        return SPECS.get(self.kind, ModelSpec(kind=self.kind, role=""))

    @property
    def path(self) -> Path:
        """Where its file or folder belongs, whether it is there or not."""
        return PROJECT / self.file if self.file else models_folder() / (self.name + self.spec.suffix)

    @property
    def present(self) -> bool:
        """Whether its file or folder is there."""
        return self.path.exists()

    @property
    def size(self) -> int:
        """Its bytes on disk. 0 when it is not there."""
        return size_of(self.path) if self.present else 0

    @property
    def download_bytes(self) -> int:
        """The bytes of its published files. An estimate unless `exact`."""
        known = sum(file.size or 0 for file in self.files)
        return known if self.exact else max(known, self.megabytes * 10**6)

    @property
    def exact(self) -> bool:
        """Whether the size of every published file is known."""
        return all(file.size is not None for file in self.files)

    @property
    def conversion_memory(self) -> int:
        """An estimate of the bytes of memory that converting its files takes. 0 where they are kept as they are."""
        return WORKING + 2 * self.largest if self.spec.convert and self.spec.role != "tokenizer" else 0

    @property
    def memory(self) -> int:
        """An estimate of the bytes of memory for its weights and for computing. 0 where it is not known."""
        return self.width * self.parameters + self.working

    @property
    def pinned(self) -> bool:
        """Whether the SHA-256 of every published file is in the catalog."""
        return all(file.sha256 for file in self.files)


def models_folder() -> Path:
    """The folder of models: ATELIER_MODELS, or models/ in the project's folder when that is not set."""
    folder = os.environ.get("ATELIER_MODELS")
    return path_to_write(folder) if folder else PROJECT / "models"


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
