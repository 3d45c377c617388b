"""Label sets that were kept: found again, each once, and nothing outside their folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from app.saved_probes import Probes
from pipelines.errors import BadInput
from pipelines.see.probe import Probe


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    probes = Probes(lambda: tmp_path)
    assert probes.kept() == []
    first = Probe(["红心", "../b/c"], torch.eye(2), 10.0, "ab")
    name = probes.keep(first)
    assert probes.keep(first) == name and "/" not in name
    other = probes.keep(Probe(["x", "y"], torch.eye(2), 10.0, "ab"))
    (probes.folder / "damaged.safetensors").write_bytes(b"none")
    assert {taught.name: taught.labels for taught in probes.kept()} == {
        name: ("红心", "../b/c"),
        other: ("x", "y"),
    }
    assert probes.read(name).labels == first.labels
    (tmp_path / "secret.safetensors").write_bytes(first.to_bytes())
    for wrong in ("../secret.safetensors", "none.safetensors", "a/b.safetensors", ""):
        with pytest.raises(BadInput):
            probes.read(wrong)
