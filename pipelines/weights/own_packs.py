"""The packs that a user trained, `train --data FOLDER --out packs/NAME`: which there are, and the models of each.

What a pack lacks, or what no longer fits to its other parts, comes from the tiny pack, with all that it stands on.
"""

from __future__ import annotations

from pipelines.errors import BadInput
from pipelines.models.pack_card import PACK_NAME, VOCABULARY, PackCard, packs_folder
from pipelines.weights.checkpoint import PROJECT, Checkpoint

KINDS = {
    "clip": "clip",
    "critic": "clip",
    "codec": "vqgan",
    "vqgan": "vqgan",
    "vqvae": "vqgan",
    "dvae": "dvae",
    "dalle": "dalle",
    "transformer": "transformer",
    "prior": "prior",
    VOCABULARY: "tokenizer",
    "unet": "unet",
}
TRAINED = "trained by the user: python launch.py train"
BESIDE = ("vqvae", "dvae", "transformer")  # which `train` adds to the tiny pack
PICTURES = "pictures"


def own_packs() -> list[str]:
    """The names of the packs whose card can be read, sorted."""
    try:
        folders = sorted(path for path in packs_folder().iterdir() if PACK_NAME.fullmatch(path.name))
    except OSError:
        return []
    return [folder.name for folder in folders if card_of(folder.name) is not None]


def card_of(pack: str) -> PackCard | None:
    """The card of a user's pack. None where there is none that can be read."""
    try:
        return PackCard.read(packs_folder() / pack) if PACK_NAME.fullmatch(pack) else None
    except BadInput:
        return None


def models_of(pack: str) -> dict[str, dict[str, str]]:
    """The models of a user's pack: pipeline -> field of the pipeline -> checkpoint's name. Empty where there is none."""
    card = card_of(pack)
    if card is None:
        return {}

    def of(part: str) -> str:
        return f"{pack if card.fits(part) else 'tiny'}-{part}"

    judges = {"clip": of("clip"), "critic": of("critic")}
    prior, dalle = of("prior"), of("dalle")
    drawn = {"prior": prior, "codec": of("codec") if prior != "tiny-prior" else "tiny-codec"}
    tokens = {"dalle": dalle, "vqgan": "tiny-vqgan"}
    if dalle != "tiny-dalle":
        tokens["vqgan"] = of(next(iter(card.parts["dalle"].stands_on), "vqgan"))
    return {
        "generate": {"tokenizer": of(VOCABULARY), **tokens, "clip": judges["clip"], **drawn},
        "optimize": {"vqgan": of("codec"), **judges, **drawn},
        "edit": {**drawn, **judges, PICTURES: of(PICTURES)},
        "guide": {**drawn, **judges},
        "diffuse": {**drawn, "clip": judges["clip"]},
    }


def own_parts() -> list[Checkpoint]:
    """The checkpoints of all parts of all packs of the user, and of those that were added to the tiny pack."""
    named = [f"{pack}-{part}" for pack in own_packs() for part in (card_of(pack) or PackCard("", {})).parts]
    named += [f"tiny-{part}" for part in BESIDE]
    return [one for name in named if (one := part_named(name)) is not None]


def part_named(name: str) -> Checkpoint | None:
    """The checkpoint of a part of a user's pack, or of one added to the tiny pack, by its name, PACK-PART.

    None for other names.
    """
    pack, _, part = name.rpartition("-")
    if pack == "tiny":
        return _beside_tiny(part)
    card = card_of(pack)
    if card is None or part not in card.parts:
        return None
    one, kind = card.parts[part], KINDS.get(part, "")
    origin = TRAINED if one.origin == "trained" else f"copied from {one.origin}"
    return Checkpoint(
        name,
        kind,
        licence=str(one.facts.get("licence", card.licence)),
        origin=origin,
        about=", ".join(f"{key} {value:.4g}" for key, value in one.facts.get("figures", {}).items()),
        pack="own",
        role="" if kind and part not in ("critic", VOCABULARY) else part,
        vocabulary=f"{pack}-{VOCABULARY}" if kind == "clip" and card.fits(VOCABULARY) else "",
        file=str((packs_folder() / pack / one.file).absolute()),
    )


def _beside_tiny(part: str) -> Checkpoint | None:
    """The checkpoint of a part that was trained into the tiny pack's folder. None where there is none."""
    file = f"assets/tiny/{part}.safetensors"
    if part not in BESIDE or not (PROJECT / file).is_file():
        return None
    licence = "that of the pictures that it was trained on"
    return Checkpoint(f"tiny-{part}", KINDS[part], licence, TRAINED, "", pack="own", file=file)
