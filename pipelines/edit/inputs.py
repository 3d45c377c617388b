"""The inputs of Edit, computed once a run: the picture and its framing, the pictures to learn from, the direction.

`pictures_as_settings` makes the pictures part of the settings before a run. `read_inputs` reads them again for the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.clip.losses import text_direction
from pipelines.clip.ranking import text_vector
from pipelines.edit.framing import MIN_SIDE, Framing
from pipelines.edit.settings import EditSettings, split_list
from pipelines.edit.source_images import SourceImages
from pipelines.edit.tuning import TargetDirection
from pipelines.errors import BadInput, reason_of
from pipelines.io.files import home_path
from pipelines.io.folders import open_one_of, picture_files
from pipelines.io.images import on_white, open_picture, open_untouched, picture_to_uri, to_pil
from pipelines.io.masks import read_mask
from pipelines.models.base import Clip, Denoiser

LARGE = 1_048_576  # pixels; a larger picture is kept in the record reduced to so many
MOST_LISTED = 200  # pictures in a list, folders unfolded
EXAMPLE_CHOICE = 32  # of the pack's pictures, for a run without one


class Models(Protocol):
    """The networks of Edit and the pack's pictures."""

    unet: Denoiser
    clip: Clip
    critic: Clip
    pictures: SourceImages


@dataclass(frozen=True)
class EditInputs:
    """The picture of a run, its framing, the model's input, and values that follow from these and the settings.

    `image` is the picture at the model's side, `x` what the model encodes it as, `small_mask` the mask on the grid of x.
    The properties are computed on first use. None depends on the strength or on the updates.
    """

    models: Models
    settings: EditSettings
    picture: Image.Image
    framing: Framing
    image: Tensor  # (1, 3, s, s)
    x: Tensor  # (1, c, h, w)
    mask: Image.Image | None
    small_mask: Tensor | None  # (1, 1, h, w) in [0, 1]

    @cached_property
    def source_images(self) -> Tensor:
        """(n, 3, s, s): the user's own pictures to learn from, or the pack's that fit the source text best."""
        settings, clip, pictures = self.settings, self.models.clip, self.models.pictures
        if settings.source_images:
            return self._read(settings.source_images).to(clip.device)
        rows = nearest_to_source(self.models, settings, settings.source_count)
        return pictures.tensor(rows, self.framing.side).to(clip.device)

    @cached_property
    def direction(self) -> TargetDirection:
        """The direction between the texts, or from the source's pictures to the examples (Gal et al. 2022, 4.3)."""
        settings, models = self.settings, self.models
        if not settings.target_images:
            clip, critic = (
                text_direction(judge, settings.source, settings.target)
                for judge in (models.clip, models.critic)
            )
            return TargetDirection(clip, critic)
        return self._towards_target_images(self.image if self._learns_from_itself else self.source_images)

    def direction_from(self, x: Tensor) -> TargetDirection:
        """The direction for x, the picture after `purify`; it differs from `direction` only from a picture to examples."""
        if x is self.x or not self.settings.target_images or not self._learns_from_itself:
            return self.direction
        return self._towards_target_images(self.models.unet.decode(x))

    @cached_property
    def _target_image_vectors(self) -> TargetDirection:
        """The mean vector (d,) of the examples, for CLIP and for the critic."""
        shown = self._read(self.settings.target_images).to(self.image.device)
        return TargetDirection(
            *(judge.encode_image(shown).mean(0) for judge in (self.models.clip, self.models.critic))
        )

    @property
    def _learns_from_itself(self) -> bool:
        return self.settings.mode in ("instant", "quick")

    def _towards_target_images(self, before: Tensor) -> TargetDirection:
        after, models = self._target_image_vectors, self.models
        pairs = ((models.clip, after.clip), (models.critic, after.critic))
        clip, critic = (
            F.normalize(vector - judge.encode_image(before).mean(0), dim=0) for judge, vector in pairs
        )
        return TargetDirection(clip, critic)

    def _read(self, sources: str) -> Tensor:
        """A list of pictures as input of the model: (n, 3, s, s) in [-1, 1]. BadInput for unreadable pictures."""
        shown = [on_white(open_picture(source)) for source in split_list(sources)]
        return torch.cat(
            [Framing.of(picture.size, None, self.framing.side).reduced(picture) for picture in shown]
        )


