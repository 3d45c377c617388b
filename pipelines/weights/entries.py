"""How entries of the catalog are written: what files of one publisher have alike."""

from __future__ import annotations

from pipelines.weights.checkpoint import Checkpoint, File
from pipelines.weights.known_files import HUB, known, openai_clip

GB = 10**9
TAMING_LICENCE = "the code is MIT; the weights state no licence"
NO_LICENCE = "the code is MIT; the card names no licence for the weights"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def hub(repository: str, *names: str) -> tuple[File, ...]:
    """Files of a repository of the Hub, kept by their own names."""
    return tuple(known(f"{HUB}/{repository}/resolve/main/{name}") for name in names)


def hub_folder(repository: str, names: list[str]) -> tuple[File, ...]:
    """Files of a repository of the Hub, kept by their paths in it."""
    return tuple(known(f"{HUB}/{repository}/resolve/main/{name}", name) for name in names)


def clip_of_openai(
    name: str, file: str, sha256: str, millions: float, about: str, working: int = GB // 2
) -> Checkpoint:
    """One of OpenAI's CLIPs, by the name of its file and its SHA-256, which is part of the address."""
    return Checkpoint(
        name=name,
        kind="openai-clip",
        files=(openai_clip(sha256, file),),
        licence="MIT (its card puts deployed use out of scope)",
        origin="OpenAI, CLIP (2021)",
        about=about,
        parameters=round(millions * 1e6),
        working=working,
    )


def vqgan(
    name: str, file: File, about: str, millions: float, megabytes: int, origin: str = "CompVis, taming-transformers (2021)"
) -> Checkpoint:  # fmt: skip
    """A VQGAN of taming-transformers."""
    return Checkpoint(
        name=name,
        kind="taming-vqgan",
        files=(file,),
        licence=TAMING_LICENCE,
        origin=origin,
        about=about,
        parameters=round(millions * 1e6),
        working=4 * GB,
        megabytes=megabytes,
    )
