"""Pictures of a style that nothing here learns from or is chosen by, which only measure how edits carry over to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.training.data.dataset import Dataset, data_bytes, on_background
from pipelines.training.data.icons import Icon, IconSet, render

OUTSIDE_NAME = "outside.safetensors"  # beside the data file
STYLE = "openmoji"
OUTSIDE_SET = IconSet("1.2.29", "CC-BY-SA-4.0", "", "")  # measured with, not shipped
OUTSIDE_EDITS = (  # what a picture shows, what it is to show; both are names of the data
    ("red apple", "green apple"),
    ("cat face", "fox"),
    ("cat face", "dog face"),
    ("dog face", "panda"),
    ("dog face", "wolf"),
    ("tiger face", "lion"),
    ("bear", "panda"),
    ("red heart", "purple heart"),
    ("green heart", "blue heart"),
    ("grinning face", "angry face"),
    ("grinning face", "crying face"),
    ("slightly smiling face", "nauseated face"),
    ("sunflower", "rose"),
    ("tangerine", "lemon"),
    ("pear", "pineapple"),
    ("house", "house with garden"),
    ("deciduous tree", "christmas tree"),
    ("evergreen tree", "palm tree"),
    ("automobile", "taxi"),
    ("fish", "tropical fish"),
    ("horse face", "unicorn"),
    ("rabbit face", "mouse face"),
    ("man", "woman"),
    ("strawberry", "cherries"),
)


def write_outside(path: Path, drawings: Mapping[str, str]) -> int:
    """The pictures that OUTSIDE_EDITS begin with, of SVG texts by slug. Returns how many there are."""
    names = list(dict.fromkeys(source for source, _ in OUTSIDE_EDITS))
    rendered = {name: render(drawings[name.replace(" ", "-")]) for name in names}
    found = {name: blob for name, blob in rendered.items() if blob is not None}
    write_atomically(path, data_bytes(list(found.values()), [Icon(STYLE, name) for name in found]))
    return len(found)


def read_outside(path: Path) -> dict[str, Image.Image]:
    """Name -> picture on white, of a file that `write_outside` wrote. BadInput for any other file, and for none."""
    if not path.exists():
        raise BadInput("evaluation.no_outside", file=path)
    try:
        emoji = Dataset(path)
        pictures = on_background(emoji.rgba)
    except (KeyError, IndexError, ValueError, OSError) as error:
        raise BadInput("training.data_strange", file=path) from error
    return {icon.name: Image.fromarray(pixels) for icon, pixels in zip(emoji.icons, pictures, strict=True)}
