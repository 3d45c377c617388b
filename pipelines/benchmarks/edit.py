"""`python launch.py bench edit`: the modes beside the paper's recipe, and what it saves to work inputs out once."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from statistics import median
from typing import Any

from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result
from pipelines.edit.inputs import read_inputs
from pipelines.edit.pipeline import Edit
from pipelines.edit.results import as_pictures
from pipelines.edit.settings import EditSettings
from pipelines.io.images import picture_to_uri, to_pil
from pipelines.studio import Studio


def bench_edit(device: str = "auto", texts: tuple[str, str] = ("face", "angry face")) -> dict[str, Any]:
    """The modes of Edit beside the paper's recipe: seconds, and both judges' directional similarity on pictures that no
    recipe learned from (quick aside, which learns from the very picture)."""
    studio = Studio("tiny", device)
    edit = studio.pipeline("edit")
    assert isinstance(edit, Edit)
    text = edit.clip.encode_text([texts[0]])
    rows = edit.pictures.nearest(edit.clip, text, 56)[50:]  # the nearest 50 are the lessons
    side = edit.unet.config.image_size
    pictures = [picture_to_uri(image) for image in to_pil(edit.pictures.tensor(rows, side))]
    settings = EditSettings(source=texts[0], prompt=texts[1], strip=1)
    _edited(edit, replace(settings, mode="instant"), pictures[:1])  # warms up
    figures: dict[str, Any] = {
        "device": studio.device,
        "texts": " -> ".join(texts),
        "pictures": len(pictures),
    }
    learned: dict[str, float] = {}
    for mode in ("instant", "quick", "reusable", "paper"):
        chosen = replace(settings, mode=mode)
        if mode in ("reusable", "paper"):
            begun, journal = time.perf_counter(), Journal()
            if mode == "paper":  # as published: plain inversion, L1 of 0.3, nothing else
                chosen = replace(chosen, inversion_iterations=0, l1_weight=0.3, tv_weight=0.0)
            *_, result = run(edit, replace(chosen, image=pictures[0]), journal)
            assert isinstance(result, Result) and isinstance(result.settings, EditSettings)
            direction = edit.direction(result.settings, journal)
            learned[mode] = figures[f"{mode}: seconds to learn"] = time.perf_counter() - begun
            figures[f"{mode}: kB of the direction"] = len(direction.to_bytes()) / 1e3
            chosen = replace(settings, directions=direction.to_uri())
        figures |= {f"{mode}: {name}": value for name, value in _edited(edit, chosen, pictures).items()}
        if mode == "quick":
            learned[mode] = figures["quick: seconds a picture"]
        print("  ".join(f"{k} {v:.3g}" for k, v in figures.items() if k.startswith(mode)), file=sys.stderr)
    for mode in ("quick", "reusable"):
        figures[f"{mode}: times faster than the paper's recipe"] = learned["paper"] / learned[mode]
    return figures | _inputs_once(edit, replace(settings, target_images=" | ".join(pictures)), pictures[0])


def _edited(edit: Edit, settings: EditSettings, pictures: list[str]) -> dict[str, float]:
    """Means over pictures: seconds, and what Edit tells of its result."""
    figures: dict[str, list[float]] = {}
    for picture in pictures:
        *_, result = run(edit, replace(settings, image=picture))
        assert isinstance(result, Result)
        figures.setdefault("seconds a picture", []).append(result.seconds)
        for name in ("clip direction", "critic direction", "SSIM"):
            figures.setdefault(name, []).append(result.pictures[0].facts[name])
    return {name: sum(values) / len(values) for name, values in figures.items()}


def _inputs_once(
    edit: Edit, settings: EditSettings, picture: str, count: int = 5, rounds: int = 5
) -> dict[str, float]:
    """What a strip gains because its inputs are worked out once: the picture decoded, and the direction to the examples.

    The slow side works them out anew for each picture of the strip. Both sides judge the same edited pictures, and must
    give the same figures.
    """
    settings = edit.prepare(replace(settings, mode="instant", strip=count, image=picture))
    *_, result = run(edit, settings)
    assert isinstance(result, Result)
    images = {edited.facts["strength"]: edited.image for edited in result.pictures}

    def judged(strengths: list[float]) -> list[dict[str, Any]]:
        pictures = as_pictures(
            settings, read_inputs(edit, settings), strengths, [images[strength] for strength in strengths]
        )
        return [edited.facts for edited in pictures]

    once, anew = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        shared = judged(list(images))
        middle = time.perf_counter()
        apart = [facts for strength in images for facts in judged([strength])]
        once.append(middle - begun)
        anew.append(time.perf_counter() - middle)
        for facts, shared_facts in zip(
            sorted(apart, key=_strength), sorted(shared, key=_strength), strict=True
        ):
            assert abs(facts["clip direction"] - shared_facts["clip direction"]) < 1e-3
    whole = result.seconds - median(once) + median(anew)
    name = f"strip of {count}"
    return {
        f"{name}: seconds": result.seconds,
        f"{name}: seconds of inputs and figures": median(once),
        f"{name}: the same, inputs anew for each picture": median(anew),
        f"{name}: inputs and figures, times faster": median(anew) / median(once),
        f"{name}: the whole run, times faster": whole / result.seconds,
    }


def _strength(facts: dict[str, Any]) -> float:
    return facts["strength"]
