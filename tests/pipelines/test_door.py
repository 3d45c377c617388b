"""The names that programs import: all of them are there and documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pipelines

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", dir(pipelines))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(pipelines, name)
    if name != "PIPELINES":
        assert value.__doc__ and value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        pipelines.nothing  # noqa: B018, the look-up is the test


def test_the_ten_lines_of_the_readme_draw_a_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(
        r"```python\n(from pipelines import .*?)```", (ROOT / "README.md").read_text("utf-8"), re.S
    )
    assert block and len(block[1].splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(block[1], {"__name__": "readme"})
    files = sorted(tmp_path.glob("*.png"))
    assert files and pipelines.PIPELINES["generate"].Settings is pipelines.GenerateSettings
