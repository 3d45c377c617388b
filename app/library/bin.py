"""The bin: a folder of the library. Where a file lay before is its path within: bin/WHEN/2026-11-29/x-1.png."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath

from app.library.files import BIN, Places, walk
from pipelines.errors import BadInput
from pipelines.io.files import cannot_save, shown_name


class Bin:
    """The bin of a folder of pictures made here."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def put(self, names: list[str]) -> list[tuple[str, str]]:
        """Move files into the bin: (old name, new name) of those that were there. CannotSave when one cannot be moved."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        return self._move([(name, f"{BIN}{stamp}/{name}") for name in names if not name.startswith(BIN)])

    def restore(self, names: list[str]) -> list[tuple[str, str]]:
        """Move files back to where they were, or beside a file that has taken the name since."""
        pairs: list[tuple[str, str]] = []
        for name in names:
            parts = PurePosixPath(name).parts[3:]  # after library, bin and the time
            if name.startswith(BIN) and parts:
                pairs.append((name, self._free("/".join(parts))))
        return self._move(pairs)

    def back(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Undo what `put` or `restore` gave: move files from their new names to the old ones, or beside these."""
        return self._move([(new, self._free(old)) for old, new in pairs])

    def empty(self) -> list[str]:
        """Delete all that is in the bin: the names of what was deleted. CannotSave when a file stays."""
        names = [BIN + name for name, _ in walk(self.places.bin, (".png",))]
        problem = None
        for name in names:
            try:
                self.places.file(name).unlink(missing_ok=True)
            except OSError as error:
                problem = (self.places.file(name), error)
        if problem is not None:
            raise cannot_save(*problem)
        shutil.rmtree(self.places.bin, ignore_errors=True)
        return names

    def _free(self, name: str) -> str:
        path = PurePosixPath(name)
        candidate, number = name, 1
        while self.places.file(candidate).exists():
            number += 1
            candidate = str(path.with_name(f"{path.stem} ({number}){path.suffix}"))
        return candidate

    def _move(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Move files by their names. When one cannot be moved, those before it are moved back."""
        done: list[tuple[str, str]] = []
        try:
            for old, new in pairs:
                source = self.places.file(old)
                target = self._target(source, new)
                if not source.is_file():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                _rename(source, target)
                done.append((old, new))
                _remove_empty(source.parent, self.places)
        except OSError as error:
            for old, new in reversed(done):
                with suppress(OSError):
                    _rename(self.places.file(new), self.places.file(old))
            raise cannot_save(self.places.file(old), error) from error
        return done

    def _target(self, source: Path, new: str) -> Path:
        """The path of a new name; the file's own name keeps its bytes, whatever they are."""
        target = self.places.file(str(PurePosixPath(new).parent)) / source.name
        if shown_name(target.name) != PurePosixPath(new).name:  # it was given a number
            target = target.with_name(PurePosixPath(new).name)
        if self.places.folder not in target.parents or ".." in PurePosixPath(new).parts:
            raise BadInput("app.picture_not_in_library", picture=new[:40])
        return target


def _rename(source: Path, target: Path) -> None:
    """Rename a file, or move it from one disk to another."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(source, target)


def _remove_empty(folder: Path, places: Places) -> None:
    """Remove folders of the bin that are empty now."""
    while places.bin in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
