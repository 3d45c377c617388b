"""Puts open weights or a user's own model into the models folder, and removes them."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import BadInput, reason_of
from pipelines.io.files import home_path, write_atomically
from pipelines.io.values import is_dict
from pipelines.models.spec import families, suffixes
from pipelines.weights.checkpoint import Checkpoint, models_folder, size_of
from pipelines.weights.download import Opener, fetch
from pipelines.weights.open_weights import OPEN_WEIGHTS

if TYPE_CHECKING:  # torch takes a second to import
    from pipelines.core.pipeline import Step

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
KEPT_FORMS = (".safetensors", ".json", ".txt")  # what a diffusers folder may consist of
NOT_A_FILE = (b"<!doctype", b"<html", b"<?xml", b"version https://git-lfs")  # how what came instead begins


def published(name: str) -> Checkpoint:
    """The checkpoint of the open weights with this name. BadInput, with the known names, for others."""
    if name not in OPEN_WEIGHTS:
        raise BadInput("weights.not_in_full_pack", model=name[:64], known=", ".join(OPEN_WEIGHTS))
    return OPEN_WEIGHTS[name]


def install(checkpoint: Checkpoint, opener: Opener | None = None) -> Generator[Step, None, list[str]]:
    """Download a model's files and convert them. Closing the generator keeps the bytes that came, for the next call.

    It yields Steps whose `done` and `total` are megabytes of a file, then one before and one after the conversion. It
    returns the names of the files whose SHA-256 is not in the catalog. The SHA-256 of such a file's first download is
    stored, and later downloads must have the same; it is forgotten, and the file deleted, when the files turn out to be
    no such model. BadInput and CannotSave as `fetch` and `convert_file` raise them.
    """
    from pipelines.core.pipeline import Step

    downloads = models_folder() / ".downloads" / checkpoint.name
    pins = _read_pins()
    new: list[str] = []
    for file in checkpoint.files:
        path = downloads / file.path
        expected = file.sha256 or pins.get(file.url)
        if path.is_file() and expected is None:  # from a run that ended before its pin was written
            path.unlink()
        events, begun, first = fetch(file.urls, path, expected, file.size, opener), time.monotonic(), -1
        while True:
            try:
                done, total = next(events)
            except StopIteration as end:
                digest: str = end.value
                break
            first = done if first < 0 else first
            rate = (done - first) / max(time.monotonic() - begun, 1e-3) / 1e6
            yield Step(path.name, done // 10**6, max(total // 10**6, 1), {"MB/s": rate} if rate else {})
        if expected is None:
            _check_content(path)
            new.append(path.name)
            _pin(file.url, digest)
    yield Step("converting", 0, 1)
    try:
        _place(checkpoint, downloads)
    except BadInput as problem:
        if problem.code != "weights.memory_short":
            _distrust(checkpoint, downloads)
        raise
    _forget(downloads)
    yield Step("converting", 1, 1)
    return new


def _distrust(checkpoint: Checkpoint, downloads: Path) -> None:
    """Forget the hashes of files that the catalog does not pin, and delete what came of them."""
    for file in checkpoint.files:
        if not file.sha256:
            _unpin(file.url)
            (downloads / file.path).unlink(missing_ok=True)


def _forget(downloads: Path) -> None:
    """Delete a model's downloads, and the folder of all downloads when that is then empty."""
    shutil.rmtree(downloads, ignore_errors=True)
    with suppress(OSError):
        downloads.parent.rmdir()


def _place(checkpoint: Checkpoint, downloads: Path) -> None:
    """Convert or move downloaded files to where the model belongs. BadInput for files that may not be kept."""
    if checkpoint.spec.convert:
        facts = {field: getattr(checkpoint, field) for field in ("name", "licence", "origin", "about")}
        paths = [downloads / file.path for file in checkpoint.files]
        _convert(paths, checkpoint.path, checkpoint.spec.family, facts)
    elif all(file.path.endswith(KEPT_FORMS) for file in checkpoint.files):
        downloads.replace(checkpoint.path)
    else:
        raise BadInput("weights.strange_files", model=checkpoint.name)


def _check_content(path: Path) -> None:
    """Delete a file that is a web page or the pointer of a download, or JSON that cannot be read, and raise BadInput."""
    with open(path, "rb") as file:
        wrong = file.read(64).lstrip().lower().startswith(NOT_A_FILE)
    if path.suffix == ".json" and not wrong:
        try:
            json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError):
            wrong = True
    if wrong:
        path.unlink()
        raise BadInput("weights.page_in_its_place", file=path.name)


