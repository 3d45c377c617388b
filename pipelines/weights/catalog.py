"""What can be loaded: CHECKPOINTS by name, and PRESETS, which say what each pipeline of a pack is made of.

The tiny pack is part of the project; everything else is in the folder of models, once somebody has fetched or added it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pipelines.errors import BadInput
from pipelines.weights.install import find, installed, size_of
from pipelines.weights.open_weights import FULL_PACK, models_folder

ASSETS = Path(__file__).parents[2] / "assets"
TINY_LICENCE = "MIT, trained on Apache-2.0, MIT and CC-BY-4.0 art (assets/NOTICE)"
TINY_ORIGIN = "trained by this project: python launch.py train"


@dataclass(frozen=True)
class Checkpoint:
    """One file (or diffusers folder) of weights: where it is, what it may be used for, and where it comes from.

    `tokenizer` is the checkpoint whose vocabulary a CLIP reads with; `memory` is bytes on the device, an estimate.
    """

    name: str
    pack: str  # "tiny", "full", or "own" for what the user added
    role: str  # clip, critic, dalle, vqgan, unet, pictures, tokenizer, diffusion
    file: str  # below the project, or anywhere when it is absolute; "" for the folder of models
    licence: str
    origin: str
    about: str
    tokenizer: str = ""
    memory: int = 0

    @property
    def path(self) -> Path:
        """Where the file belongs."""
        if self.file:
            return ASSETS.parent / self.file
        entry = FULL_PACK.get(self.name)
        return entry.path if entry else find(self.name) or models_folder() / f"{self.name}.safetensors"

    @property
    def present(self) -> bool:
        """Whether it is there."""
        return self.path.exists()

    @property
    def size(self) -> int:
        """Bytes on disk, 0 when it is not there."""
        return size_of(self.path) if self.present else 0


def _tiny(
    role: str, file: str, about: str, licence: str = TINY_LICENCE, origin: str = TINY_ORIGIN
) -> Checkpoint:
    tokenizer = "tiny-tokenizer" if role in ("clip", "critic") else ""
    return Checkpoint(f"tiny-{role}", "tiny", role, f"assets/tiny/{file}", licence, origin, about, tokenizer)


TINY = (
    _tiny("tokenizer", "tokenizer.json", "byte-level BPE, English and Chinese"),
    _tiny("clip", "clip.safetensors", "CLIP: the judge, 128 x 128 pictures, English and Chinese"),
    _tiny("critic", "critic.safetensors", "a second CLIP that judges Optimize and Edit and steers nothing"),
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
ROLES = {"codec": "vqgan", "latent": "diffusion"}  # what the full pack's list calls them -> here
FULL = tuple(
    Checkpoint(
        one.name,
        "full",
        ROLES.get(one.role, one.role),
        "",
        one.licence,
        one.origin,
        one.about,
        {"clip": "clip-chinese-tokenizer" if "chinese" in one.name else "clip-tokenizer"}.get(one.role, ""),
        one.memory_bytes,
    )
    for one in FULL_PACK.values()
)
CHECKPOINTS: dict[str, Checkpoint] = {one.name: one for one in (*TINY, *FULL)}
# The kind of network that a converted file holds -> what it can be used as; and the vocabularies of CLIPs.
ROLE_OF_KIND = {
    "openai-clip": "clip",
    "chinese-clip": "clip",
    "dalle-mini": "dalle",
    "rudalle": "dalle",
    "dalle-pytorch": "dalle",
    "dalle-pytorch-vae": "vqgan",
    "openai-dvae": "vqgan",
    "taming-vqgan": "vqgan",
    "ddpm": "unet",
}
TOKENIZER_OF_KIND = {"openai-clip": "clip-tokenizer", "chinese-clip": "clip-chinese-tokenizer"}


def is_known(name: str) -> bool:
    """Whether there is a model of this name, in the catalog or among the user's own."""
    return name in CHECKPOINTS or find(name) is not None


def checkpoint_of(name: str) -> Checkpoint:
    """A checkpoint of the catalog, or one that the user added. BadInput, with the known names, for others."""
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    path = find(name)
    if path is None:
        known = ", ".join(dict.fromkeys([*CHECKPOINTS, *installed()]))
        raise BadInput(f"model {name[:64]!r} is not known; the models are {known}")
    kind = kind_of(path)
    role = ROLE_OF_KIND.get(kind, "")
    if path.suffix != ".safetensors":
        role = "diffusion" if path.is_dir() else "tokenizer"
    facts = ("the user's own file", "added by the user", "")
    return Checkpoint(name, "own", role, "", *facts, TOKENIZER_OF_KIND.get(kind, ""), 2 * size_of(path))


def kind_of(path: Path) -> str:
    """The kind of network that a converted file says it holds; "" for files that do not say, as the tiny pack's."""
    try:
        with safe_open(path, "np") as file:
            return (file.metadata() or {}).get("kind", "")
    except (SafetensorError, OSError):
        return ""  # who reads its weights will say what is wrong with it


