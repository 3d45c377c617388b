"""min-dalle's files of random weights, what its modules and its tokenizer make, and our network of the same weights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from pipelines.models.dalle_mini.convert import merge
from pipelines.models.dalle_mini.network import DalleMini
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.readers import read_original
from tests.support.dalle_mini import GREEDY, GUIDANCE, HEADS, PROMPTS, REFERENCE, made_up_words, network_of


@pytest.fixture(scope="session")  # only read
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with min-dalle's encoder.pt and decoder.pt, and what its modules and its tokenizer make."""
    folder = tmp_path_factory.mktemp("min_dalle")
    (folder / "words.json").write_text(json.dumps([*made_up_words(), PROMPTS]))
    command = [sys.executable, "-c", REFERENCE, str(folder), str(GUIDANCE), str(GREEDY)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def outputs(reference: Path) -> dict[str, Tensor]:
    return load_file(reference / "outputs.safetensors")


@pytest.fixture(scope="module")
def halves(reference: Path) -> tuple[SourceCheckpoint, SourceCheckpoint]:
    """encoder.pt and decoder.pt, and the number of heads, which so narrow a network does not tell."""
    found = [read_original(reference / f"{half}.pt") for half in ("encoder", "decoder")]
    encoder, decoder = (replace(one, metadata=HEADS) for one in found)
    return encoder, decoder


@pytest.fixture(scope="module")
def network(halves: tuple[SourceCheckpoint, SourceCheckpoint]) -> DalleMini:
    return network_of(merge(*halves))
