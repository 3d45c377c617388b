"""The manager of trainings, with real ones at tiny sizes: their whole way, kills in the middle, and giving way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.trainings.manager import Trainings
from app.trainings.order import Order
from pipelines.errors import BadInput
from pipelines.models.checkpoint import read_header
from pipelines.training.control import Control
from pipelines.training.flags import parser_of
from tests.support.trainings import Artist, manager, order, until

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_STEP_SECONDS", "0.01")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("app.trainings.order.SAVE_SECONDS", 1.0)
    monkeypatch.setattr("app.trainings.order.SAMPLE_MINUTES", 0.01)


@pytest.fixture
def trainings(tmp_path: Path) -> Iterator[Trainings]:
    made = manager(tmp_path)
    yield made
    kill(made)


def kill(trainings: Trainings) -> None:
    """Whatever still trains there dies."""
    if trainings.id and (process := Control(trainings.folder / trainings.id).process()):
        process.kill()
        while trainings._alive():
            time.sleep(0.02)


def test_a_training_pauses_gives_way_resumes_and_is_kept(tmp_path: Path) -> None:
    artist = Artist()
    trainings = manager(tmp_path, artist)
    try:
        trainings.start(order(tmp_path, steps=100_000))
        with pytest.raises(BadInput, match="one network is trained at a time"):
            trainings.start(order(tmp_path))
        going = until(trainings, lambda now: now.step > 5 and bool(now.sheets))
        assert going.state == "running" and going.stage == "train" and not going.waits
        assert going.facts["batch"] == 2 and going.curves["loss"] and (going.seconds_left or 0) > 60

        artist.busy = True
        until(trainings, lambda now: now.waits)
        time.sleep(0.5)  # in which it tells of the step that it was at
        waiting = trainings.now()
        time.sleep(1.2)
        still = trainings.now()
        assert waiting and still and still.waits and still.step == waiting.step
        artist.busy = False
        until(trainings, lambda now: now.step > still.step + 2 and not now.waits)

        trainings.pause()
        paused = until(trainings, lambda now: now.state == "paused")
        assert paused.step >= still.step and Control(trainings.folder / trainings.id).process() is None
        found = manager(tmp_path).now()  # another studio
        assert found is not None and (found.state, found.step) == ("paused", paused.step)

        trainings.resume()
        until(trainings, lambda now: now.step > paused.step)
        trainings.stop()
        kept = until(trainings, lambda now: now.state == "ended")
        assert kept.figures["loss"] > 0 and trainings.sheet(kept.id, kept.sheets[-1]).is_file()
        _, facts = read_header(tmp_path / "packs" / "mine" / "unet.safetensors")
        assert facts["steps"] > paused.step
        trainings.forget()
        assert trainings.now() is None and not list(trainings.folder.glob("*/training.json"))
        with pytest.raises(BadInput, match="no sheet"):
            trainings.sheet(kept.id, kept.sheets[-1])
    finally:
        kill(trainings)


@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_a_kill_loses_what_was_learned_since_the_last_saved_state(
    trainings: Trainings, tmp_path: Path
) -> None:
    trainings.start(order(tmp_path, steps=40))
    state = trainings.state / "unet" / "state.safetensors"
    until(trainings, lambda now: state.is_file() and now.step > 8)
    process = Control(trainings.folder / trainings.id).process()
    assert process is not None
    process.kill()
    cut = trainings.now()
    while cut is not None and cut.state == "running":
        time.sleep(0.02)
        cut = trainings.now()
    assert (
        cut is not None and cut.state == "failed" and cut.problem and cut.problem.code == "training.cut_off"
    )
    trainings.resume()
    ended = until(trainings, lambda now: now.state == "ended")
    steps = [step for step, _ in ended.curves["loss"]]
    assert steps == sorted(set(steps)) and ended.step == 40
    _, facts = read_header(tmp_path / "packs" / "mine" / "unet.safetensors")
    assert facts["steps"] == 40


STUDIO = """
import sys, time
from pathlib import Path
from tests.support.trainings import manager, order
folder = Path(sys.argv[1])
made = manager(folder)
made.start(order(folder, steps=100_000))
while made.now().step < 3:
    time.sleep(0.05)
print("going", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_a_studio_that_is_killed_leaves_a_training_that_the_next_one_finds(tmp_path: Path) -> None:
    studio = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STUDIO), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    with studio:
        assert studio.stdout is not None and studio.stdout.readline() == b"going\n"
        studio.send_signal(signal.SIGKILL)
    again = manager(tmp_path)
    try:
        found = again.now()
        assert found is not None and found.state == "running" and found.step >= 3
        until(again, lambda now: now.step > found.step)
        again.close(30)
        closed = again.now()
        assert closed is not None and closed.state == "paused"
    finally:
        kill(again)


def test_why_it_failed_is_a_sentence(trainings: Trainings, tmp_path: Path) -> None:
    trainings.start(order(tmp_path, data=str(tmp_path / "nowhere.safetensors")))
    while (now := trainings.now()) and now.state == "running":
        time.sleep(0.05)
    assert (
        now is not None and now.state == "failed" and "nowhere.safetensors is not there" in str(now.problem)
    )
    trainings.forget()
    assert trainings.now() is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pack": "../up"}, "no name for a pack"),
        ({"pack": ""}, "no name for a pack"),
        ({"pack": "church"}, "name of a pack that there is"),
        ({"minutes": 0}, "minutes are from"),
        ({"minutes": float("nan")}, "minutes are from"),
        ({"size": "huge"}, "no size 'huge'"),
        ({"seed": -1}, "seed of a training"),
    ],
)
def test_an_order_is_checked(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Order(**{"network": "unet", "data": "", "pack": "mine", "out": "mine", **changes})  # type: ignore[arg-type]


def test_the_words_of_an_order_are_flags_of_the_command() -> None:
    made = Order("unet", "/a b", "mine", "/packs/mine", licence="-- mine, ask me")
    options = parser_of(["unet"]).parse_args(made.arguments(Path("/state"), Path("/control")))
    assert (options.licence, options.data, options.out) == (made.licence, Path(made.data), Path(made.out))


def test_orders_outlive_a_version_with_other_fields() -> None:
    made = Order("unet", "", "mine", "mine", minutes=5.0)
    assert Order.from_dict({**made.to_dict(), "new": 1}) == made


def test_a_process_of_the_same_number_is_not_the_training(tmp_path: Path) -> None:
    control = Control(tmp_path)
    (tmp_path / "process.json").write_text(f"[{os.getpid()}, {psutil.Process().create_time() - 100}]")
    assert control.process() is None
    with control.held():
        assert control.process() is not None and not control.alive()
