"""What readers of other programs' records share: JSON, pairs and XMP, read without trust, and told as plain text."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from app.library.entry import Foreign
from pipelines.io.values import is_dict, is_list

MOST_TEXT = 4000  # characters that are kept of a record
MOST_JSON = 2_000_000  # characters of a graph
MOST_ELEMENT = 200_000  # characters of an element of XMP
NAMES = ("name", "model_name", "key", "modelFileName")  # of a model that is told as an object


def json_of(text: str) -> Any:
    """The value of a JSON text, None when it is none. NaN, which ComfyUI writes, is read as None."""
    text = text.strip().rstrip("\0")  # which Tensor.Art writes at the end
    if not text.startswith(("{", "[")) or len(text) > MOST_JSON:
        return None
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def object_of(text: str) -> dict[str, Any]:
    """The JSON object of a text; {} when it is none."""
    values = json_of(text)
    return values if is_dict(values) else {}


def small_names(values: dict[str, Any]) -> dict[str, Any]:
    """An object with its names in small letters and _ for spaces."""
    return {str(name).lower().replace(" ", "_"): value for name, value in list(values.items())[:200]}


def element_of(packet: str, name: str) -> str:
    """The text of the first element of this name in a packet of XMP, without the tags in it; "" for none."""
    _, _, rest = packet.partition(f"<{name}>")
    inner, end, _ = rest[:MOST_ELEMENT].partition(f"</{name}>")
    return html.unescape(re.sub("<[^<>]*>", "", inner)).strip() if end else ""


def told(tool: str, values: dict[str, Any], prompt: Any, seed: Any, model: Any = None) -> Foreign:
    """What an object says of a run: its pairs as lines; the prompt, the seed and the model as text."""
    if is_dict(model):
        model = next((model[name] for name in NAMES if model.get(name)), None)
    return Foreign(tool, lines_of(values), plain(prompt), digits(seed), plain(model))


def plain(value: Any, depth: int = 4) -> str:
    """A value as one text: the parts of lists and objects side by side, nothing for None."""
    parts = value if is_list(value) else list(value.values()) if is_dict(value) else None
    if parts is not None:
        return " ".join(plain(part, depth - 1) for part in parts[:50]) if depth else ""
    if value is None:
        return ""
    return str(value)[:MOST_TEXT]


def digits(value: Any) -> str:
    """A seed as digits; "" for what is none, as -1 for a chance one, or a number beyond 64 bits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if isinstance(value, bool) else plain(value).strip()
    return text if text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 2**64 else ""


def lines_of(values: dict[str, Any], depth: int = 3) -> str:
    """The pairs of a JSON object as lines, those of objects within it too."""
    lines: list[str] = []
    for key, value in list(values.items())[:200]:
        if is_dict(value):
            if depth:
                lines.append(lines_of(value, depth - 1))
        elif text := plain(value):
            lines.append(f"{str(key)[:60]}: {text}")
    return "\n".join(line for line in lines if line)
