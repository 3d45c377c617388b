"""What the Train tab's script asks the server, without a real training; elsewhere than at home all of it is refused."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.trainings.checking import MOST_KEPT
from app.trainings.manager import Trainings
from app.ui.html.train import closed
from app.ui.i18n import words
from app.ui.trainings import MOST_POINTS, TrainQuestions, networks, thinned
from pipelines.errors import BadInput


def client_of(trainings: Trainings | None) -> TestClient:
    return TestClient(Starlette(routes=TrainQuestions(trainings).routes()))


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainings]:
    """Trainings that end at once."""
    monkeypatch.setenv("ATELIER_PACKS", str(tmp_path / "packs"))
    made = Trainings(tmp_path / "outputs", lambda: False, (sys.executable, "-c", "print('nothing to do')"))
    yield made
    made.close(0)


def ask(client: TestClient, question: str, **facts: Any) -> dict[str, Any]:
    answer = client.post(f"/train/{question}", json=facts)
    assert answer.status_code in (200, 400), answer.text
    return answer.json()


def asked_until(client: TestClient, question: str, **facts: Any) -> dict[str, Any]:
    """The answer once the folder was looked at."""
    for _ in range(400):
        answer = ask(client, question, **facts)
        if "total" not in answer:
            return answer
        facts["again"] = False
        time.sleep(0.02)
    raise AssertionError(answer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for k in range(12):
        Image.new("RGB", (40, 40), (20 * k, 90, 200 - 10 * k)).save(made / f"card {k}.png")
    (made / "<b>broken.png").write_bytes(b"no picture")
    return made


def test_away_from_home_everything_is_one_sentence(tmp_path: Path) -> None:
    client = client_of(None)
    for question in ("form", "look", "check", "start", "do"):
        assert "own machine only" in ask(client, question, folder=str(tmp_path), do="stop")["error"]
    assert client.get("/train/sheet/a/1").status_code == 404
    assert client.get("/train/mosaic/a").status_code == 404
    assert "own machine only" in closed(BadInput("training.not_here"))


def test_a_folder_is_told_with_what_is_left_out(trainings: Trainings, folder: Path) -> None:
    client = client_of(trainings)
    told = asked_until(client, "check", folder=str(folder))["html"]
    assert "12" in told and "&lt;b&gt;broken.png" in told and "<b>broken" not in told
    address = told.split('src="')[1].split('"')[0]
    assert client.get("/" + address).content[:4] == b"\x89PNG"
    assert client.get("/train/mosaic/..%2Fjobs").status_code == 404
    assert "error" in asked_until(client, "check", folder=str(folder / "nowhere"))
    for k in range(MOST_KEPT):  # a folder that has changed is read again, and the oldest data are deleted
        Image.new("RGB", (40, 40), (9, 9, 50 * k)).save(folder / f"more {k}.png")
        asked_until(client, "check", folder=str(folder), again=True)
    kept = [file.suffix for file in trainings.data.iterdir()]
    assert sorted(kept) == sorted([".json", ".png", ".safetensors"] * MOST_KEPT)


def test_the_data_of_a_training_are_not_deleted_by_looks_at_other_folders(
    trainings: Trainings, folder: Path
) -> None:
    client = client_of(trainings)
    good = {"network": "pack", "pack": "mine", "minutes": "2", "size": "tiny", "seed": "0"}
    asked_until(client, "start", folder=str(folder), **good)
    (used,) = trainings.data.glob("*.safetensors")
    other = folder.parent / "other"
    for k in range(MOST_KEPT + 2):
        shutil.copytree(folder, other, dirs_exist_ok=True)
        Image.new("RGB", (40, 40), (9, 9, 40 * k)).save(other / f"more {k}.png")
        asked_until(client, "check", folder=str(other), again=True)
    assert used.exists() and len(list(trainings.data.glob("*.safetensors"))) == MOST_KEPT + 1


def test_what_is_asked_for_is_checked_before_it_is_started(trainings: Trainings, folder: Path) -> None:
    client = client_of(trainings)
    good = {
        "network": "unet",
        "pack": "mine",
        "minutes": "2",
        "size": "tiny",
        "seed": "0",
        "folder": str(folder),
    }
    for changes, sentence in (
        ({"network": "rm"}, "no network"),
        ({"pack": "../up"}, "name"),
        ({"minutes": "soon"}, "inutes are from"),
        ({"minutes": "inf"}, "inutes are from"),
        ({"folder": str(folder / "nowhere")}, "nowhere"),
    ):
        assert sentence in asked_until(client, "start", **{**good, **changes})["error"], changes
    assert ask(client, "look") == {"state": "none"}
    begun = asked_until(client, "start", **good)
    assert begun["state"] in ("running", "failed") and str(folder) in begun["head"]
    for _ in range(200):
        if (now := ask(client, "look"))["state"] == "failed":
            break
        time.sleep(0.05)
    assert "cut off" in now["head"] and "nothing to do" in now["head"]
    assert ask(client, "do", do="forget") == {"state": "none"}
    assert ask(client, "do", do="dance") == {"state": "none"}


def test_every_network_has_a_name_and_a_sentence_in_both_languages() -> None:
    assert networks()[0] == "pack" and "judge" not in networks()
    for name in networks():
        for key in (f"train_net_{name}", f"train_net_{name}_text"):
            assert all(words()[key]), key


def test_long_curves_are_sent_short() -> None:
    points = [(float(k), k / 7) for k in range(1000)]
    sent = thinned(points)
    assert len(sent) <= MOST_POINTS and sent[0][0] < sent[-1][0] and abs(sent[-1][1] - points[-1][1]) < 1
    assert thinned(points[:3]) == [(0.0, 0.0), (1.0, 0.14286), (2.0, 0.28571)] and thinned([]) == []
