"""The verbs of See, with a CLIP that sees colours."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli.main import main
from pipelines.io.images import open_picture
from pipelines.see.probe import read_probe
from tests.support.painter import PainterClip


class ColourStudio:
    """Stands where Studio stands."""

    def __init__(self, **_: Any) -> None:
        pass

    def clip(self) -> Any:
        return PainterClip()

    def critic(self) -> Any:
        return PainterClip()


@pytest.fixture(autouse=True)
def studio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.studio.Studio", ColourStudio)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five red and five blue pictures in a folder each, and a broken one."""
    for name in ("red", "blue"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for k in range(5):
            Image.new("RGB", (16, 16), name).save(tmp_path / "pictures" / name / f"{k}.png")
    (tmp_path / "pictures" / "red" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "pictures"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What a verb prints with --json."""
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_classify_tells_labels_and_broken_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "classify", folder, "--labels", "red，blue、green", "--top", 2)
    assert len(told["pictures"]) == 10 and told["independent"] is False
    for picture in told["pictures"]:
        assert picture["labels"][0]["label"] == Path(picture["file"]).parent.name
        assert len(picture["labels"]) == 2 and picture["labels"][0]["probability"] > 0.9
    assert [Path(one["file"]).name for one in told["broken"]] == ["broken.png"]
    assert (
        main(["classify", str(folder / "red" / "0.png"), "--labels", "red,blue", "--template", "a {label}"])
        == 0
    )
    assert "0.png  red 100.0%  blue 0.0%" in capsys.readouterr().out


def test_classify_knows_names_by_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "classify", folder / "red" / "0.png")
    assert "red" in told["pictures"][0]["labels"][0]["label"]


def test_explain_writes_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.new("RGB", (64, 64), "white")
    image.paste("red", (4, 20, 24, 40))
    image.save(tmp_path / "a.png")
    told = run(capsys, "explain", tmp_path / "a.png", "a", "red", "thing", "--maps", tmp_path / "maps.png")
    assert told["prompt"] == "a red thing" and told["names"] > 1500 and told["rival"]["name"]
    assert told["maps"][1]["text"] == "red" and told["maps"][1]["peak"][0] < 0.5
    assert open_picture(tmp_path / "maps.png").width == 256 * len(told["maps"])
    assert main(["explain", str(tmp_path / "a.png"), "a red thing"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("score 0.") and any(line.startswith("closest other name") for line in lines)


def test_probe_is_taught_and_used(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "taught.safetensors"
    told = run(capsys, "probe", folder, "--out", path)
    assert told["labels"] == ["blue", "red"] and told["pictures"] == 10 and len(told["broken"]) == 1
    assert [point["shots"] for point in told["curve"]["points"]] == [1, 2, 4]
    assert told["curve"]["points"][-1]["mean"] == 1
    assert read_probe(path).labels == ["blue", "red"]
    found = run(capsys, "classify", folder / "blue", "--probe", path)
    assert [one["labels"][0]["label"] for one in found["pictures"]] == ["blue"] * 5
    judged = run(capsys, "probe", folder, "--test", folder, "--out", path)
    assert judged["accuracy"] == 1
    assert main(["probe", str(folder), "--out", str(path)]) == 0
    assert "  4 a label: 100.0% (100.0% to 100.0%)" in capsys.readouterr().out


def test_score_writes_csv(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(folder), "something", "red"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 11 and rows[0]["prompt"] == "something red" and rows[-1]["problem"]
    assert float(rows[5]["clip"]) > float(rows[0]["clip"]) and rows[0]["critic"] == rows[0]["clip"]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("file,prompt\npictures/red/0.png,blue\npictures/red/0.png,red\n")
    told = run(capsys, "score", pairs, "--out", tmp_path / "scores.csv")
    assert told["scores"][1]["clip"] > told["scores"][0]["clip"]
    assert (tmp_path / "scores.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["classify", "a.png", "--labels", "a", "--probe", "b"], "see.labels_or_probe"),
        (["classify", "none.png", "--labels", "a"], "io.picture_missing"),
        (["classify", "a.png", "--template", "a photo"], "see.template_form"),
        (["explain", "none.png", "a cat"], "io.picture_missing"),
        (["probe", "nowhere"], "see.folder_missing"),
        (["probe", "nowhere", "--out", "a.bin"], "see.probe_suffix"),
        (["score", "nowhere"], "see.prompt_missing"),
        (["score", "nowhere", "a cat"], "see.folder_missing"),
        (["score", "a.csv", "a cat"], "see.prompt_and_csv"),
    ],
)
def test_what_is_wrong_is_told(arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
