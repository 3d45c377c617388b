"""Reading a training's lines: torn ones, steps that are made again, networks of a pack one after another, long curves."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from app.trainings.manager import Trainings
from app.trainings.progress import MOST_POINTS, Progress
from pipelines.core.pipeline import Step
from pipelines.training.control import Control
from tests.support.pretended import pretend


def step(number: int, total: int = 100, loss: float = 1.0) -> dict[str, Any]:
    return {"clock": number / 10, "step": number, "total": total, "metrics": {"loss": loss}}


def write(file: Path, *lines: Any) -> Progress:
    with file.open("a") as out:
        out.writelines(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    progress = Progress(file)
    progress.update()
    return progress


def test_lines_are_read_once_and_torn_ones_when_they_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    progress = write(
        file, {"facts": {"network": "unet", "batch": 4}}, step(1), "nonsense\n[1]\n", step(11), '{"cl'
    )
    assert (progress.step, progress.facts["batch"], progress.seconds_a_step) == (11, 4, pytest.approx(0.1))
    assert progress.seconds_left == pytest.approx(8.9)
    write(file, 'ock": 2.1, "step": 21, "total": 100, "metrics": {"loss": 0.5}}\n')
    progress.update()
    assert progress.step == 21 and progress.curves["loss"] == [(1, 1.0), (11, 1.0), (21, 0.5)]
    file.write_text("")
    progress.update()
    assert progress.step == 0 and not progress.curves


def test_steps_that_are_made_again_replace_those_before_the_crash(tmp_path: Path) -> None:
    facts = {"facts": {"network": "unet"}}
    progress = write(
        tmp_path / "a", facts, step(10), step(20), step(30), facts, step(21, loss=2), step(31, loss=2)
    )
    assert progress.curves["loss"] == [(10, 1.0), (20, 1.0), (21, 2.0), (31, 2.0)]


def test_the_next_network_of_a_pack_begins_anew(tmp_path: Path) -> None:
    lines = [{"facts": {"network": "clip"}}, step(50), {"stage": "finishing"}, {"figures": {"R@1": 0.5}}]
    progress = write(tmp_path / "a", *lines)
    assert (
        progress.stage == "finishing" and progress.seconds_left is None and progress.figures == {"R@1": 0.5}
    )
    progress = write(tmp_path / "a", {"facts": {"network": "codec"}})
    assert (progress.stage, progress.step, progress.curves, progress.figures) == ("", 0, {}, {})


def test_long_curves_stay_short(tmp_path: Path) -> None:
    progress = write(tmp_path / "a", *(step(k, 10_000, k) for k in range(1, 2001)))
    curve = progress.curves["loss"]
    assert len(curve) < 2 * MOST_POINTS and all(a[0] < b[0] for a, b in itertools.pairwise(curve))
    assert abs(curve[3][0] - curve[3][1]) < 1e-9


def test_a_line_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.progress.write_text('{"clock": 1, "st')
    control.tell(Step("train", 7, 7, {"loss": 0.5}))
    progress = Progress(control.progress)
    progress.update()
    assert progress.step == 7


def test_the_share_of_a_pack_counts_what_came_before(tmp_path: Path) -> None:
    trainings = Trainings(tmp_path, lambda: True)
    made = pretend(trainings, "running")
    now = trainings.now()
    assert now is not None and now.state == "running" and now.waits and now.network == "codec"
    plan = now.order.plan()
    place = list(plan).index("codec")
    assert now.part == (place + 1, len(plan))
    before = sum(list(plan.values())[:place])
    expected = (before + plan["codec"] * 1240 / 4100) / sum(plan.values())
    assert now.share == pytest.approx(expected) and now.figures["PSNR"] == 24.81
    assert now.seconds_left == pytest.approx((4100 - 1240) / 6 + 60 * sum(list(plan.values())[place + 1 :]))
    trainings.pause()
    assert Control(made).asked() == "pause"
    (made / "asked").write_text("dance")
    assert Control(made).asked() == ""
