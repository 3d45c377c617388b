"""Pictures in a folder for each label, as a probe is taught from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.files import home_path
from pipelines.models.base import Clip
from pipelines.see.labels import read_labels
from pipelines.see.pictures import Progress, pictures_below, quiet, see_all


@dataclass(frozen=True)
class Labelled:
    """n pictures with labels: `vectors` (n, d) of unit length, `targets` (n,) int64; `broken` could not be opened."""

    vectors: Tensor
    targets: Tensor
    broken: list[tuple[str, BadInput]]


def labelled_files(folder: str | Path, labels: Sequence[str] = ()) -> dict[str, list[Path]]:
    """Label -> its pictures, from the folders in a folder; of these `labels` only, in their order, where they are given.

    A folder's name is its label, with spaces for underscores. BadInput unless there are two labels with pictures, or
    where one of the `labels` has none.
    """
    path = home_path(folder)
    if not path.is_dir():
        raise BadInput("see.folder_missing", folder=str(folder)[:80])
    folders = sorted(
        inside for inside in path.iterdir() if inside.is_dir() and not inside.name.startswith(".")
    )
    named = {read_labels([inside.name.replace("_", " ")])[0]: inside for inside in folders}
    if labels:
        for label in labels:
            if label not in named:
                raise BadInput("see.label_without_pictures", label=label[:60])
        named = {label: named[label] for label in labels}
    if len(named) < 2:
        raise BadInput("see.folder_without_labels", folder=str(folder)[:80], count=len(named))
    return {label: pictures_below(inside) for label, inside in named.items()}


def see_labelled(
    clip: Clip, files: Mapping[str, Sequence[str | Path]], progress: Progress = quiet
) -> Labelled:
    """Encode the pictures (paths or data URIs) of all labels. BadInput when no picture of them can be opened."""
    pairs = [(str(file), label) for label, sources in enumerate(files.values()) for file in sources]
    seen = see_all(clip, [file for file, _ in pairs], progress)
    missing = {source for source, _ in seen.broken}
    targets = [label for file, label in pairs if file not in missing]
    return Labelled(seen.vectors, torch.tensor(targets), seen.broken)
