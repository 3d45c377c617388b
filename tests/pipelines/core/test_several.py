"""Several prompts in one text."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.several import MOST, MOST_BYTES, prompts_in, read_prompts
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
        ("{2$$red|blue} {a|b}", ["{2$$red|blue} a", "{2$$red|blue} b"]),
        ("${x=a|b} cat", ["${x=a|b} cat"]),
        (r"\{a|b\} c", [r"\{a|b\} c"]),
        ("{a|b} {c", ["a {c", "b {c"]),
        ("{|}", []),
        ('{"prompt": "a cat | dog", "seed": 3}', ["a cat | dog"]),
        ('{\n "prompt": "a cat",\n "seed": 3\n}', ["a cat"]),
        ('["a cat", {"prompt": "a dog"}]', ["a cat", "a dog"]),
        ('{"seed": 3, "x": "a|b"}', ['{"seed": 3, "x": "a|b"}']),
        (
            "a cat\nNegative prompt: dog\nSteps: 20, Seed: 5",
            ["a cat Negative prompt: dog Steps: 20, Seed: 5"],
        ),
        ("{0.5::cat|2::dog} animal", ["cat animal", "dog animal"]),
        ("{~cat|dog}", ["cat", "dog"]),
        ("1. a cat\n2) a dog\n\n3、a frog", ["a cat", "a dog", "a frog"]),
        ("- a cat\n• a dog", ["a cat", "a dog"]),
        ("1. a cat", ["1. a cat"]),
        ("1. a cat\n3.5 inches", ["1. a cat", "3.5 inches"]),
        ("${x=!{cat|dog}} ${x}", ["${x=!{cat|dog}} ${x}"]),
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
    for data in ("\ufeff红心\r\ncat".encode(), "红心\ncat".encode("utf-16"), "红心\rcat\r\n".encode()):
        file.write_bytes(data)
        assert prompts_in(read_prompts(file)) == ["红心", "cat"]
    for data, words in (
        (b"\xff\xd8\x00", "no text"),
        ("红心".encode("gbk"), "no text"),
        ("a cat".encode("utf-16-le"), "no text"),
        (b" \n", "holds no prompt"),
        (b"a cat\n" * MOST_BYTES, "more than 200 kB"),
    ):
        file.write_bytes(data)
        with pytest.raises(BadInput, match=words):
            read_prompts(file)
    with pytest.raises(BadInput, match=r"none\.txt cannot be read"):
        read_prompts(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", '\ufeffseed,Prompt\n1,"a cat, on grass"\n2,a dog\n'),
        ("a.csv", "seed;prompt\r\n1;a cat, on grass\r\n2;a dog\r\n3;\r\n"),
        ("a.tsv", "提示词\t种子\na cat, on grass\t1\na dog\t2"),
        ("a.csv", '"a cat, on grass"\na dog'),
        ("a.json", '["a cat, on grass", {"prompt": "a dog", "seed": 3}]'),
        ("a.json", '{"prompts": ["a cat, on grass", "a dog"]}'),
        ("a.csv", "sep=;\nprompt;seed\na cat, on grass;1\na dog;2"),
        ("a.csv", 'prompt,seed\r"a cat, on grass",1\ra dog,2\r'),
        ("a.csv", 'prompt\n"a cat,\n on grass"\na dog'),
        ("a.jsonl", '{"prompt": "a cat, on grass"}\n\n{"prompt": "a dog"}'),
        ("a.txt", "a cat, on grass\n\n  a dog "),
    ],
)
def test_tables_have_their_prompts_in_a_column(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert prompts_in(read_prompts(tmp_path / name)) == ["a cat, on grass", "a dog"]


def test_a_table_with_a_giant_cell_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt\n" + "x" * 150_000)
    with pytest.raises(BadInput, match="cannot be read as a table"):
        read_prompts(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "a,b\n1,2"),
        ("a.json", '{"seed": 3}'),
        ("a.json", "[1]"),
        ("a.jsonl", "no json"),
        ("a.json", "[" * 9),
    ],
)
def test_tables_without_prompts_are_named(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(BadInput, match=f"{name} has no column prompt"):
        read_prompts(tmp_path / name)
