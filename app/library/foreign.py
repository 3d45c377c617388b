"""Records that other programs left in pictures, read as text: InvokeAI, Fooocus, and by modules of their own A1111 and its
kin (`infotext`), ComfyUI and `studios`; any other whose JSON or texts have a prompt by that name.

They come from untrusted files. Nothing of them is run, followed or believed: they are shown and searched.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.library.comfyui import read_comfyui
from app.library.entry import Foreign
from app.library.exif import XMP, exif_texts
from app.library.foreign_values import MOST_JSON, MOST_TEXT, digits, json_of, lines_of, plain
from app.library.infotext import MOST_PARAMETERS, prompt_of, read_infotext
from app.library.stealth import stealth_texts
from app.library.studios import STUDIOS, made_by_machine
from pipelines.core.record import read_texts
from pipelines.core.several import read_text
from pipelines.errors import BadInput
from pipelines.io.files import home_path
from pipelines.io.images import picture_format
from pipelines.io.values import is_dict, is_list

FEW = 2  # values of a JSON file that need not be another program's
COMMENTS = ("Description", "Comment", "Title", "description", "comment")
INFOTEXTS = ("parameters", "usercomment", "comment", "description")  # of any case, where A1111's kin write
DESCRIPTION, DESCRIPTION_END = "<dc:description>", "</dc:description>"  # in XMP
UNWANTED = re.compile(r"\n-[^\n]*(?=\nSteps: )")  # as Draw Things writes it there
PROMPTS = ("prompt", "positive_prompt", "positiveprompt", "positive")  # names of prompts in small letters
WITHIN = 2  # how deep a prompt may lie in JSON
OF_FOOOCUS = ("base_model", "base_model_name", "full_prompt", "metadata_scheme", "performance")


def texts_of(data: bytes) -> dict[str, str]:
    """The texts that a picture's file holds, by name. BadInput when it is no picture, or a damaged PNG."""
    if picture_format(data) == "PNG":
        return {**exif_texts(data), **read_texts(data)}
    return exif_texts(data)


def read_foreign(texts: Mapping[str, str]) -> Foreign | None:
    """What another program wrote, from the texts of `texts_of`; None when there is nothing."""
    texts = _unwrapped(texts)
    for reader in (_invokeai, *STUDIOS, read_comfyui, _fooocus, _infotext, _of_any, _comment):
        found = reader(texts)
        if found is not None and found.text.strip():
            text, prompt = _clean(found.text[:MOST_TEXT]), _clean(found.prompt[:MOST_TEXT])
            return Foreign(found.tool, text, prompt, digits(found.seed), _clean(found.model[:100]))
    return None


def _unwrapped(texts: Mapping[str, str]) -> Mapping[str, str]:
    """The texts with those that a comment holds as JSON of texts, as NovelAI writes them into WebP."""
    values = json_of(texts.get("comment", ""))
    if not is_dict(values) or not isinstance(values.get("Comment"), str):
        return texts
    return {**texts, **{name: value for name, value in values.items() if isinstance(value, str)}}


# -------------------------------------------------------------------------------------------------------- programs


def _infotext(texts: Mapping[str, str]) -> Foreign | None:
    """A1111's text, or that of its kin, wherever it stands; in `parameters` without its pairs too."""
    named = {name.rpartition(":")[2].lower(): text for name, text in texts.items()}
    _, _, rest = texts.get(XMP, "").partition(DESCRIPTION)
    described, end, _ = rest[:MOST_PARAMETERS].partition(DESCRIPTION_END)
    in_xmp = html.unescape(re.sub("<[^<>]*>", "", described)).strip() if end else ""
    sources = [text for name in INFOTEXTS if (text := named.get(name, ""))] + [UNWANTED.sub("", in_xmp)]
    for text in sources:
        if found := read_infotext(text):
            return found
    text = named.get("parameters") or next((text for text in sources if "\nNegative prompt:" in text), "")
    return Foreign("a1111", text, prompt_of(text)) if text and json_of(text) is None else None


