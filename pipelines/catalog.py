"""What can be loaded: CHECKPOINTS by name, and PRESETS, which say what each pipeline of a pack is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
TINY_LICENCE = "MIT, trained on Apache-2.0, MIT and CC-BY-4.0 art (assets/NOTICE)"
TINY_ORIGIN = "trained by this project: python launch.py train"


@dataclass(frozen=True)
class Checkpoint:
    """One file of weights: where it is, what it may be used for, and where it comes from."""

    name: str
    pack: str
    role: str
    file: str  # below the project
    licence: str
    origin: str
    about: str

    @property
    def path(self) -> Path:
        """Where the file belongs."""
        return ASSETS.parent / self.file

    @property
    def present(self) -> bool:
        """Whether it is there."""
        return self.path.is_file()

    @property
    def size(self) -> int:
        """Bytes on disk, 0 when it is not there."""
        return self.path.stat().st_size if self.present else 0


def _tiny(
    role: str, file: str, about: str, licence: str = TINY_LICENCE, origin: str = TINY_ORIGIN
) -> Checkpoint:
    return Checkpoint(f"tiny-{role}", "tiny", role, f"assets/tiny/{file}", licence, origin, about)


CHECKPOINTS: dict[str, Checkpoint] = {
    one.name: one
    for one in (
        _tiny("tokenizer", "tokenizer.json", "byte-level BPE, English and Chinese"),
        _tiny("clip", "clip.safetensors", "CLIP: the judge, 64 x 64 pictures, English and Chinese"),
        _tiny(
            "critic", "critic.safetensors", "a second CLIP that judges Optimize and Edit and steers nothing"
        ),
        _tiny("vqgan", "vqgan.safetensors", "VQGAN: 128 x 128 pictures to image tokens and back"),
        _tiny("dalle", "dalle.safetensors", "DALL·E: text tokens to image tokens"),
        _tiny("unet", "unet.safetensors", "a diffusion model of 64 x 64 pictures, the base of Edit"),
        _tiny(
            "pictures",
            "pictures.safetensors",
            "640 small pictures, from which Edit learns its directions",
            "Apache-2.0, MIT and CC-BY-4.0 art (assets/NOTICE)",
            "icons of six open sets, made smaller: python launch.py data --examples",
        ),
    )
}

# pack -> pipeline -> field of the pipeline -> checkpoint
PRESETS: dict[str, dict[str, dict[str, str]]] = {
    "tiny": {
        "generate": {
            "tokenizer": "tiny-tokenizer",
            "dalle": "tiny-dalle",
            "vqgan": "tiny-vqgan",
            "clip": "tiny-clip",
        },
        "optimize": {"vqgan": "tiny-vqgan", "clip": "tiny-clip", "critic": "tiny-critic"},
        "edit": {
            "unet": "tiny-unet",
            "clip": "tiny-clip",
            "critic": "tiny-critic",
            "pictures": "tiny-pictures",
        },
    },
}
