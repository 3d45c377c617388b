"""The scores of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.clip.judges import drifting
from pipelines.core.record import read_record, record_of, write_png
from pipelines.errors import BadInput
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import PIPELINES
from tests.support.optimize import finished, in_both, last
from tests.support.tiny import tiny_optimize


@in_both
def test_the_critics_best_step_comes_first() -> None:
    pipeline = tiny_optimize()
    result = finished(pipeline, OptimizeSettings(steps=40, step_size=0.4))
    curve = result.pictures[0].facts["curve"]
    assert result.pictures[0].score == pytest.approx(max(critic for _, _, critic in curve), abs=1e-4)
    assert {step for step, _, _ in curve} == {*range(0, 40, 5), 40}


def test_the_critic_gives_no_gradient() -> None:
    pipeline, other = tiny_optimize(), tiny_optimize()
    for parameter in other.critic.parameters():
        parameter.data.mul_(-1.7)
    settings = OptimizeSettings(steps=12, cutouts=3)
    assert last(finished(pipeline, settings)).tobytes() == last(finished(other, settings)).tobytes()


def test_drift_is_clip_up_and_critic_down() -> None:
    up, down = np.linspace(0.1, 0.3, 10), np.linspace(0.3, 0.2, 10)

    def curve(clip: Any, critic: Any) -> list[tuple[int, float, float]]:
        return [(5 * k, float(a), float(b)) for k, (a, b) in enumerate(zip(clip, critic, strict=True))]

    assert drifting(curve(up, down))
    assert (
        not drifting(curve(up, up)) and not drifting(curve(down, down)) and not drifting(curve(up, down)[:5])
    )


def test_a_strangers_record_cannot_name_files(tmp_path: Path) -> None:
    result = finished(tiny_optimize(), OptimizeSettings(steps=1, cutouts=1))
    for fields in (
        {"image_prompts": "/etc/passwd:0.5"},
        {"regions": "a @ /etc/passwd"},
        {"changes": '{"5": {"mask": "/etc/passwd"}}'},
        {"image": "/etc/passwd"},
    ):
        record = record_of(
            pipeline="optimize",
            pack="tiny",
            device="cpu",
            models={},
            settings=OptimizeSettings(**fields),
            picture=result.pictures[0],
            rank=1,
        )
        write_png(tmp_path / "a.png", result.pictures[0].image, record)
        with pytest.raises(BadInput, match="names a file"):
            read_record(tmp_path / "a.png", PIPELINES)
