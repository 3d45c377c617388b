"""Whose what is, where visitors are apart: what a visitor's things are kept under, and where.

A visitor is known by a secret that only his browser and this server have seen. What is kept, in the job list and as the
name of his folder, is its hash: nothing that is shown or stored lets anybody pass for him, and it outlives a restart.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

SECRET = re.compile(r"[A-Za-z0-9_-]{32,64}")  # 128 bits at least, as the page and the server make it
OWNER = re.compile(r"v-[0-9a-f]{32}")


def owner_of(secret: str) -> str:
    """What a visitor's things are kept under."""
    return "v-" + hashlib.sha256(secret.encode()).hexdigest()[:32]


def home_of(folder: Path, session: str) -> Path:
    """Where the pictures of a session go: a visitor's own folder, else the one for all."""
    return folder / "visitors" / session[2:] if OWNER.fullmatch(session) else folder
