"""The pack's example pictures: a few hundred of the icons, small. Edit learns its directions from them."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.models.checkpoint import canonical_bytes
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import ICON_SETS, VALIDATION_STYLE, Icon, may_be_mirrored

EXAMPLES_FILE = Path(__file__).parents[3] / "assets" / "tiny" / "pictures.safetensors"
EXAMPLE_COUNT, EXAMPLE_SIZE, EXAMPLE_QUALITY = 640, 64, 90
NO_EXAMPLE = re.compile(  # writing that no name admits, signs, plain shapes, and near copies of one another
    r"circle|square|triangle|suit$|orange diamond|blue diamond|diamond with|asterisk|loop|dash|infinity|prohibited|^no "
    r"|^(?:plus|minus|divide|multiply)$|room$|restroom|closet|customs|passport|baggage|left luggage|placard|cinema"
    r"|antenna bars|wireless|vibration|phone off|information|fleur|trident|radioactive|biohazard|potable|elevator|thirty"
    r"|pointed star|star of david|star and crescent|cross$|dharma|yin yang|khanda|menorah|worship|prayer|headstone"
    r"|speech bubble|speech balloon|anger bubble|slider|control knobs|heart exclamation|speaker|index|chess|motorway"
    r"|bus stop|hospital|hotel|^bank|post office|convenience|police car|taxi|ambulance|slot machine|dvd|optical|fax"
    r"|card|joker|mahjong|e mail|receipt|scroll|memo|ledger|label|page|badge|currency|money bag|coin|red envelope"
    r"|keyboard|chart|pager|battery|facing right|^family|^couple|^kiss (?!mark)|wheelchair|white cane|curly"
    r"|crossing|check box|sparkle$|^fogg?y?$|computer disk|middle finger"
)
EXAMPLE_GROUPS = (  # the largest share, and words of a name or keywords
    (0.42, frozenset(("face", "animal", "smiley"))),
    (0.12, frozenset(("person", "man", "woman", "child", "boy", "girl", "baby", "worker"))),
    (0.16, frozenset(("food", "drink", "fruit", "vegetable", "dessert", "breakfast", "flower", "plant"))),
)


def pick_examples(icons: list[Icon], count: int = EXAMPLE_COUNT, seed: int = 0) -> list[int]:
    """Up to `count` indices of training icons, each of another thing, all styles about as often; the same every time.

    A thing is what has one Chinese name, so that two sets may call it differently. Things with writing, signs, zodiac
    signs, plain shapes and things without a Chinese name (whose English one is often garbled) are left out. Faces,
    animals, people and food come first, as EXAMPLE_GROUPS has it; whatever else there is fills up.
    """
    concepts: dict[str, list[int]] = {}
    for k, icon in enumerate(icons):
        if icon.style != VALIDATION_STYLE and icon.chinese:
            concepts.setdefault(icon.chinese, []).append(k)
    groups: list[list[str]] = [[] for _ in range(len(EXAMPLE_GROUPS) + 1)]
    for concept, drawings in concepts.items():
        names = [name for k in drawings for name in (icons[k].name, *icons[k].also)]
        words = {*icons[drawings[0]].keywords, *names[0].split()}
        plain = all(may_be_mirrored(icons[k]) for k in drawings) and "zodiac" not in words
        if not plain or any(NO_EXAMPLE.search(name) for name in names):
            continue
        places = (k for k, (_, about) in enumerate(EXAMPLE_GROUPS) if words & about)
        groups[next(places, len(EXAMPLE_GROUPS))].append(concept)
    rng, chosen = np.random.default_rng(seed), []
    for (share, _), group in zip((*EXAMPLE_GROUPS, (1.0, frozenset())), groups, strict=True):
        most = min(round(share * count), count - len(chosen))
        chosen += [group[k] for k in rng.permutation(len(group))[:most]]
    uses, picked = dict.fromkeys(ICON_SETS, 0), []
    for concept in (chosen[k] for k in rng.permutation(len(chosen))):
        k = min(concepts[concept], key=lambda k: uses[icons[k].style])
        uses[icons[k].style] += 1
        picked.append(k)
    return picked


def write_examples(emoji: Dataset, path: Path = EXAMPLES_FILE, count: int = EXAMPLE_COUNT) -> None:
    """Write the pictures that Edit learns from: icons on white, of the size at which `emoji` was read, as lossy WebP."""
    picked = pick_examples(emoji.icons, count)
    if not picked:
        raise BadInput("training.no_example_icons")
    styles = [name for name in ICON_SETS if name != VALIDATION_STYLE]
    sets = ", ".join(
        f"@iconify-json/{name} {ICON_SETS[name].version} ({ICON_SETS[name].licence})" for name in styles
    )
    licence = (
        f"icons of {sets}, each under its set's licence, made smaller and laid on white; see assets/NOTICE"
    )
    size = _write(emoji, picked, licence, path)
    print(f"{path}: {len(picked):,} pictures, {size / 1e6:.2f} MB", file=sys.stderr)


def write_own_examples(data: Dataset, path: Path, count: int = EXAMPLE_COUNT) -> None:
    """Write the pictures that Edit learns from out of a user's: up to `count` of those that are trained on, evenly."""
    chosen = min(count, len(data.train))
    _write(data, [int(data.train[k * len(data.train) // chosen]) for k in range(chosen)], data.licence, path)


def _write(data: Dataset, picked: list[int], licence: str, path: Path) -> int:
    """Write pictures on white with their names; returns the bytes of the file."""
    from safetensors.numpy import save

    blobs = []
    for k in picked:
        file = io.BytesIO()
        Image.fromarray(on_background(data.rgba[k])).save(file, "WEBP", quality=EXAMPLE_QUALITY, method=6)
        blobs.append(file.getvalue())
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0] + [len(blob) for blob in blobs]).astype(np.int64),
    }
    facts = {
        "names": [data.icons[k].name for k in picked],
        "styles": [data.icons[k].style for k in picked],
        "licence": licence,
        "data": data.hash,
    }
    config = {"image_size": data.rgba.shape[1], "count": len(picked)}
    metadata = {"config": json.dumps(config), "facts": json.dumps(facts, ensure_ascii=False)}
    written = canonical_bytes(save(tensors, metadata))
    write_atomically(path, written)
    return len(written)
