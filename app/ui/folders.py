"""The folders that the tab Library shows: the pictures made here, and folders from elsewhere that are only read."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path

from app.library import Library
from pipelines.errors import BadInput
from pipelines.io.files import home_path, shown_name

MOST = 16  # folders from elsewhere
HERE = ""  # the key of the pictures made here


class Folders:
    """Libraries by key. `may_open` says whether whoever uses the page may name folders: the machine is then his own.

    A browser names a folder by its key; only `open` takes a path.
    """

    def __init__(
        self, here: Library, outputs: Path, *, may_open: bool = False, given: Iterable[Path] = ()
    ) -> None:
        self.here, self.may_open = here, may_open
        self._outputs = outputs
        self._opened: dict[str, Library] = {}
        self._lock = threading.Lock()
        for folder in given:
            self._open(folder)

    def __bool__(self) -> bool:
        """Whether there is more than the pictures made here, or may be."""
        return self.may_open or bool(self._opened)

    def library(self, key: str) -> Library:
        """The library of a key. BadInput when no folder has it, as after a restart."""
        if key == HERE:
            return self.here
        try:
            return self._opened[key]
        except KeyError:
            raise BadInput("library.folder_closed") from None

    def open(self, path: str) -> str:
        """Open a folder of this machine: its key. BadInput when there is none or folders may not be opened here."""
        if not self.may_open:
            raise BadInput("library.folder_not_open_here")
        return self._open(home_path(path.strip() or "."))

    def _open(self, path: Path) -> str:
        try:
            folder = path.resolve()
            there = folder.is_dir()
        except (OSError, ValueError, RuntimeError):
            there = False
        if not there:
            raise BadInput("library.no_folder", folder=str(path)[:120])
        if folder == self._outputs.resolve():
            return HERE
        key = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        with self._lock:
            if key not in self._opened:
                if len(self._opened) >= MOST:
                    raise BadInput("library.too_many_folders", most=MOST)
                self._opened[key] = Library(folder, outputs=self._outputs)
        return key

    def opened(self) -> dict[str, str]:
        """Key -> path, as it is shown."""
        return {key: shown_name(str(library.folder)) for key, library in self._opened.items()}

    def close(self) -> None:
        """End what is being asked of any of them."""
        for library in self._opened.values():
            library.end_soon()  # all at once, then each is waited for
        self.here.close()
        for library in self._opened.values():
            library.close()
