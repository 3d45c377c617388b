"""Several prompts in one text."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.several import MOST, prompts_in, read_prompts
from pipelines.errors import BadInput


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("{red|blue|green} heart", ["red heart", "blue heart", "green heart"]),
        ("{a|b} {c|d}", ["a c", "a d", "b c", "b d"]),
        ("a cat\n\n  a dog \na cat\n", ["a cat", "a dog"]),
        ("{a|{b|c} d} e", ["a e", "b d e", "c d e"]),
        ("｛红｜蓝｝色的心", ["红色的心", "蓝色的心"]),
        ("a {|big} cat", ["a cat", "a big cat"]),
        ("{a} cat", ["{a} cat"]),
        ("a castle | fog:0.5", ["a castle | fog:0.5"]),
        ("", []),
    ],
)
def test_lines_and_braces_are_prompts(text: str, prompts: list[str]) -> None:
    assert prompts_in(text) == prompts


def test_too_many_are_refused_before_they_are_made() -> None:
    for text in ("{a|b}" * 30, "\n".join(map(str, range(MOST + 1)))):
        with pytest.raises(BadInput, match=f"more than {MOST} prompts"):
            prompts_in(text)


def test_a_file_is_text_in_any_usual_form(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for data in ("\ufeff红心\r\ncat".encode(), "红心\ncat".encode("utf-16")):
        file.write_bytes(data)
        assert prompts_in(read_prompts(file)) == ["红心", "cat"]
    for data, words in ((b"\xff\xd8\x00", "no text"), (b" \n", "holds no prompt")):
        file.write_bytes(data)
        with pytest.raises(BadInput, match=words):
            read_prompts(file)
