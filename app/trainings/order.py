"""What a training was asked for, and the command that it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput
from pipelines.models.pack_card import check_pack_name
from pipelines.training.own import PACK, SAVE_SECONDS, Plan

SAMPLE_MINUTES = 1.0
SIZES = ("tiny", "small", "base")
LEAST_MINUTES, MOST_MINUTES = 0.5, 100_000.0


@dataclass(frozen=True)
class Order:
    """One training: a network, or all of a pack's, on `data`, a folder of pictures. `out` is the pack's folder."""

    network: str
    data: str
    pack: str
    out: str
    licence: str = ""  # of the pictures
    minutes: float = 20.0
    size: str = "tiny"
    seed: int = 0
    steps: int | None = None  # a budget in steps in place of minutes
    batch: int | None = None

    def __post_init__(self) -> None:
        check_pack_name(self.pack)
        if self.size not in SIZES:
            raise BadInput("training.size_unknown", size=self.size[:40], known=", ".join(SIZES))
        if not LEAST_MINUTES <= self.minutes <= MOST_MINUTES:
            raise BadInput("training.minutes_range", least=LEAST_MINUTES, most=f"{MOST_MINUTES:,.0f}")
        if not 0 <= self.seed < 2**32:
            raise BadInput("training.seed_range", most=2**32 - 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Order:
        """What `to_dict` gave; fields of another version are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def plan(self) -> dict[str, float]:
        """Minutes of each network, in order."""
        return Plan.of(self.minutes).minutes if self.network == PACK else {self.network: self.minutes}

    def arguments(self, state: Path, control: Path) -> list[str]:
        """The words after `python launch.py train`."""
        words = [self.network, "--size", self.size, "--seed", str(self.seed), "--out", self.out]
        words += ["--steps", str(self.steps)] if self.steps else ["--minutes", f"{self.minutes:g}"]
        words += ["--batch", str(self.batch)] if self.batch else []
        words += ["--data", self.data]
        words += [f"--licence={self.licence}"] if self.licence else []  # which may begin with a dash
        words += ["--state", str(state), "--control", str(control), "--background"]
        words += ["--save-every", f"{SAVE_SECONDS:g}", "--sample-every", f"{SAMPLE_MINUTES:g}"]
        return words
