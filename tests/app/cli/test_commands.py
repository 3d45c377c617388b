"""The table of commands, and the documents written from it."""

from __future__ import annotations

from importlib import import_module

import pytest

from app.cli.commands import COMMANDS, overview
from app.cli.main import main
from app.cli.reference import TABLE, documents
from pipelines.studio import PIPELINES


def test_every_command_has_a_module_or_is_a_pipeline() -> None:
    assert {command.verb for command in COMMANDS if not command.module} == {*PIPELINES, "test"}
    for command in COMMANDS:
        assert not command.module or callable(import_module(command.module).main)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed == overview()
    for command in COMMANDS:
        assert f"{command.usage}  " in printed and command.summary in printed


def test_readme_and_reference_are_as_the_commands_say() -> None:
    """python -m app.cli.reference writes them."""
    for path, content in documents():
        assert path.read_text("utf-8") == content, f"{path.name} is out of date: python -m app.cli.reference"


def test_the_readme_has_a_place_for_the_table() -> None:
    readme, content = next(iter(documents()))
    match = TABLE.search(content)
    assert readme.name == "README.md" and match
    for command in COMMANDS:
        assert f"| `{command.usage}` |" in match[0]
