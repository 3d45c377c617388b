"""The command `batch` on small networks: every row once, whatever happens to the command; bad rows apart."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.batch.engines import Here
from app.batch.rows import read_rows
from app.batch.run import Progress, run_batch
from app.batch.tools import Draw, checked, tool_of
from app.cli.batch import sentence
from app.cli.main import main
from pipelines.core.record import read_record
from pipelines.core.settings import Settings
from pipelines.errors import BadInput
from pipelines.studio import PIPELINES
from tests.support.tiny import TinyStudio, tiny_clip

ONE = ["--set", "candidates=1", "--set", "keep=1"]


class Studio(TinyStudio):
    """It counts what it draws, and has what scores."""

    drawn: list[str] = []  # noqa: RUF012 -- emptied for each test
    critic_too = True

    def pipeline(self, name: str) -> Any:
        made = super().pipeline(name)
        call = type(made).__call__

        class Counting(type(made)):
            def __call__(self, settings: Settings, *journal: Any) -> Any:
                Studio.drawn.append(settings.prompt)
                return call(self, settings, *journal)

        made.__class__ = Counting
        return made

    def clip(self) -> Any:
        return tiny_clip()

    def critic(self) -> Any:
        return None


@pytest.fixture(autouse=True)
def studio(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("pipelines.studio.Studio", Studio)
    Studio.drawn.clear()
    return Studio.drawn


def write_csv(file: Path, *rows: str) -> Path:
    file.write_text("\n".join(rows) + "\n", "utf-8")
    return file


def table(folder: Path, name: str = "results.csv") -> list[dict[str, str]]:
    with open(folder / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def batch(*arguments: object) -> int:
    return main(["batch", *map(str, arguments)])


def test_rows_are_drawn_once_and_bad_ones_are_told(tmp_path: Path, studio: list[str]) -> None:
    rows = ("prompt,seed,guidance", "red,1,", "blue,x,", ",3,", '"green, light",7,2.5', "red,1,", "blue,1,99")
    file, out = write_csv(tmp_path / "a.csv", *rows), tmp_path / "out"
    assert batch(file, "--out", out, *ONE) == 1
    assert sorted(studio) == ["green, light", "red", "red"]
    made = table(out)
    assert [line["row"] for line in made] == ["1", "4", "5"]
    record = read_record(out / made[1]["file"], PIPELINES)
    assert record.settings["prompt"] == "green, light" and record.settings["guidance"] == 2.5
    assert record.settings["candidates"] == 1 and record.picture["seed"] == 7
    bad = table(out, "bad.csv")
    assert [(line["row"], line["prompt"]) for line in bad] == [("2", "blue"), ("3", ""), ("6", "blue")]
    assert "'x' is not a whole number" in bad[0]["problem"] and "no prompt" in bad[1]["problem"]

    assert batch(file, "--out", out, *ONE) == 1
    assert len(studio) == 3, "a row was done twice"
    mended = write_csv(tmp_path / "a.csv", "prompt,seed,guidance", "yellow,,", *rows[1:2], *rows[4:6])
    assert batch(mended, "--out", out, *ONE) == 0
    assert studio[3:] == ["yellow"], "rows that moved are the same rows"
    assert [line["row"] for line in table(out)] == ["1", "2", "3", "4"] and not (out / "bad.csv").exists()
    assert batch(mended, "--out", out, *ONE, "--set", "temperature=1") == 0
    assert len(studio) == 8, "other settings are other rows"


def test_a_file_of_bad_rows_can_be_mended_and_given_again(tmp_path: Path, studio: list[str]) -> None:
    write_csv(tmp_path / "a.csv", "prompt,seed", "red,x", "blue,1")
    assert batch(tmp_path / "a.csv", "--out", tmp_path / "out", *ONE) == 1
    bad = (tmp_path / "out" / "bad.csv").read_text().replace(",x", ",2")
    write_csv(tmp_path / "bad.csv", bad)
    assert batch(tmp_path / "bad.csv", "--out", tmp_path / "again", *ONE) == 0
    assert studio == ["blue", "red"]


@pytest.mark.parametrize(
    "text",
    [
        "prompt;seed\na cat;1\n",
        "sep=;\nprompt;seed\na cat;1\n",
        "prompt,seed,,\r\na cat,1,,\r\n",
        "prompt,seed\ra cat,1\r",
    ],
)
def test_tables_are_read_as_programs_write_them(text: str, tmp_path: Path) -> None:
    for data in (text.encode("utf-8-sig"), text.encode("utf-16")):
        (tmp_path / "a.csv").write_bytes(data)
        (row,) = read_rows(tmp_path / "a.csv")
        assert row.values == {"prompt": "a cat", "seed": "1"} and row.problem is None


def test_a_batch_goes_on_where_it_was_stopped(tmp_path: Path, studio: list[str]) -> None:
    file, out = write_csv(tmp_path / "a.csv", "prompt", *"abcde"), tmp_path / "out"
    tool = Draw("generate", {"candidates": 1, "keep": 1})
    tasks, bad = checked(tool, read_rows(file), tmp_path, "tiny")
    assert not bad

    from app.batch.results import Results

    run = run_batch(tasks, Here(Studio(), tool), Results(out, tool, Studio()), 1)
    assert [next(run).done for _ in range(3)] == [0, 1, 2]
    run.close()
    assert studio == ["a", "b"]
    next((out / "pictures").glob("000001-*")).unlink()  # a row whose picture is gone is not done
    (out / "rows" / next((out / "rows").glob("000002-*")).name).write_text('{"lines"')  # nor one cut off
    *_, last = run_batch(tasks, Here(Studio(), tool), Results(out, tool, Studio()), 1)
    assert (last.done, last.before, last.over) == (5, 0, 5)
    assert studio == ["a", "b", *"abcde"] and len(list((out / "pictures").iterdir())) == 5


def test_ctrl_c_keeps_what_is_done_and_writes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write_csv(tmp_path / "a.csv", "prompt", *"abc"), tmp_path / "out"
    work, calls = Draw.work, []

    def pressed(self: Draw, studio: Any, asked: Any) -> Any:
        calls.append(asked)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return work(self, studio, asked)

    monkeypatch.setattr(Draw, "work", pressed)
    assert batch(file, "--out", out, *ONE, "--json") == 130
    assert json.loads(capsys.readouterr().out)["done"] == 1 and len(table(out)) == 1
    assert batch(file, "--out", out, *ONE) == 0 and len(calls) == 4


def test_a_row_that_fails_is_told_and_tried_again(
    tmp_path: Path, studio: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = write_csv(tmp_path / "a.csv", "prompt", "a", "b"), tmp_path / "out"
    from app.batch import tools

    result_of = tools.result_of

    def failing(pipeline: Any, settings: Settings) -> Any:
        if settings.prompt == "a":
            raise MemoryError
        return result_of(pipeline, settings)

    monkeypatch.setattr(tools, "result_of", failing)
    assert batch(file, "--out", out, *ONE) == 1
    assert [line["prompt"] for line in table(out, "bad.csv")] == ["a"]
    monkeypatch.setattr(tools, "result_of", result_of)
    assert batch(file, "--out", out, *ONE) == 0 and studio == ["b", "a"]


def test_pictures_lie_beside_the_table(tmp_path: Path) -> None:
    Image.new("RGB", (24, 24), "red").save(tmp_path / "cat.png")
    lines = [{"image": "cat.png", "prompt": "blue", "keep": 1}, {"image": "dog.png", "prompt": "blue"}, 7]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    flags = ["--set", "candidates=1", "--tool", "diffuse", "--set", "steps=4"]
    assert batch(tmp_path / "a.jsonl", "--out", tmp_path / "out", *flags) == 1
    made = table(tmp_path / "out")
    assert len(made) == 1 and made[0]["image"] == "cat.png"
    record = read_record(tmp_path / "out" / made[0]["file"], PIPELINES)
    assert record.settings["image"].startswith("data:image/png")
    bad = [json.loads(line) for line in (tmp_path / "out" / "bad.jsonl").read_text().splitlines()]
    assert [line["row"] for line in bad] == [2, 3] and "JSON" in bad[1]["problem"]
    before = (tmp_path / "out" / made[0]["file"]).stat().st_mtime_ns
    Image.new("RGB", (24, 24), "blue").save(tmp_path / "cat.png")
    assert batch(tmp_path / "a.jsonl", "--out", tmp_path / "out", *flags) == 1
    again = table(tmp_path / "out")[0]["file"]
    assert again != made[0]["file"], "another picture of the same name is another row"
    assert (tmp_path / "out" / made[0]["file"]).stat().st_mtime_ns == before


def test_pictures_are_scored(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        Image.new("RGB", (16, 16), name).save(tmp_path / f"{name}.png")
    rows = ("image,prompt", "red.png,red", "blue.png,red", "gone.png,red", "red.png,")
    file = write_csv(tmp_path / "a.csv", *rows)
    assert batch(file, "--tool", "score", "--out", tmp_path / "out") == 1
    made = table(tmp_path / "out")
    assert [line["row"] for line in made] == ["1", "2"]
    assert -1 <= float(made[0]["clip"]) <= 1 and made[0]["clip"] != made[1]["clip"]
    assert [line["row"] for line in table(tmp_path / "out", "bad.csv")] == ["3", "4"]


def test_parquet_is_written_where_pyarrow_is(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", "prompt", "a", "b")
    target = tmp_path / "t.parquet"
    try:
        from pyarrow import parquet
    except ImportError:
        assert batch(file, "--out", tmp_path / "out", "--table", target, *ONE) == 2
        return
    assert batch(file, "--out", tmp_path / "out", "--table", target, *ONE) == 0
    assert parquet.read_table(target).column("prompt").to_pylist() == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "prompt,colour\na,b\n", "no setting is called 'colour'"),
        ("a.csv", "prompt,prompt\na,b\n", "'prompt' is there twice"),
        ("a.csv", "prompt\n", "0 rows"),
        ("a.csv", "prompt,seed\na,x\n", "none of the 1 rows"),
        ("a.csv", "prompt\na,b\n", "more cells than the head"),
        ("a.txt", "prompt\na\n", ".csv or .jsonl"),
    ],
)
def test_a_wrong_table_is_told_before_anything_is_loaded(
    name: str, text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], studio: list[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert batch(tmp_path / name, "--out", tmp_path / "out") == 2
    assert words in capsys.readouterr().err and not studio


def test_two_batches_do_not_share_a_folder(tmp_path: Path) -> None:
    from app.jobs.store import claim

    file = write_csv(tmp_path / "a.csv", "prompt", "a")
    (tmp_path / "out").mkdir()
    guard = claim(tmp_path / "out" / "batch.lock")
    assert batch(file, "--out", tmp_path / "out", *ONE) == 2
    guard.close()


def test_values_are_read_as_the_command_line_reads_them(tmp_path: Path) -> None:
    settings: Any = tool_of("generate", {"keep": "2"}).ask(
        {"prompt": "a", "hide_duplicates": "yes", "temperature": ".5", "seed": str(2**60)}, tmp_path
    )
    assert settings.hide_duplicates is True and settings.temperature == 0.5
    assert settings.seed == 2**60 and settings.keep == 2
    with pytest.raises(BadInput, match="nonsense"):
        tool_of("generate", {}).ask({"prompt": "a", "nonsense": "1"}, tmp_path)
    assert tool_of("generate", {"prior": "yes"}).ask({"seed": "3"}, tmp_path).prompt == ""  # type: ignore[union-attr]


def test_how_far_it_is_in_a_line() -> None:
    assert sentence(Progress(10, 0, 0)) == "0 of 10 rows"
    told = sentence(Progress(1000, 100, 110, seconds=20))
    assert told == "110 of 1,000 rows, 100 of them before, 0.5 rows a second, 30 min left"
