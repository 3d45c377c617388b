"""The ways a run ends early. They live alone here so that every other file can import them without a circle."""

from __future__ import annotations


class BadInput(ValueError):
    """The user asked for something that cannot be done; the message is one sentence fit to be shown."""


class CannotSave(Exception):
    """A file could not be written, by a full disk for instance; the message is one sentence fit to be shown."""


class Stopped(Exception):
    """The run was asked to stop; thrown in by consumers between two Steps. Who can keep what there is catches it."""
