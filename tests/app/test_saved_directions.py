"""The shelf of directions among strange files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from app.saved_directions import Shelf
from pipelines.edit.directions import Direction

FACTS = {"source": "a face", "target": "an angry face"}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the system itself allows no such names")
def test_a_strange_file_takes_away_no_direction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(lambda: tmp_path)
    folder = tmp_path / "directions"
    folder.mkdir()
    (folder / "good.safetensors").write_bytes(b"read by the name alone")
    (folder / "gone.safetensors").symlink_to(folder / "nowhere")
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nothing")
    with open(os.fsencode(folder) + b"/\xba\xec.safetensors", "wb") as file:
        file.write(b"nothing")

    def read(path: Path) -> Direction:
        if path.name != "good.safetensors":
            raise MemoryError  # nobody thought of it
        return Direction({"a": torch.zeros(1)}, FACTS)

    monkeypatch.setattr("app.saved_directions.read_direction", read)
    assert [kept.name for kept in shelf.kept()] == ["good.safetensors"]
    assert shelf.kept()[0].words == ("a face", "an angry face")
