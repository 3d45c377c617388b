"""Replay: run a picture's record again, with the threads and kernels that it names, and compare the pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipelines.core.comparison import Comparison, compare
from pipelines.core.environment import as_recorded
from pipelines.core.execute import result_of
from pipelines.core.pipeline import Picture, Pipeline, Result, StudioLike
from pipelines.core.record import Record, check_complete, record_of
from pipelines.core.settings import Settings
from pipelines.errors import BadInput
from pipelines.io.images import as_seen


@dataclass(frozen=True)
class Replay:
    """A picture made again, its new record, and how it differs from the first picture."""

    picture: Picture
    record: Record
    comparison: Comparison


def replay(
    image: Image.Image,
    record: Record,
    studio: StudioLike,
    watch: Callable[[Pipeline[Any], Settings], Result] = result_of,
) -> Replay:
    """Run a record again and compare the result with the picture.

    Args:
        image: The picture that the record was read from.
        record: A record as `read_record` returns it.
        studio: The studio whose models are used.
        watch: A function that runs a pipeline with settings to its end and returns the Result.

    Returns:
        The new picture and how it differs.

    Raises:
        BadInput: When pictures that the run needs were left out of the record, or the run cannot be made here.
    """
    check_complete(record)
    pipeline = studio.pipeline(record.pipeline)
    settings = pipeline.Settings.from_dict(record.settings)
    with as_recorded(record.environment):
        result = watch(pipeline, settings)
    rank, picture = same_picture(result, record)
    new = record_of(
        pipeline=record.pipeline,
        pack=studio.pack,
        device=result.device or studio.device,
        models=picture.models or studio.models(record.pipeline),
        settings=result.settings,
        picture=picture,
        rank=rank,
        environment=result.environment,
    )
    return Replay(picture, new, compare(image, as_seen(picture.image), record, new))


def same_picture(result: Result, record: Record) -> tuple[int, Picture]:
    """The rank (from 1) and the picture in a replayed run that the record describes.

    It is the picture with the record's seed. When none or several have it, it is the one with the record's rank, or the
    last. BadInput when the run has no pictures.
    """
    ranked = list(enumerate(result.pictures, start=1))
    same = [(rank, picture) for rank, picture in ranked if picture.seed == record.picture["seed"]]
    if len(same) == 1:
        return same[0]
    place: int = min(record.picture["rank"], len(ranked)) - 1
    if place < 0:
        raise BadInput("core.nothing_to_compare")
    return ranked[place]
