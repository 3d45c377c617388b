"""What a batch leaves in its folder: pictures, one small file for each row that is done, and one table of all.

Files are written whole or not at all, and the row's own comes last. So a batch that was killed knows which rows are done.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.batch.rows import csv_of
from app.batch.tools import Draw, Judge, Task
from pipelines.core.pipeline import Result, StudioLike
from pipelines.core.record import write_pictures
from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.io.values import is_dict
from pipelines.see.score import Score

TABLES = (".csv", ".parquet")


def check_table(path: Path) -> None:
    """BadInput when the results cannot be written in the form of the path's ending."""
    if path.suffix.lower() not in TABLES:
        raise BadInput("batch.table_kind", file=path.name[:60], known=" or ".join(TABLES))
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise BadInput("batch.no_pyarrow", file=path.name[:60])


class Results:
    """The results of a batch in `folder`. `studio` is asked for the names of the models that made the pictures."""

    def __init__(self, folder: Path, tool: Draw | Judge, studio: StudioLike) -> None:
        self.folder, self.tool, self.studio = folder, tool, studio
        self._kept = {path.stem.rpartition("-")[2]: path for path in (folder / "rows").glob("*.json")}

    def has(self, task: Task) -> bool:
        """Whether a row is done: its file and its pictures are there."""
        facts = self._read(task)
        return facts is not None and all(
            (self.folder / str(line.get("file", ""))).is_file()
            for line in facts["lines"]
            if isinstance(self.tool, Draw)
        )

    def keep(self, task: Task, answer: Result | Score) -> None:
        """Write what a row gave, its pictures first. CannotSave when that does not work."""
        stem = f"{task.row.number:06}-{task.key}"
        if isinstance(answer, Result):
            lines = self._pictures(stem, answer)
        else:
            lines = [{"clip": answer.clip, "critic": answer.critic}]
        path = self.folder / "rows" / f"{stem}.json"
        write_atomically(path, json.dumps({"lines": lines}, allow_nan=False).encode())
        self._kept[task.key] = path

    def _pictures(self, stem: str, result: Result) -> list[dict[str, Any]]:
        assert isinstance(self.tool, Draw)
        made = write_pictures(
            self.folder / "pictures", stem, pipeline=self.tool.pipeline, studio=self.studio, result=result
        )
        return [
            {
                "file": Path(facts["path"]).relative_to(self.folder).as_posix(),
                **{name: facts[name] for name in ("rank", "score")},
                "candidate_seed": str(facts["seed"]),  # too large for a table's whole numbers
                "seconds": round(result.seconds, 3),
            }
            for facts, _ in made
        ]

    def _read(self, task: Task) -> dict[str, Any] | None:
        """What a row gave; None when it is not done, or its file is damaged."""
        with suppress(KeyError, OSError, ValueError, RecursionError):
            facts = json.loads(self._kept[task.key].read_text("utf-8"))
            if is_dict(facts) and isinstance(facts.get("lines"), list):
                return facts
        return None

    def write_table(self, path: Path, tasks: Sequence[Task]) -> int:
        """Write the table of all that is done, a line a picture or a score; returns its lines. CannotSave as ever."""
        lines = [
            {
                "row": task.row.number,
                **{name: _cell(value) for name, value in task.row.values.items()},
                **line,
            }
            for task in tasks
            for line in (self._read(task) or {"lines": []})["lines"]
        ]
        write_atomically(
            path, _parquet(lines) if path.suffix.lower() == ".parquet" else csv_of(lines).encode()
        )
        return len(lines)


def _cell(value: Any) -> Any:
    """A value of a row in a table: short and of one type a column."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:40] if text.startswith("data:image/") else text


def _parquet(lines: list[dict[str, Any]]) -> bytes:
    """Lines as Parquet; a column that some lines lack is null there."""
    import pyarrow  # pyright: ignore[reportMissingImports]
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    names = list(dict.fromkeys(name for line in lines for name in line))
    table = pyarrow.table({name: [line.get(name) for line in lines] for name in names})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()
