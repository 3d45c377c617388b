"""Errors are codes with facts; every code has its words in both languages."""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from pipelines.errors import FOLDER, BadInput, CannotSave, Message, templates

ROOT = Path(__file__).parents[2]
RAISED = ("BadInput", "CannotSave", "Message", "Refused", "Unavailable")


def calls(path: Path) -> Iterator[tuple[list[str] | None, set[str], int]]:
    """For each error that a file makes: its codes (None: not written in place), the names of its facts, its line."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED:
            facts = {str(keyword.arg) for keyword in node.keywords}
            if node.func.id == "Message":  # Message(code, {"name": value})
                facts = {key.value for arg in node.args[1:] if isinstance(arg, ast.Dict) for key in arg.keys}  # type: ignore[union-attr,misc]
            yield codes(node.args[0]), facts, node.lineno


def codes(node: ast.expr) -> list[str] | None:
    if isinstance(node, ast.IfExp):
        both = codes(node.body), codes(node.orelse)
        return None if None in both else [code for one in both for code in one or []]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


def fields(template: str) -> set[str]:
    """The names between the braces of a template, those of nested format specs too."""
    names: set[str] = set()
    for _, name, spec, _ in Formatter().parse(template):
        names |= ({name} if name is not None else set()) | (fields(spec) if spec else set())
    return names


SOURCES = [
    path
    for path in sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("pipelines/**/*.py")])
    if path != ROOT / "pipelines" / "errors.py"
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_error_has_its_words(path: Path) -> None:
    plain = []
    for found, facts, line in calls(path):
        if found is None or any(code not in templates() for code in found):
            plain.append(f"{path.name}:{line} has no words: {found or 'not written in place'}")
            continue
        for code in found:
            assert facts == fields(templates()[code][0]), f"{path.name}:{line} {code}"
    assert not plain


def test_all_words_are_used() -> None:
    used = {code for path in SOURCES for found, _, _ in calls(path) for code in found or []}
    assert not set(templates()) - used


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_both_languages_say_the_same(file: Path) -> None:
    for code, (english, chinese) in json.loads(file.read_text("utf-8")).items():
        assert code.partition(".")[0] == file.stem
        assert fields(english) == fields(chinese), code
        words = "".join(text for text, *_ in Formatter().parse(english))
        assert is_chinese(chinese) or not any(letter.isalpha() for letter in words), code
        assert not is_chinese(english), code
        assert not re.search(r"(?<!\.\.)[.。]$", english) and not chinese.endswith("。"), (
            code
        )  # who shows it ends it


def test_an_error_says_its_sentence_in_both_languages() -> None:
    error = CannotSave("io.disk_full", file="a.png")
    assert str(error) == "a.png was not saved: the disk is full; free some space and run it again"
    assert error.text("zh").startswith("a.png 没有存下来：磁盘已满")


def test_errors_travel_with_code_and_facts() -> None:
    inner = BadInput("io.picture_frames", frames=2)
    error = BadInput("io.picture_of_folder", file=Path("a.png"), problem=inner)
    for back in (
        pickle.loads(pickle.dumps(error)),  # noqa: S301
        BadInput.from_json(json.loads(json.dumps(error.to_json()))),
    ):
        assert type(back) is BadInput and back.message == error.message
        assert str(back) == "a.png: the picture has 2 frames; save one of them as a still PNG"
        assert back.text("zh") == f"a.png：{inner.text('zh')}"
    assert error.to_json()["facts"]["file"] == "a.png"


def test_what_is_no_known_code_stands_for_itself() -> None:
    """Plain text of an earlier version, and a code of a later one, are shown and never fail."""
    for text in ("there is {no} such thing", "later.code"):
        assert Message.from_json(text).text() == Message.from_json(text).text("zh") == text
    assert Message("io.disk_full", {"folder": "x"}).text("zh").startswith("io.disk_full")
    assert Message.from_json({"code": "io.disk_full"}).text().startswith("{'code'")


def test_the_label_of_a_setting_comes_from_who_shows_it() -> None:
    message = Message(
        "optimize.side_not_multiple", {"setting": "width", "side": 99, "factor": 16, "least": 32, "near": 96}
    )
    assert message.text() == "width 99 is not a multiple of 16 from 32 on; try 96"
    assert message.text("zh", {"width": "宽"}) == "宽 99 不是从 32 起 16 的倍数，可以用 96"
