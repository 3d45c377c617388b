"""The judge that the repository holds, for figures alone."""

from __future__ import annotations

from pathlib import Path

import torch

from pipelines.evaluation.cli import read_judge
from pipelines.models.checkpoint import read_header

FILE = Path(__file__).parents[3] / "assets" / "judge.safetensors"


def test_it_is_small_and_names_one_thing_of_each_picture() -> None:
    assert FILE.stat().st_size < 6_000_000
    judge = read_judge(FILE)
    _, facts = read_header(FILE)
    assert len(judge.config.things) == 2457 and facts["figures"]["top-1"] >= 0.85
    pictures = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        cosines = judge(pictures)
    assert cosines.shape == (2, 2457) and cosines.abs().max() <= 1 and not torch.equal(*cosines)


def test_nothing_that_draws_or_ranks_knows_it() -> None:
    """Only evaluations and its training do."""
    root = Path(__file__).parents[3]
    users = {
        path.relative_to(root).parts[:2]
        for path in [*root.glob("pipelines/**/*.py"), *root.glob("app/**/*.py")]
        if "models.judge" in path.read_text("utf-8")
    }
    assert users <= {("pipelines", "evaluation"), ("pipelines", "training"), ("pipelines", "models")}
