"""Where pictures lie, and where what the library keeps of them does."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.io.files import named, shown_name
from pipelines.io.folders import PICTURES

# folders of ours that hold other things
NOT_PICTURES = ("runs", "given", "directions", "library", "trainings")
MOST_DEPTH = 12  # folders within folders
BIN = "library/bin/"  # how the names of pictures in the bin begin

State = tuple[int, int]  # nanoseconds of the last change, bytes


@dataclass(frozen=True)
class Places:
    """A folder of pictures, and the library's own folder for it.

    Whoever deletes `index` loses nothing but time. `marks` and `bin` are the user's work. In a folder that is not `own`
    nothing is written: its library lies in the outputs folder.
    """

    folder: Path
    state: Path
    own: bool

    @property
    def index(self) -> Path:
        return self.state / "index"

    @property
    def facts(self) -> Path:
        return self.index / "facts.sqlite"

    @property
    def thumbnails(self) -> Path:
        return self.index / "thumbnails"

    @property
    def zips(self) -> Path:
        return self.index / "zips"

    @property
    def marks(self) -> Path:
        return self.state / "marks.jsonl"

    @property
    def bin(self) -> Path:
        return self.state / "bin"

    def file(self, name: str) -> Path:
        """The file of a name that `pictures` gave."""
        return named(self.folder, name)

    def pictures(self, check: Callable[[], object] = bool) -> Iterator[tuple[str, State]]:
        """The picture files, those in the bin too: name -> when it was changed, and its bytes.

        A name is the path from the folder, as text that can be shown. The library's own folder has PNG files only, as
        they are made here. `check` is called for each file and folder on the way, and may raise.
        """
        kinds, left_out = ((".png",), NOT_PICTURES) if self.own else (PICTURES, ())
        yield from walk(self.folder, kinds, left_out, check)
        if self.own:
            for name, state in walk(self.bin, (".png",), check=check):
                yield BIN + name, state


def places_of(folder: str | Path, outputs: str | Path | None = None) -> Places:
    """The places of the outputs folder itself, or with `outputs` those of a folder from elsewhere."""
    path = Path(folder).absolute()
    if outputs is None:
        return Places(path, path / "library", own=True)
    path = path.resolve()
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Places(path, Path(outputs).absolute() / "library" / "folders" / name, own=False)


def walk(
    folder: Path,
    endings: tuple[str, ...],
    left_out: tuple[str, ...] = (),
    check: Callable[[], object] = bool,
) -> Iterator[tuple[str, State]]:
    """The files of these endings under a folder and in folders linked into it. Links that lead back are not followed.

    `left_out` are folders at the top, and at the top of a visitor's folder. Hidden files and folders are left out.
    `check` is called for each file and folder.
    """
    seen: set[tuple[int, int]] = set()
    upper = endings != (".png",)  # ours are always written in small letters
    for top, folders, names in os.walk(folder, followlinks=True):
        check()
        above = Path(top).relative_to(folder)
        try:
            place = os.stat(top)
        except OSError:  # deleted just now
            continue
        if (place.st_dev, place.st_ino) in seen or len(above.parts) >= MOST_DEPTH:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        at_top = not above.parts or (len(above.parts) == 2 and above.parts[0] == "visitors")
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (at_top and name in left_out)
        )
        prefix = "" if not above.parts else above.as_posix() + "/"
        for name in names:
            check()
            if name.startswith(".") or not (name.lower() if upper else name).endswith(endings):
                continue
            with suppress(OSError, UnicodeError):  # deleted just now; a name that is no text at all
                state = os.stat(os.path.join(top, name))
                if stat.S_ISREG(state.st_mode):
                    yield shown_name(prefix + name), (min(state.st_mtime_ns, 2**63 - 1), state.st_size)
