"""The library: what was made, found again by words and by likeness."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from app.library import Library
from pipelines.core.pipeline import Picture
from pipelines.core.record import record_of, write_png
from pipelines.errors import BadInput
from tests.support.fakes import FakeSettings

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


class ColourClip:
    """A judge that knows mean colours and their names, and counts how many pictures it was shown."""

    seen = 0

    def encode_text(self, prompts: list[str]) -> Tensor:
        words = [COLOURS.get(prompt, (1, 1, 1)) for prompt in prompts]
        return F.normalize(torch.tensor(words, dtype=torch.float32), dim=1)

    def encode_image(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return F.normalize((images + 1).mean((2, 3)), dim=1)


def put(folder: Path, name: str, colour: tuple[int, int, int], age: int = 0) -> Path:
    image = Image.new("RGB", (8, 8), colour)
    record = record_of(
        pipeline="fake",
        pack="tiny",
        device="cpu",
        models={},
        settings=FakeSettings(prompt=name),
        picture=Picture(image, 1, 0.5),
        rank=1,
    )
    path = folder / "2026-01-01" / f"{name}.png"
    write_png(path, image, record)
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for age, (name, colour) in enumerate(COLOURS.items()):
        put(tmp_path, name, colour, age)
    Image.new("RGB", (9, 9)).save(tmp_path / "stranger.png")  # no record
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    return tmp_path


def test_recent_are_ours_newest_first(folder: Path) -> None:
    library = Library(folder)
    assert [entry.prompt for entry in library.recent()] == ["red", "green", "blue"]
    assert [entry.prompt for entry in library.recent(1, skip=1)] == ["green"]
    assert library.count() == 3
    assert library.find("blue").prompt == "blue"
    with pytest.raises(BadInput, match="no picture 'mauve'"):
        library.find("mauve")


def test_search_by_words_and_by_likeness(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    found = library.search(clip, "green", 2)
    assert found[0][0].prompt == "green" and found[0][1] > found[1][1]
    alike = library.similar(clip, put(folder, "dark red", (90, 10, 10)), 2)
    assert alike[0][0].prompt in ("red", "dark red")


def test_vectors_are_kept_and_deleted_files_forgotten(folder: Path) -> None:
    clip = ColourClip()
    library = Library(folder)
    library.search(clip, "red")
    probe = clip.seen - 3  # what it costs to see that CLIP is still the same one
    library.close()
    clip.seen = 0
    library = Library(folder)  # after a restart
    library.search(clip, "red")
    assert clip.seen == probe < 3
    clip.seen = 0
    (folder / "2026-01-01" / "red.png").unlink()
    put(folder, "pink", (250, 150, 160))
    assert "red" not in [entry.prompt for entry, _ in library.search(clip, "red")]
    assert clip.seen == probe + 1


def test_a_damaged_index_is_made_anew(folder: Path) -> None:
    Library(folder).close()
    for file in folder.glob("library.sqlite*"):
        file.unlink()
    (folder / "library.sqlite").write_bytes(b"not a database at all" * 200)
    assert Library(folder).count() == 3
