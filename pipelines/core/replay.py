"""Replay: run a picture's record again and compare the pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipelines.core.execute import result_of
from pipelines.core.pipeline import Picture, Pipeline, Result, StudioLike
from pipelines.core.record import Comparison, Record, check_complete, compare, record_of
from pipelines.core.settings import Settings
from pipelines.errors import BadInput


@dataclass(frozen=True)
class Replay:
    """A picture made again, its record, and how it differs from the first."""

    picture: Picture
    record: Record
    comparison: Comparison


def replay(
    image: Image.Image,
    record: Record,
    studio: StudioLike,
    watch: Callable[[Pipeline[Any], Settings], Result] = result_of,
) -> Replay:
    """Run `record` again with the models of `studio`, and compare with `image`, the picture that it was found in.

    `record` is as `read_record` gives it. `watch` runs a pipeline to its end. BadInput when pictures that the run needs
    were left out of the record.
    """
    check_complete(record)
    pipeline = studio.pipeline(record.pipeline)
    result = watch(pipeline, pipeline.Settings.from_dict(record.settings))
    rank, picture = same_picture(result, record)
    new = record_of(
        pipeline=record.pipeline,
        pack=studio.pack,
        device=studio.device,
        models=studio.models(record.pipeline),
        settings=result.settings,
        picture=picture,
        rank=rank,
    )
    return Replay(picture, new, compare(image, picture.image, record, new))


def same_picture(result: Result, record: Record) -> tuple[int, Picture]:
    """The picture of a replayed run that a record is about, after its rank: by its seed, else by the rank it had."""
    ranked = list(enumerate(result.pictures, start=1))
    same = [(rank, picture) for rank, picture in ranked if picture.seed == record.picture["seed"]]
    if len(same) == 1:
        return same[0]
    place: int = min(record.picture["rank"], len(ranked)) - 1
    if place < 0:
        raise BadInput("the run gave no picture to compare with")
    return ranked[place]
