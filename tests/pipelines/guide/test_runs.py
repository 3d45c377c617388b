"""Runs that are stopped, killed, resumed, forked and changed on the way; what they start from; films."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result, Step
from pipelines.errors import BadInput, Stopped
from pipelines.guide.pipeline import Guide
from pipelines.guide.run import GuideRun
from pipelines.guide.settings import GuideSettings
from pipelines.guide.start import perlin_noise
from pipelines.guide.symmetry import mirrored
from pipelines.io.images import picture_to_uri, to_tensor
from tests.support.optimize import saved, speckled
from tests.support.tiny import tiny_guide, tiny_pixel_guide

FEW: dict[str, Any] = {"steps": 14, "cut_overview": "1", "cut_innercut": "2"}
ANIMATED: dict[str, Any] = {
    "max_frames": 3,
    "frames_skip_steps": 9,
    "zoom": "0: (1), 2: (1.2)",
    "rotate": "5",
}
COURSES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no text": {"guidance": 0},
    "picture": {"image": picture_to_uri(speckled((32, 32))), "skip_steps": 3},
    "mirrored": {"symmetry": "both", "transformation_percent": "0.2 0.9"},
    "clouds": {"perlin_init": "mixed", "cutn_batches": 2},
    "now and then": {"clip_guidance_scale": "[0]*300+[5000]*700"},
    "story": {"prompt": "a red heart | two cats:-0.2 ^ green apple @6"},
    "changed": {"changes": json.dumps({"5": {"clip_guidance_scale": "90", "eta": 0.1}})},
    "animated": ANIMATED,
}


def finished(pipeline: Guide, settings: GuideSettings, journal: Journal | None = None) -> Result:
    *_, result = run(pipeline, settings, journal)
    assert isinstance(result, Result)
    return result


def pixels(result: Result) -> bytes:
    return result.pictures[0].image.tobytes()


@pytest.mark.parametrize("fields", COURSES.values(), ids=COURSES.keys())
def test_a_killed_run_resumes_to_the_same_bits(fields: dict[str, Any], tmp_path: Path) -> None:
    settings = GuideSettings(**{**FEW, **fields})
    whole = finished(tiny_guide(), settings)
    events = run(tiny_guide(), settings, Journal(tmp_path / "run"))
    for event in events:
        if isinstance(event, Step) and event.done == 11:
            break
    events.close()  # as good as killed: nothing is written any more
    resumed = finished(tiny_guide(), settings, Journal(tmp_path / "run"))
    assert pixels(resumed) == pixels(whole)
    assert resumed.pictures[0].facts == whole.pictures[0].facts
    assert resumed.pictures[0].score == whole.pictures[0].score
    if fields:
        assert pixels(whole) != pixels(finished(tiny_guide(), GuideSettings(**FEW)))


@pytest.mark.parametrize("make", [tiny_guide, tiny_pixel_guide])
def test_stopping_keeps_the_picture_and_its_settings_remake_it(make: Any, tmp_path: Path) -> None:
    settings = GuideSettings(**FEW)
    events = run(make(), settings, Journal(tmp_path / "run"))
    for event in events:
        if isinstance(event, Step) and event.done == 9:
            break
    kept = events.throw(Stopped())
    assert isinstance(kept, Result) and isinstance(kept.settings, GuideSettings) and kept.settings.until == 9
    assert pixels(kept) == pixels(finished(make(), kept.settings))
    journal = Journal(tmp_path / "run")
    assert journal.steps()[-1] == 9
    shown = make().image_at(make().prepare(settings), journal, 9)
    assert shown.tobytes() == pixels(kept)
    assert pixels(finished(make(), settings, journal)) == pixels(finished(make(), settings))


def test_a_fork_is_the_run_with_its_changes(tmp_path: Path) -> None:
    pipeline, settings = tiny_guide(), GuideSettings(**FEW)
    finished(pipeline, settings, Journal(tmp_path / "run"))
    prepared = pipeline.prepare(settings)
    changed = prepared.changed(10, prompt="green apple", clamp_max=0.3)
    forked = finished(pipeline, changed, Journal(tmp_path / "run").fork(tmp_path / "fork", 10))
    assert pixels(forked) == pixels(finished(pipeline, changed)) != pixels(finished(pipeline, settings))
    with pytest.raises(BadInput, match="cannot change 'skip_steps'"):
        prepared.changed(10, skip_steps=2)


def test_a_journal_is_one_runs_only(tmp_path: Path) -> None:
    settings = GuideSettings(**{**FEW, "steps": 2})
    finished(tiny_guide(), settings, Journal(tmp_path / "run"))
    with pytest.raises(BadInput, match="belongs to another run"):
        finished(tiny_guide(), replace(settings, eta=0.1), Journal(tmp_path / "run"))
    with pytest.raises(BadInput, match="belongs to another run"):
        finished(tiny_pixel_guide(), settings, Journal(tmp_path / "run"))


def test_the_critic_gives_no_gradient() -> None:
    pipeline, other = tiny_guide(), tiny_guide()
    for parameter in other.critic.parameters():
        parameter.data.mul_(-1.7)
    settings = GuideSettings(**FEW)
    assert pixels(finished(pipeline, settings)) == pixels(finished(other, settings))


def test_clip_leads_where_it_should() -> None:
    pipeline = tiny_pixel_guide()
    settings = GuideSettings(
        steps=20, eta=0, clamp_max=2, cut_overview="8", cut_innercut="0", prompt="green apple"
    )

    def score(scale: str) -> float:
        return finished(pipeline, replace(settings, clip_guidance_scale=scale)).pictures[0].facts["clip"]

    assert score("5000") > score("0") + 0.1


def test_a_start_picture_stays_the_more_the_more_is_skipped(tmp_path: Path) -> None:
    pipeline, picture = tiny_pixel_guide(), speckled((16, 16))
    path = saved(picture, tmp_path / "start.png")
    settings = GuideSettings(image=path, steps=20, clip_guidance_scale="0", eta=0)
    assert pipeline.prepare(settings).skip_steps == 10
    apart = [
        (to_tensor([finished(pipeline, replace(settings, skip_steps=k)).pictures[0].image]) - to_tensor([picture]))
        .abs().mean().item()
        for k in (0, 10, 19)
    ]  # fmt: skip
    assert apart[0] > apart[1] > apart[2]


def test_numbers_that_break_down_end_the_run_with_the_last_good_picture(monkeypatch: Any) -> None:
    pipeline, settings = tiny_guide(), GuideSettings(**FEW)
    good = pixels(finished(pipeline, replace(settings, until=7)))
    look = GuideRun._look

    def broken(self: GuideRun, *arguments: Any) -> Any:
        seen = look(self, *arguments)
        return replace(seen, loss=seen.loss * float("nan")) if self.position == 7 else seen

    monkeypatch.setattr(GuideRun, "_look", broken)
    result = finished(pipeline, settings)
    assert pixels(result) == good
    assert "the loss became nan at step 8" in result.pictures[0].facts["ended"]
    assert isinstance(result.settings, GuideSettings) and result.settings.until == 7


@pytest.mark.parametrize("make", [tiny_guide, tiny_pixel_guide])
def test_the_film_shows_every_step_or_the_end_of_every_frame(make: Any, tmp_path: Path) -> None:
    pipeline: Guide = make()
    settings = pipeline.prepare(GuideSettings(**FEW, prompt="a red heart ^ green apple @6"))
    journal, seen = Journal(tmp_path / "run"), []
    for event in run(pipeline, settings, journal):
        if isinstance(event, Step):
            seen += [image.tobytes() for image in event.preview()]
        else:
            assert event.pictures[0].image.tobytes() == seen[-1]
    film = pipeline.timelapse(settings, journal)
    frames = list(film.frames)
    assert film.count == len(frames) == 14 and [frame.scene for frame in frames] == [0] * 6 + [1] * 8
    assert [frame.image.tobytes() for frame in frames] == seen
    moving = pipeline.prepare(GuideSettings(**{**FEW, **ANIMATED, "prompt": "a red heart ^ green apple @2"}))
    result = finished(pipeline, moving, Journal(tmp_path / "moving"))
    film = pipeline.timelapse(moving, Journal(tmp_path / "moving"))
    frames = list(film.frames)
    assert film.count == len(frames) == 3 and [frame.scene for frame in frames] == [0, 0, 1]
    assert frames[-1].image.tobytes() == pixels(result)
    assert len({frame.image.tobytes() for frame in frames}) == 3


def test_a_frame_begins_from_the_moved_one_before() -> None:
    pipeline = tiny_pixel_guide()
    settings = GuideSettings(
        steps=40, max_frames=2, frames_skip_steps=39, clip_guidance_scale="0", zoom="1", pan_x="4", eta=0
    )
    first = finished(pipeline, replace(settings, max_frames=1)).pictures[0].image
    second = finished(pipeline, settings).pictures[0].image
    moved, before = to_tensor([second])[..., 4:], to_tensor([first])[..., :-4]
    unmoved = (to_tensor([second]) - to_tensor([first])).abs().mean()
    assert (moved - before).abs().mean() < 0.5 * unmoved


def test_symmetry_mirrors_the_picture() -> None:
    x = torch.arange(15.0).view(1, 1, 3, 5)
    assert mirrored(x, (3,))[0, 0, 0].tolist() == [0, 1, 2, 1, 0]
    assert mirrored(x, (2, 3))[0, 0, :, 0].tolist() == [0, 5, 0]
    pipeline = tiny_pixel_guide()
    settings = GuideSettings(**FEW, symmetry="vertical", transformation_percent="0.92", eta=0)
    picture = finished(pipeline, settings).pictures[0].image
    plain = finished(pipeline, replace(settings, symmetry="none")).pictures[0].image

    def lopsided(image: Image.Image) -> float:
        x = to_tensor([image])
        return (x - x.flip(3)).abs().mean().item()

    assert lopsided(picture) < 0.5 * lopsided(plain)


def test_perlin_noise_is_smooth_and_spans_its_range() -> None:
    noise = perlin_noise((48, 64), torch.Generator().manual_seed(0))
    assert noise.shape == (1, 48, 64) and noise.abs().max().item() == pytest.approx(1)
    assert noise.diff(dim=2).abs().mean() < 0.3 * noise.abs().mean()
