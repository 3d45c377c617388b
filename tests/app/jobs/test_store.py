"""The file of jobs, when its folder cannot be used: what is said is why."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from app.jobs.store import JobStore
from pipelines.errors import BadInput, CannotSave
from tests.support.fakes import FAKES


def test_a_second_studio_in_the_folder_is_told_of_the_first(tmp_path: Path) -> None:
    first = JobStore(tmp_path, FAKES)
    with pytest.raises(BadInput, match="another studio already works in"):
        JobStore(tmp_path, FAKES)
    first.close()
    JobStore(tmp_path, FAKES).close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "the disk is full"),
        (sqlite3.SQLITE_READONLY | 1 << 8, "may not be written"),
        (sqlite3.SQLITE_CANTOPEN, "may not be written"),
        (sqlite3.SQLITE_IOERR | 3 << 8, "cannot be used"),
        (sqlite3.SQLITE_CORRUPT, "cannot be used"),
        (sqlite3.SQLITE_BUSY, "another studio"),
    ],
)
@pytest.mark.parametrize("file", ["jobs.lock", "jobs.sqlite"])
def test_why_the_folder_cannot_be_used_is_said(
    code: int, words: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(sqlite3.Connection):
        def execute(self, *_: Any) -> Any:
            problem = sqlite3.OperationalError("as SQLite says it")
            problem.sqlite_errorcode = code  # type: ignore[misc]
            raise problem

    connect = sqlite3.connect

    def opened(path: Path, **options: Any) -> sqlite3.Connection:
        return connect(path, factory=Broken if path.name == file else sqlite3.Connection, **options)

    monkeypatch.setattr("app.jobs.store.sqlite3.connect", opened)
    with pytest.raises((BadInput, CannotSave), match=words) as told:
        JobStore(tmp_path, FAKES)
    assert ("another studio" in str(told.value)) == (code == sqlite3.SQLITE_BUSY)


def test_a_damaged_lock_or_list_is_named(tmp_path: Path) -> None:
    for file in ("jobs.lock", "jobs.sqlite"):
        (tmp_path / file).write_bytes(b"not SQLite's" * 100)
        with pytest.raises(CannotSave, match=rf"{file} cannot be used .* move it away"):
            JobStore(tmp_path, FAKES)
        (tmp_path / file).unlink()