def add(paths: list[Path], name: str, family: str | None = None) -> str:
    """Convert a user's model into the models folder.

    Args:
        paths: Its files, as for `convert_file` or `convert_vocabulary`.
        name: Its new name. One of the open weights' gives the model their family, licence and origin.
        family: A name of `models add --family`. None tries all families of networks.

    Returns:
        The kind of the network, or the family of the vocabulary.

    Raises:
        BadInput: When the name is not allowed or taken, or the files are of no known family.
        CannotSave: When the file cannot be written.
    """
    if not NAME.fullmatch(name):
        raise BadInput("weights.name_form", name=name[:64])
    checkpoint = OPEN_WEIGHTS.get(name)
    if find(name) is not None:
        raise BadInput("weights.name_taken", name=name)
    folders = [folder for folder in map(home_path, paths) if (folder / "text_encoder").is_dir()]
    if folders or (checkpoint is not None and not checkpoint.spec.convert):
        raise BadInput("weights.diffusers_folder", name=name, place=models_folder() / name)
    family = family or (checkpoint.spec.family if checkpoint else None)
    facts = {"name": name, "licence": "not stated: the user's own file", "origin": "a file of the user's"}
    if checkpoint is not None:
        facts |= {"licence": checkpoint.licence, "origin": f"{checkpoint.origin}, given by path"}
    path = models_folder() / (name + _suffix(family))
    return _convert([home_path(file) for file in paths], path, family, facts)


def remove(name: str) -> int:
    """Delete a model and its downloads, and return the number of bytes that were freed.

    BadInput when there is neither, or when the model cannot be deleted.
    """
    place, downloads = find(name), models_folder() / ".downloads" / name
    if not NAME.fullmatch(name) or not (place or downloads.is_dir()):
        raise BadInput("weights.nothing_to_remove", model=name[:64], folder=models_folder())
    freed = size_of(downloads) + (size_of(place) if place else 0)
    try:
        if place:
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
    except OSError as error:
        raise BadInput("weights.not_removed", path=place, reason=reason_of(error)) from error
    _forget(downloads)
    return freed


def find(name: str) -> Path | None:
    """The file or folder of a model in the models folder. None when there is none of this name."""
    paths = [models_folder() / (name + suffix) for suffix in suffixes()]
    return next((path for path in paths if path.exists()), None) if NAME.fullmatch(name) else None


def installed() -> list[str]:
    """The names of the models in the models folder, sorted by their files' names."""
    endings = set(suffixes()) - {""}
    with suppress(FileNotFoundError):
        paths = [path for path in sorted(models_folder().iterdir()) if not path.name.startswith(".")]
        names = [
            path.name if path.is_dir() else path.stem
            for path in paths
            if path.is_dir() or path.suffix in endings
        ]
        return [name for name in names if NAME.fullmatch(name)]
    return []


def _suffix(family: str | None) -> str:
    """The suffix of the files of a family. ".safetensors" for an unknown family."""
    rows = {**families(), **families(vocabularies=True)}.get(family or "")
    return rows[0].suffix if rows else ".safetensors"


def _convert(paths: list[Path], path: Path, family: str | None, facts: dict[str, Any]) -> str:
    from pipelines.weights.convert import convert_file, convert_vocabulary

    if family in families(vocabularies=True):
        return convert_vocabulary(paths, path, family)
    return convert_file(paths, path, family, facts)


# ------------------------------------------------------------------------------ hashes of first downloads


def _pin_file() -> Path:
    return models_folder() / ".pins.json"


def _read_pins() -> dict[str, str]:
    """Address -> SHA-256 of its first download. BadInput when the file of them cannot be read."""
    try:
        pins = json.loads(_pin_file().read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadInput("weights.pins_unreadable", file=_pin_file(), reason=str(error)[:80]) from error
    return pins if is_dict(pins) else {}


def _pin(url: str, sha256: str) -> None:
    _write_pins(_read_pins() | {url: sha256})


def _unpin(url: str) -> None:
    _write_pins({address: sha256 for address, sha256 in _read_pins().items() if address != url})


def _write_pins(pins: dict[str, str]) -> None:
    write_atomically(_pin_file(), json.dumps(pins, indent=1, sort_keys=True).encode())
