"""What strangers may send to a studio: names that nobody has at its addresses, and values that no question asks for."""

from __future__ import annotations

import json
from typing import Any

ADDRESSES = (
    *(
        "picture/{}",
        "example/{}",
        "library/thumbnail/{}",
        "library/file/{}",
        "library/zip/{}",
        "export/sticker/{}",
    ),
    *("export/{}/a.png", "axes/{}", "film/{}.webp", "glimpse/{}/1.jpg", "glimpse/a/{}.jpg", "direction/{}"),
    *("train/sheet/{}/1", "train/mosaic/{}", "gradio_api/file={}", "gradio_api/upload_progress?upload_id={}"),
    *("?r={}", "?job={}", "?token={}"),
)
NAMES = (
    *("%00", "a.png%00.png", "..%2f..%2fetc%2fpasswd", "%2e%2e/x.png", "%ff%fe", "%ed%a0%80", "%0d%0aX:%20y"),
    *("con.png", "-1", "9" * 30, "%C2%B2", "*", "%7b%7d", "a" * 5000),
)
QUESTIONS = {
    "library": "find cells choices large family beside act undo zip export index broken folder",
    "train": "form look check start do",
}
ASKED = (
    "text date seed like unlike given tool model tag words starred binned sort stacked skip count folder id ids do note"
    " place moving outline network pack licence minutes size again"
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        10**30,
        "",
        "\ud800",
        "\0",
        "²",
        "1e999",
        "2026-13-45",
        "../../etc/passwd",
        "a" * 10_000,
    ),
    *([[]], ["a"] * 100, {}, ["data:image/png;base64,AAAA"]),
)
# origins of other sites' pages
FOREIGN = ("https://elsewhere.example", "null", "http://127.0.0.1:1", "file://")


def odd_requests() -> list[tuple[str, str, bytes]]:
    """All of them: method, address and body."""
    asked = [("GET", address.format(name), b"") for address in ADDRESSES for name in NAMES]
    for place, names in QUESTIONS.items():
        for name in names.split():
            bodies = (json.dumps(dict.fromkeys(ASKED.split(), value)) for value in VALUES)
            asked += [("POST", f"{place}/{name}", body.encode()) for body in bodies]
    return asked
