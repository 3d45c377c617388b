"""The card of a user's pack: pack.json, which says of each part where it comes from and which others it stands on."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput
from pipelines.io.files import path_to_write, write_atomically
from pipelines.io.values import is_dict
from pipelines.models.checkpoint import file_hash

CARD = "pack.json"
PACK_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
TAKEN = (  # by packs of weights/catalog.py, which a user's pack of the same name could not be told from
    *("tiny", "full", "mini", "malevich", "chinese", "church", "bedroom", "sd-turbo", "sd-xl", "sdxl-turbo"),
    *("z-image", "flux2-klein", "flux1-schnell", "sana-sprint"),
)
VOCABULARY = "tokenizer"  # the part that is no network; words.txt, the words of the captions, lies beside it
# part -> the parts that it was trained over and does not fit without
STANDS_ON = {"prior": ("clip", "codec"), "dalle": ("vqgan",)}


def packs_folder() -> Path:
    """The folder of a user's packs: ATELIER_PACKS, or packs/ in the project's folder when that is not set."""
    folder = os.environ.get("ATELIER_PACKS")
    return path_to_write(folder) if folder else Path(__file__).parents[2] / "packs"


def check_pack_name(name: str) -> None:
    """BadInput when a user's pack cannot have this name."""
    if not PACK_NAME.fullmatch(name):
        raise BadInput("training.pack_name", name=name[:60])
    if name in TAKEN:
        raise BadInput("training.pack_taken", name=name)


@dataclass(frozen=True)
class Part:
    """One file of a pack. `stands_on` are the SHA-256 of the parts that it was trained over; `facts` tell its training."""

    file: str
    sha256: str
    origin: str  # "trained", or the pack that it was copied from
    stands_on: dict[str, str] = field(default_factory=dict[str, str])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class PackCard:
    """A pack: the licence and the facts of the pictures that it was trained on, and its parts by name."""

    licence: str
    data: dict[str, Any]
    parts: dict[str, Part] = field(default_factory=dict[str, Part])

    def fits(self, name: str) -> bool:
        """Whether the pack has a part of this name whose bases are still those that it was trained over."""
        part = self.parts.get(name)
        return part is not None and all(
            base in self.parts and self.parts[base].sha256 == sha256
            for base, sha256 in part.stands_on.items()
        )

    def with_part(
        self,
        folder: Path,
        name: str,
        origin: str,
        facts: dict[str, Any],
        *,
        kept: bool = False,
        over: str = "",
    ) -> PackCard:
        """The card with the part that now lies in the folder as NAME.safetensors, the vocabulary as NAME.json.

        With `kept`, parts that stand on it still do, because what they read of it stayed the same. `over` names the part
        whose tokens it learned, where that is not the one in STANDS_ON.
        """
        file = f"{name}.json" if name == VOCABULARY else f"{name}.safetensors"
        sha256, before = file_hash(folder / file), self.parts.get(name)
        parts = dict(self.parts)
        for other, one in parts.items() if kept and before else ():
            if one.stands_on.get(name) == before.sha256:  # pyright: ignore[reportOptionalMemberAccess]
                parts[other] = replace(one, stands_on={**one.stands_on, name: sha256})
        named = (over,) if over else STANDS_ON.get(name, ())
        bases = {base: parts[base].sha256 for base in named if base in parts}
        parts[name] = Part(file, sha256, origin, bases, facts)
        return replace(self, parts=parts)

    def write(self, folder: Path) -> None:
        """Write it into the folder. CannotSave when that is impossible."""
        write_atomically(
            folder / CARD, json.dumps(asdict(self), ensure_ascii=False, indent=1).encode() + b"\n"
        )

    @classmethod
    def read(cls, folder: Path) -> PackCard | None:
        """The card of a folder, None when it has none. BadInput when it is damaged."""
        try:
            values: Any = json.loads((folder / CARD).read_text("utf-8"))
            parts = {str(name): Part(**part) for name, part in values.pop("parts").items()}
            card = cls(**values, parts=parts)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BadInput("models.weights_damaged", file=CARD, reason=type(error).__name__) from None
        if not is_dict(card.data) or any(Path(part.file).name != part.file for part in parts.values()):
            raise BadInput("models.weights_damaged", file=CARD, reason="ValueError")
        return card
