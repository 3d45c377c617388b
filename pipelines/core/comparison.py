"""Comparison of a picture with its replay, pixel by pixel, and of the environments that their records tell."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pipelines.core.record import Record


@dataclass(frozen=True)
class Comparison:
    """How the replay of a picture differs from the picture.

    `largest` and `mean` are the largest and the mean difference of one channel of one pixel, 0 to 255. A record of an
    edit above a megapixel holds a smaller picture; the two are then compared at the smaller size, and never identical.
    """

    identical: bool
    largest: int | None  # None when the sizes differ
    share: float  # of pixels that differ at all, 0 to 1
    environment: list[str] = field(default_factory=list[str])  # what is not as it was, one phrase each
    unknown: list[str] = field(default_factory=list[str])  # what the picture's record does not tell, by name
    mean: float | None = None  # None when the sizes differ
    # (width, height) at which they were compared, when that is smaller
    reduced: tuple[int, int] | None = None

    def sentence(self) -> str:
        """The comparison in one sentence for the user."""
        if self.identical:
            return "identical: every pixel is the same"
        return "; ".join([self._pixels(), *self._causes()])

    def _pixels(self) -> str:
        if self.largest is None:
            return "different: the sizes differ"
        figures = f"the largest pixel difference is {self.largest} of 255, {self.share:.1%} of pixels differ"
        if self.reduced:
            size = f"{self.reduced[0]} x {self.reduced[1]}"
            return (
                f"made smaller: the record holds the start picture reduced to {size}, because it had more than a "
                f"megapixel; with the picture reduced to that size too, {figures}, {self.mean:.2f} of 255 on average"
            )
        return f"different: {figures}"

    def _causes(self) -> list[str]:
        causes = list(self.environment)
        if self.unknown:
            causes.append(f"the record does not tell {', '.join(self.unknown)}")
        if not causes:
            causes.append("the environment is the same in all that the record tells")
        return causes


def compare(old: Image.Image, new: Image.Image, old_record: Record, new_record: Record) -> Comparison:
    """Compare a picture with its replay, pixel by pixel in RGB, and the environments in their two records."""
    changes, unknown = _environments(old_record, new_record)
    reduced = None
    if old.size != new.size:
        if old_record.picture.get("original") != list(old.size):
            return Comparison(False, None, 1.0, changes, unknown)
        reduced = new.size
        old = old.convert("RGB").resize(new.size, Image.Resampling.BOX)
    differences = np.abs(np.asarray(old.convert("RGB"), np.int16) - np.asarray(new.convert("RGB"), np.int16))
    largest, share = int(differences.max(initial=0)), float((differences.max(axis=2) > 0).mean())
    identical = largest == 0 and reduced is None
    return Comparison(identical, largest, share, changes, unknown, float(differences.mean()), reduced)


def _environments(old: Record, new: Record) -> tuple[list[str], list[str]]:
    """What was not as it is, one phrase each, and the names of what the old record does not tell."""
    changes: list[str] = []
    unknown: list[str] = []
    if old.pack != new.pack:
        changes.append(f"pack was {old.pack}, is {new.pack}")
    for role in sorted(old.models.keys() | new.models.keys()):
        then, now = old.models.get(role), new.models.get(role)
        if then is None and role.startswith("reader:"):  # earlier versions did not tell them
            unknown.append(role)
        elif then is None or now is None:
            changes.append(f"the model {role} was {'not there' if then is None else 'there'}")
        elif then["sha256"] != now["sha256"]:
            changes.append(f"the weights of {role} were {then['sha256'][:10]}, are {now['sha256'][:10]}")
    if old.device != new.device:
        changes.append(f"device was {old.device}, is {new.device}")
    apart = ("rounding",)  # it differs with every other cause, and is named where there is none
    for then, now in ((old.versions, new.versions), (old.environment, new.environment)):
        for name in sorted(then.keys() | now.keys()):
            if name not in then:
                unknown.append(name)
            elif name not in apart and then[name] != now.get(name):
                changes.append(f"{name} was {then[name]}, is {now.get(name, 'absent')}")
    rounded = [record.environment.get("rounding") for record in (old, new)]
    if not changes and all(rounded) and rounded[0] != rounded[1]:
        changes.append("this machine rounds in another way, for a reason that the record has no name for")
    return changes, unknown
