"""The time-lapse of a run, and the settings that restyle a film frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch.nn.functional as F
from PIL import Image

from pipelines.core.journal import Journal
from pipelines.core.pipeline import Picture
from pipelines.core.steering import scenes_until
from pipelines.io.images import picture_to_uri, to_pil
from pipelines.io.video import Frame, Timelapse
from pipelines.optimize.run import OptimizeRun
from pipelines.optimize.settings import OptimizeSettings


def timelapse_of(run: OptimizeRun, journal: Journal) -> Timelapse:
    """The film of a journal: all steps, or, for a run that moves its canvas, the last step before each move.

    Frames are decoded as the film is read, by restoring `run` from the snapshots.
    """
    steps = journal.steps()
    scenes = scenes_until(run.timeline, steps[-1] if steps else 0)
    moves = [settings.animate for _, settings in run.timeline if settings.animate]
    kept = [
        [at for at, *_ in journal.facts(step)["frames"] if not moves or (at + 1) % moves[-1] == 0]
        for step in steps
    ]

    def draw() -> Iterator[Frame]:
        for step, wanted in zip(steps, kept, strict=True):
            snapshot = journal.load(step)
            run.restore(snapshot)
            start = 0
            for at, rows, columns in snapshot.facts["frames"]:
                tokens = snapshot.tensors["frames"][start : start + rows * columns].view(1, rows, columns)
                start += rows * columns
                if at not in wanted:
                    continue
                run.state.step = at
                picture = run.render(tokens.to(run.canvas.device).long())
                if picture.shape[-2:] != run.canvas.full_size:
                    picture = F.interpolate(picture, run.canvas.full_size, mode="nearest")
                scene = sum(begin <= at for begin, _ in scenes) - 1
                yield Frame(to_pil(run.canvas.cropped(picture))[0], scene)

    return Timelapse(draw(), sum(map(len, kept)), [words for _, words in scenes])


def restyle(settings: OptimizeSettings, frame: Image.Image, before: Picture | None) -> OptimizeSettings:
    """The settings for the next frame of a film: `frame` is the start picture and anchor.

    With the result of the frame before, z starts from its tokens, so that frames stay alike.
    """
    settings = replace(settings, image=picture_to_uri(frame))
    if before is None:
        return settings
    return replace(settings, tokens=" ".join(map(str, before.facts["tokens"])))
