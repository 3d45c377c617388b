"""The short form of `python launch.py soak`: every trial once over a server without networks, and that it can fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from app.soak import Caller, Server, Soak
from tests.support.pictures import noise

SMALL: dict[str, dict[str, Any]] = {
    "generate": {"candidates": 1, "keep": 1},
    "optimize": {"steps": 10},
    "diffuse": {"candidates": 1, "keep": 1},
}


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    folder = tmp_path_factory.mktemp("soak")
    noise(24).save(folder / "a.png")
    command = [sys.executable, "-m", "tests.support.painted_server", "{port}", "{folder}"]
    server = Server(command, folder / "outputs", folder / "log.txt")
    server.start()
    yield Soak(server, SMALL, (folder / "a.png").read_bytes(), seed=3)
    server.kill()


def test_the_short_form_finds_nothing_wrong(soak: Soak) -> None:
    soak.clients(3, 2)
    soak.mutated_pictures(25)
    soak.strangers(150)
    soak.slow_lines(10, 0.5)
    soak.stop(2)
    soak.full_disk()
    soak.kill()
    soak.clients(1, 1)
    assert soak.wrong == []
    assert soak.rows["clients"].tried == 7 and soak.made >= 7
    assert 5 < soak.rows["mutated pictures"].refused < 26
    table = soak.table()
    for name in (
        "clients",
        "mutated pictures",
        "odd requests",
        "slow lines",
        "stop under load",
        "full disk",
        "kills",
        "memory",
    ):
        assert f"| {name} |" in table


def test_what_is_wrong_is_counted(soak: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    again = Soak(soak.server, SMALL, soak.picture)
    monkeypatch.setattr("app.soak._prompt_in", lambda *_: "somebody else's")
    again.clients(1, 1)
    assert len(again.wrong) == 1 and "somebody else's" in again.wrong[0]
    again.curve = [(0, 100.0), (100, 100.0), (200, 110.0), (300, 130.0)]
    assert again.memory().wrong == ["130 MB, +20.0 MB in 100 jobs of the second half"]
    answer = SimpleNamespace(status_code=500, text="Internal Server Error")
    assert Caller._refusal(answer)[0] == "broken"  # type: ignore[arg-type]