_JUDGES = {"clip": "clip-vit-b-32", "critic": "clip-vit-b-16"}


def _dalle(dalle: str, tokenizer: str, vqgan: str) -> dict[str, str]:
    return {"tokenizer": tokenizer, "dalle": dalle, "vqgan": vqgan, "clip": _JUDGES["clip"]}


_MEGA = _dalle("dalle-mega", "dalle-mega-tokenizer", "vqgan-dalle-mini")
_MINI = _dalle("dalle-mini", "dalle-mini-tokenizer", "vqgan-dalle-mini")
_MALEVICH = _dalle("rudalle-malevich", "rudalle-tokenizer", "vqgan-rudalle")
_OPTIMIZE = {"vqgan": "vqgan-f16-16384", **_JUDGES}
_CHINESE = {"vqgan": "vqgan-f16-16384", "clip": "clip-chinese-vit-b-16", "critic": "clip-chinese-vit-b-16"}


def _edit(unet: str) -> dict[str, str]:
    return {"unet": unet, **_JUDGES}


def _latent(diffusion: str) -> dict[str, dict[str, str]]:
    return {
        "diffuse": {"diffusion": diffusion, "clip": _JUDGES["clip"]},
        "optimize": _OPTIMIZE,
        "edit": _edit("ddpm-ema-celebahq-256"),
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
    "full": {"generate": _MEGA, "optimize": _OPTIMIZE, "edit": _edit("ddpm-ema-celebahq-256")},
    "mini": {"generate": _MINI, "optimize": _OPTIMIZE, "edit": _edit("ddpm-ema-celebahq-256")},
    "malevich": {"generate": _MALEVICH, "optimize": _OPTIMIZE, "edit": _edit("ddpm-ema-celebahq-256")},
    "chinese": {"generate": _MINI, "optimize": _CHINESE, "edit": _edit("ddpm-ema-celebahq-256")},
    "church": {"generate": _MEGA, "optimize": _OPTIMIZE, "edit": _edit("ddpm-ema-church-256")},
    "bedroom": {"generate": _MEGA, "optimize": _OPTIMIZE, "edit": _edit("ddpm-ema-bedroom-256")},
    "sd-1.5": _latent("stable-diffusion-1.5"),
    "sd-2.1": _latent("stable-diffusion-2.1"),
    "sd-turbo": _latent("sd-turbo"),
    "sd-xl": _latent("stable-diffusion-xl"),
}


def parts_of(pack: str) -> dict[str, dict[str, str]]:
    """Pipeline -> field -> checkpoint. BadInput for an unknown pack."""
    if pack not in PRESETS:
        raise BadInput(f"pack {pack[:64]!r} is not known; try {', '.join(PRESETS)}")
    return PRESETS[pack]


def check_use(pack: str, use: dict[str, str]) -> None:
    """BadInput unless each name is that of a model which can be this part of the pack."""
    usual = {field: name for parts in parts_of(pack).values() for field, name in parts.items()}
    for field, name in use.items():
        if field not in usual:
            raise BadInput(
                f"part {field[:64]!r} is not in the pack {pack}; it has {', '.join(sorted(usual))}"
            )
        found, wanted = (_purpose(checkpoint_of(one)) for one in (name, usual[field]))
        if found != wanted:
            raise BadInput(f"{name} cannot be the {field}, for it is of another kind; try {usual[field]}")


def _purpose(checkpoint: Checkpoint) -> str:
    """Its role; any CLIP can be a critic, and any critic is a CLIP."""
    return "clip" if checkpoint.role == "critic" else checkpoint.role


def preset(pack: str, pipeline: str, use: dict[str, str] | None = None) -> dict[str, str]:
    """What a pipeline of a pack is made of, with some of its parts replaced: {"clip": "clip-vit-l-14"}.

    BadInput for an unknown pack and for a pipeline that it has not.
    """
    pipelines = parts_of(pack)
    if pipeline not in pipelines:
        raise BadInput(f"pipeline {pipeline!r} is not in the pack {pack}; it has {', '.join(pipelines)}")
    return {field: (use or {}).get(field, name) for field, name in pipelines[pipeline].items()}


def needed(pack: str, use: dict[str, str] | None = None) -> list[Checkpoint]:
    """Every checkpoint of a pack, tokenizers included, each once."""
    parts = [preset(pack, pipeline, use) for pipeline in parts_of(pack)]
    return with_tokenizers(name for one in parts for name in one.values())


def with_tokenizers(names: Iterable[str]) -> list[Checkpoint]:
    """These checkpoints and, after them, the vocabularies with which their CLIPs read, each once."""
    found = [checkpoint_of(name) for name in dict.fromkeys(names)]
    found += [checkpoint_of(one.tokenizer) for one in found if one.tokenizer]
    return list({one.name: one for one in found}.values())
