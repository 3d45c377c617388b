"""The exceptions by which a run ends early. This module imports nothing, so every module may import it."""

from __future__ import annotations


class BadInput(ValueError):
    """The user asked for something that cannot be done. The message is one sentence for the user."""


class CannotSave(Exception):
    """A file could not be written, for example because the disk is full. The message is one sentence for the user."""


class Stopped(Exception):
    """The run was asked to stop.

    Whoever consumes a run throws it into the generator between two Steps. A Resumable pipeline catches it and returns its
    pictures so far; other pipelines let it pass.
    """
