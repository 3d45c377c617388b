"""An Edit at tiny size, and a direction that it learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.edit.inputs import LARGE
from pipelines.edit.pipeline import Edit
from tests.support.edit import (
    random_direction,
    smooth,
)
from tests.support.tiny import tiny_edit


@pytest.fixture(scope="module")
def edit() -> Edit:
    return tiny_edit()


@pytest.fixture(scope="module")
def saved(edit: Edit, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two directions in files."""
    folder = tmp_path_factory.mktemp("directions")
    paths = [folder / "one.safetensors", folder / "other.safetensors"]
    for seed, path in enumerate(paths):
        random_direction(edit.unet, seed).save(path)
    return paths


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little more than LARGE pixels."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    assert LARGE < 1500 * 800
    smooth((1500, 800)).save(path)
    return path