def _fooocus(texts: Mapping[str, str]) -> Foreign | None:
    """JSON in `parameters` of a PNG or the comment of EXIF; the scheme a1111 is that of A1111."""
    values = json_of(texts.get("parameters") or texts.get("comment") or "")
    values = (
        {str(key).lower().replace(" ", "_"): value for key, value in values.items()}
        if is_dict(values)
        else {}
    )
    if "prompt" not in values or not set(OF_FOOOCUS) & set(values):
        return None
    return Foreign(
        "fooocus", lines_of(values), plain(values.get("prompt")), digits(values.get("seed")),
        plain(values.get("base_model") or values.get("base_model_name")),
    )  # fmt: skip


def _invokeai(texts: Mapping[str, str]) -> Foreign | None:
    """`invokeai_metadata`, or the graph that ran, and its forerunners `sd-metadata` and `Dream`."""
    values = json_of(texts.get("invokeai_metadata", ""))
    if is_dict(values):
        return _of_invokeai(values)
    values = json_of(texts.get("invokeai_graph", ""))
    if is_dict(values):
        return _graph_of_invokeai(values)
    if "invokeai_workflow" in texts:
        return Foreign("invokeai", texts["invokeai_workflow"])
    values = json_of(texts.get("sd-metadata", ""))
    image = values.get("image") if is_dict(values) else None
    if is_dict(values) and is_dict(image):
        prompt = image.get("prompt")
        if is_list(prompt):
            prompt = " ".join(plain(part.get("prompt")) for part in prompt if is_dict(part))
        model = plain(values.get("model_weights"))
        return Foreign("invokeai", lines_of(values), plain(prompt), digits(image.get("seed")), model)
    if dream := texts.get("Dream"):
        words = re.match(r'\s*"((?:\\.|[^"\\])*)"', dream)
        seed = re.search(r"-S\s*(\d{1,20})\b", dream)
        return Foreign("invokeai", dream, words[1] if words else "", seed[1] if seed else "")
    return None


def _of_invokeai(values: dict[str, Any]) -> Foreign:
    model = values.get("model")
    name = (
        next((model[key] for key in ("name", "model_name", "key") if model.get(key)), "")
        if is_dict(model)
        else model
    )
    prompt, seed = plain(values.get("positive_prompt")), digits(values.get("seed"))
    return Foreign("invokeai", lines_of(values), prompt, seed, plain(name))


def _graph_of_invokeai(values: dict[str, Any]) -> Foreign:
    """A graph of nodes by their ids, and edges from the field of one to the field of another."""
    listed, edges = values.get("nodes"), values.get("edges")
    nodes = {key: node for key, node in listed.items() if is_dict(node)} if is_dict(listed) else {}
    prompt = ""
    for edge in edges if is_list(edges) else []:
        begin, end = (edge.get("source"), edge.get("destination")) if is_dict(edge) else (None, None)
        if is_dict(begin) and is_dict(end) and end.get("field") == "positive_conditioning":
            prompt = prompt or plain(nodes.get(plain(begin.get("node_id")), {}).get("prompt"))
    seed = next((found for node in nodes.values() if (found := digits(node.get("seed")))), "")
    return Foreign("invokeai", lines_of(nodes) or "InvokeAI", prompt, seed)


def _of_any(texts: Mapping[str, str]) -> Foreign | None:
    """A program that is not known here, whose JSON or texts have a prompt by that name."""
    for name, text in texts.items():
        values = None if name == "atelier" else json_of(text)  # a record of ours that is damaged
        if not is_dict(values):
            continue
        for inner in _objects(values, WITHIN):
            if prompt := next((value for name in PROMPTS if isinstance(value := inner.get(name), str)), ""):
                seed = digits(inner.get("seed"))
                return Foreign("other", lines_of(values), prompt, seed, plain(inner.get("model")))
    named = {name.rpartition(":")[2].strip().lower(): text for name, text in texts.items()}
    prompt = next((named[name] for name in PROMPTS if named.get(name)), "")
    if not prompt or prompt.lstrip().startswith(("{", "[")):
        return None
    text = "\n".join(f"{name}: {value}" for name, value in named.items())
    return Foreign("other", text, prompt, digits(named.get("seed")), named.get("model", ""))


def _objects(values: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """A JSON object and those in it, their names in small letters."""
    yield {str(name).lower(): value for name, value in list(values.items())[:200]}
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
