"""Records that other programs left in pictures, read as text: by modules of their own A1111 and its kin (`infotext`),
ComfyUI and `studios`; any other whose JSON or texts have a prompt by that name.

They come from untrusted files. Nothing of them is run, followed or believed: they are shown and searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.library.comfyui import read_comfyui
from app.library.entry import Foreign
from app.library.exif import XMP, exif_texts
from app.library.foreign_values import (
    MOST_JSON,
    MOST_TEXT,
    digits,
    element_of,
    json_of,
    object_of,
    small_names,
    told,
)
from app.library.infotext import prompt_of, read_infotext
from app.library.stealth import stealth_texts
from app.library.studios import STUDIOS, made_by_machine
from pipelines.core.record import read_texts
from pipelines.core.several import read_text
from pipelines.errors import BadInput
from pipelines.io.files import home_path
from pipelines.io.images import picture_format
from pipelines.io.values import is_dict, is_list

FEW = 2  # values of a JSON file that need not be another program's
ELEMENTS = ("exif:UserComment", "dc:description")  # of XMP, that programs write into
COMMENTS = ("Description", "Comment", "Title", "description", "comment")
INFOTEXTS = ("parameters", "usercomment", "comment", "description")  # of any case, where A1111's kin write
UNWANTED = re.compile(r"\n-[^\n]*(?=\nSteps: )")  # as Draw Things writes it into a description
PROMPTS = ("prompt", "positive_prompt", "positiveprompt", "positive")  # names of prompts in small letters
WITHIN = 2  # how deep a prompt may lie in JSON


def texts_of(data: bytes) -> dict[str, str]:
    """The texts that a picture's file holds, by name. BadInput when it is no picture, or a damaged PNG."""
    if picture_format(data) == "PNG":
        return {**exif_texts(data), **read_texts(data)}
    return exif_texts(data)


def read_foreign(texts: Mapping[str, str]) -> Foreign | None:
    """What another program wrote, from the texts of `texts_of`; None when there is nothing."""
    texts = _unwrapped(texts)
    for reader in (*STUDIOS, read_comfyui, _infotext, _of_any, _comment):
        found = reader(texts)
        if found is not None and found.text.strip():
            text, prompt = _clean(found.text[:MOST_TEXT]), _clean(found.prompt[:MOST_TEXT])
            return Foreign(found.tool, text, prompt, digits(found.seed), _clean(found.model[:100]))
    return None


def _unwrapped(texts: Mapping[str, str]) -> Mapping[str, str]:
    """The texts, with those inside XMP, and those in a comment that is JSON of texts, as NovelAI writes it into WebP."""
    elements = {name: text for name in ELEMENTS if (text := element_of(texts.get(XMP, ""), name))}
    inner = object_of(texts.get("comment", ""))
    if not isinstance(inner.get("Comment"), str):
        inner = {}
    return {**elements, **texts, **{name: text for name, text in inner.items() if isinstance(text, str)}}


# -------------------------------------------------------------------------------------------------------- programs


def _infotext(texts: Mapping[str, str]) -> Foreign | None:
    """A1111's text, or that of its kin, wherever it stands; in `parameters` without its pairs too."""
    named = {name.rpartition(":")[2].lower(): text for name, text in texts.items()}
    named["description"] = UNWANTED.sub("", named.get("description", ""))
    sources = [named[name] for name in INFOTEXTS if named.get(name)]
    if found := next(filter(None, map(read_infotext, sources)), None):
        return found
    text = named.get("parameters") or next((text for text in sources if "\nNegative prompt:" in text), "")
    return Foreign("a1111", text, prompt_of(text)) if text and json_of(text) is None else None


def _of_any(texts: Mapping[str, str]) -> Foreign | None:
    """A program that is not known here, whose JSON or texts have a prompt by that name."""
    for name, text in texts.items():
        values = object_of(text) if name != "atelier" else {}  # a record of ours that is damaged
        for inner in _objects(values, WITHIN):
            if prompt := next((value for name in PROMPTS if isinstance(value := inner.get(name), str)), ""):
                return told("other", values, prompt, inner.get("seed"), inner.get("model"))
    named = {name.rpartition(":")[2].strip().lower(): text for name, text in texts.items()}
    prompt = next((named[name] for name in PROMPTS if named.get(name)), "")
    if not prompt or prompt.lstrip().startswith(("{", "[")):
        return None
    text = "\n".join(f"{name}: {value}" for name, value in named.items())
    return Foreign("other", text, prompt, digits(named.get("seed")), named.get("model", ""))


def _objects(values: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """A JSON object and those in it, their names in small letters."""
    yield small_names(values)
    for value in list(values.values())[:50] if depth > 1 else ():
        if is_dict(value):
            yield from _objects(value, depth - 1)


def _comment(texts: Mapping[str, str]) -> Foreign | None:
    """Plain words about a picture, whoever wrote them."""
    words = [texts[name] for name in COMMENTS if texts.get(name, "").strip()]
    return Foreign("other", "\n".join(words), texts.get("Description", "")) if words else None


def _clean(text: str) -> str:
    """Text that can be shown and stored: no half of a pair, no control characters but line breaks."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    marks = (mark if mark == "\n" or mark.isprintable() else " " if mark.isspace() else "" for mark in text)
    return "".join(marks).strip()


def foreign_of(data: bytes) -> Foreign | None:
    """What another program wrote into the file of a picture, or hid in its opacity; None when there is nothing to read."""
    try:
        return read_foreign(texts_of(data)) or read_foreign(stealth_texts(data)) or made_by_machine(data)
    except BadInput:
        return None


def foreign_of_text(path: str | Path) -> Foreign | None:
    """What another program wrote of one run into a text file, as lines or as JSON of more than a prompt; else None.

    BadInput when the file cannot be read, or is no text.
    """
    text = read_text(home_path(path), MOST_JSON)
    values = json_of(text)
    if is_list(values) or (is_dict(values) and len(values) <= FEW and {"prompt", "prompts"} & set(values)):
        return None
    found = read_foreign({"comment": text, "prompt": text} if is_dict(values) else {"comment": text})
    return None if found is None or (found.tool == "other" and not found.prompt) else found
