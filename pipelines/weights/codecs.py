"""Which codec a network learned with: its code book says whose tokens, or whose latents, it draws. And second stages."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import BadInput
from pipelines.io.values import is_dict
from pipelines.models.checkpoint import codes_hash, read_codes
from pipelines.weights.catalog import checkpoint_of, facts_of, is_known
from pipelines.weights.own_packs import card_of

# parts of a pipeline that learned with a codec -> that codec's part
CODEC_OF = {"dalle": "vqgan", "prior": "codec"}
UNTOLD = {"tiny-prior": "tiny-codec"}  # files that do not name theirs
SECOND_STAGE = "transformer"


def check_codecs(names: dict[str, str]) -> None:
    """BadInput when a part of a pipeline draws the tokens or the latents of another codec than the one that it is given.

    `names` are the checkpoints of the pipeline by its fields. Of networks that do not tell what they learned with, such
    as most open weights, nothing is known.
    """
    for part, codec in CODEC_OF.items():
        if part not in names or (codes := codes_learned(names[part])) is None:
            continue
        network, given = names[part], names[codec]
        if codes == _codes_of(given):
            continue
        if not (own := codec_of(network)):
            raise BadInput("studio.codec_is_lost", network=network, codec=given, part=codec)
        raise BadInput(
            "studio.codec_of_others" if part == "dalle" else "studio.latents_of_others",
            network=network,
            codec=given,
            own=own,
        )


def codes_learned(name: str) -> str | None:
    """The hash of the code book that a network learned with; None where nothing tells it. BadInput for unknown names."""
    if codes := _told(name).get("codes"):
        return codes
    usual = UNTOLD.get(_copied(name))
    return _codes_of(usual) if usual else None


def codec_of(name: str) -> str:
    """The codec here that has the code book that a network learned with; "" where there is none. BadInput as above."""
    codes, stem = codes_learned(name), Path(_told(name).get("file", "")).stem
    pack = name.rpartition("-")[0]
    usual = [UNTOLD[_copied(name)]] if _copied(name) in UNTOLD else []
    near = [f"{pack}-{stem}" if pack else stem, stem, f"tiny-{stem}", *usual]
    return next((one for one in near if is_known(one) and codes and _codes_of(one) == codes), "")


def second_stage(pack: str) -> dict[str, str]:
    """The parts of Generate by which the second stage of a pack draws: itself in the DALL·E's place, and its codec.

    It is the one that was trained into the pack, or the one in the folder of models. Empty where there is none.
    """
    name = next((name for name in (f"{pack}-{SECOND_STAGE}", SECOND_STAGE) if is_known(name)), "")
    codec = codec_of(name) if name else ""
    return {"dalle": name, "vqgan": codec} if codec else {"dalle": name} if name else {}


def _told(name: str) -> dict[str, str]:
    """What a network's file says of its codec: "file", which it was, and "codes", the hash of its code book."""
    told = facts_of(checkpoint_of(name).path).get("codec")
    return {key: str(value) for key, value in told.items()} if is_dict(told) else {}


def _copied(name: str) -> str:
    """The network of the tiny pack that a part of a user's pack was copied from; other names as they are."""
    pack, _, part = name.rpartition("-")
    card = card_of(pack)
    own = card.parts.get(part) if card else None
    return f"tiny-{part}" if own is not None and own.origin == "tiny" else name


def _codes_of(codec: str) -> str | None:
    """The hash of a codec's code book; None where its file has none that can be read."""
    codes = read_codes(checkpoint_of(codec).path)
    return None if codes is None else codes_hash(codes)