def read_inputs(models: Models, settings: EditSettings) -> EditInputs:
    """Read the picture and the mask of prepared settings. BadInput when one is unreadable, or the crop outside."""
    picture = on_white(open_picture(settings.image)) if settings.image else _chosen(models, settings)
    framing = Framing.of(picture.size, settings.box(), models.unet.config.image_size)
    mask = read_mask(settings.mask, picture.size, None) if settings.mask else None
    device = models.clip.device
    image = framing.reduced(picture).to(device)
    with torch.no_grad():
        x = models.unet.encode(image)
    small = None
    if mask is not None:  # a place of x may change where one of its pixels may
        small = F.adaptive_max_pool2d(framing.reduced_mask(mask).to(device), tuple(x.shape[-2:]))
    return EditInputs(models, settings, picture, framing, image, x, mask, small)


def nearest_to_source(models: Models, settings: EditSettings, count: int) -> list[int]:
    """Rows of the pack's `count` pictures with the highest cosine with the source text, highest first."""
    text = text_vector(models.clip, settings.source)
    return models.pictures.nearest(models.clip, text[None], min(count, len(models.pictures)))


def source_image_count(models: Models, settings: EditSettings) -> int:
    """The number of pictures that a reusable direction is learned from."""
    return len(split_list(settings.source_images)) or min(settings.source_count, len(models.pictures))


def _chosen(models: Models, settings: EditSettings) -> Image.Image:
    """One of the pack's pictures that fit the source text, chosen by the seed."""
    rows = nearest_to_source(models, settings, EXAMPLE_CHOICE)
    return to_pil(models.pictures.tensor([rows[settings.seed % len(rows)]], models.unet.config.image_size))[0]


def pictures_as_settings(models: Models, settings: EditSettings) -> dict[str, Any]:
    """The picture, the mask and the lists of pictures as fields of the settings, with data URIs.

    BadInput for unreadable pictures, a crop outside the picture, and too few or too many pictures in a list.
    """
    fields: dict[str, Any] = {}
    side = models.unet.config.image_size
    size = (side, side)
    if settings.image:
        picture = on_white(open_picture(settings.image))
        size = picture.size
        if size[0] * size[1] <= LARGE:
            fields["image"] = _kept(settings.image, picture)
    elif not len(models.pictures):
        raise BadInput("edit.no_picture")
    if settings.mode in ("reusable", "paper") and not (
        settings.directions or settings.source_images or len(models.pictures)
    ):
        raise BadInput("edit.no_lessons", mode=settings.mode)
    Framing.of(size, settings.box(), side)
    if settings.mask:
        fields["mask"] = picture_to_uri(read_mask(settings.mask, size, None))
    for name in ("target_images", "source_images"):
        sources = [source for part in split_list(getattr(settings, name)) for source in _unfolded(part)]
        if len(sources) > MOST_LISTED:
            raise BadInput("edit.too_many_pictures", setting=name, count=len(sources), most=MOST_LISTED)
        fields[name] = " | ".join(_likeness(source, side) for source in sources)
    if settings.source_images and len(split_list(fields["source_images"])) < 2:
        raise BadInput("edit.single_lesson")
    return fields


def _kept(source: str, picture: Image.Image) -> str:
    """A picture as a data URI: with the file's own pixels and profile, where they open as the same `picture` again."""
    own = picture_to_uri(open_untouched(source))
    return own if on_white(open_picture(own)).tobytes() == picture.tobytes() else picture_to_uri(picture)


def reduced_settings(settings: EditSettings, picture: Image.Image) -> EditSettings:
    """The settings for the record of a large picture's edit: picture, mask and crop reduced to LARGE pixels."""
    scale = (LARGE / (picture.width * picture.height)) ** 0.5
    size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
    fields: dict[str, Any] = {"image": picture_to_uri(picture.resize(size, Image.Resampling.BOX))}
    if settings.mask:
        fields["mask"] = picture_to_uri(open_picture(settings.mask).resize(size, Image.Resampling.BOX))
    if (box := settings.box()) is not None:
        width, height = (max(MIN_SIDE, int((box[k + 2] - box[k]) * scale)) for k in (0, 1))
        left, top = min(int(box[0] * scale), size[0] - width), min(int(box[1] * scale), size[1] - height)
        fields["crop"] = f"{left},{top},{width}x{height}"
    return replace(settings, **fields)


def _unfolded(source: str) -> list[str]:
    """The paths of a folder's pictures, or the source itself. BadInput for a folder without pictures, or unreadable."""
    if not source.startswith("data:") and (folder := home_path(source)).is_dir():
        try:
            paths = picture_files(folder)
        except OSError as error:
            raise BadInput("io.film_unreadable", file=source[:80], reason=reason_of(error)) from None
        if not paths:
            raise BadInput("edit.folder_without_pictures", folder=source[:80])
        return [str(path) for path in paths]
    return [source]


def _likeness(source: str, side: int) -> str:
    picture = on_white(open_one_of(source))
    picture.thumbnail((side, side))
    return picture_to_uri(picture)
