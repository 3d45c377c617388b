"""Records that other programs left in pictures, read as text: A1111, ComfyUI, InvokeAI, Fooocus, those of `studios`.

They come from untrusted files. Nothing of them is run, followed or believed: they are shown and searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.library.entry import Foreign
from app.library.exif import exif_texts
from app.library.foreign_values import MOST_JSON, MOST_TEXT, json_of, lines_of, plain
from app.library.studios import STUDIOS, made_by_machine
from pipelines.core.record import read_texts
from pipelines.core.several import read_text
from pipelines.errors import BadInput
from pipelines.io.files import home_path
from pipelines.io.images import picture_format
from pipelines.io.values import is_dict, is_list

MOST_NODES = 2000
MOST_PARAMETERS = 100_000  # characters of a prompt and its pairs
FEW = 2  # values of a JSON file that need not be another program's
COMMENTS = ("Description", "Comment", "Title", "description", "comment")
PAIR = re.compile(r"\s*([A-Za-z][\w \-/]{0,40}):\s*(\"(?:\\.|[^\"\\])*\"|[^,]*)(?:,|$)")
WORDS = ("text", "prompt", "positive", "negative", "text_g", "text_l", "string", "value", "clip_l", "t5xxl")
MODELS = ("ckpt_name", "unet_name", "model_name", "base_model", "model")


def texts_of(data: bytes) -> dict[str, str]:
    """The texts that a picture's file holds, by name. BadInput when it is no picture, or a damaged PNG."""
    if picture_format(data) == "PNG":
        return read_texts(data)
    return exif_texts(data)


def read_foreign(texts: Mapping[str, str]) -> Foreign | None:
    """What another program wrote, from the texts of `texts_of`; None when there is nothing."""
    for reader in (_invokeai, *STUDIOS, _comfyui, _fooocus, _a1111, _comment):
        found = reader(texts)
        if found is not None and found.text.strip():
            text, prompt = _clean(found.text[:MOST_TEXT]), _clean(found.prompt[:MOST_TEXT])
            return Foreign(found.tool, text, prompt, found.seed[:20], _clean(found.model[:100]))
    return None


# -------------------------------------------------------------------------------------------------------- programs


def _a1111(texts: Mapping[str, str]) -> Foreign | None:
    """The prompt, `Negative prompt: ...`, and a line of pairs: `Steps: 20, Seed: 7, Model: x`."""
    text = (texts.get("parameters") or texts.get("comment") or "")[:MOST_PARAMETERS]
    lines = text.strip().split("\n")
    for at in range(len(lines) - 1, -1, -1):  # extensions write lines of their own below
        pairs = dict(_pairs(lines[at]))
        if len(pairs) >= 3 and {"steps", "seed", "sampler"} & set(pairs):
            break
    else:
        return Foreign("a1111", text, _prompt_of(text)) if texts.get("parameters") else None
    tool = "fooocus" if pairs.get("version", "").startswith("Fooocus") else "a1111"
    prompt = _prompt_of("\n".join(lines[:at]))
    return Foreign(tool, text, prompt, pairs.get("seed", ""), pairs.get("model", ""))


def _prompt_of(text: str) -> str:
    return text.split("Negative prompt:")[0]


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    for found in PAIR.finditer(line[:MOST_TEXT]):
        yield found[1].strip().lower(), found[2].strip().strip('"')


def _fooocus(texts: Mapping[str, str]) -> Foreign | None:
    """JSON in `parameters` of a PNG or the comment of EXIF; the scheme a1111 is that of A1111."""
    values = json_of(texts.get("parameters") or texts.get("comment") or "")
    if not is_dict(values) or not ("prompt" in values or "Prompt" in values):
        return None
    values = {str(key).lower().replace(" ", "_"): value for key, value in values.items()}
    return Foreign(
        "fooocus", lines_of(values), plain(values.get("prompt")), plain(values.get("seed")),
        plain(values.get("base_model")),
    )  # fmt: skip


def _invokeai(texts: Mapping[str, str]) -> Foreign | None:
    """`invokeai_metadata`, and its forerunners `sd-metadata` and `Dream`."""
    values = json_of(texts.get("invokeai_metadata", ""))
    if is_dict(values):
        model = values.get("model")
        name = next(
            (model[key] for key in ("name", "model_name", "key") if model.get(key)), ""
        ) if is_dict(model) else model  # fmt: skip
        return Foreign(
            "invokeai", lines_of(values), plain(values.get("positive_prompt")), plain(values.get("seed")),
            plain(name),
        )  # fmt: skip
    values = json_of(texts.get("sd-metadata", ""))
    image = values.get("image") if is_dict(values) else None
    if is_dict(values) and is_dict(image):
        prompt = image.get("prompt")
        if is_list(prompt):
            prompt = " ".join(plain(part.get("prompt")) for part in prompt if is_dict(part))
        model = plain(values.get("model_weights"))
        return Foreign("invokeai", lines_of(values), plain(prompt), plain(image.get("seed")), model)
    if dream := texts.get("Dream"):
        words = re.match(r'\s*"((?:\\.|[^"\\])*)"', dream)
        seed = re.search(r"-S\s*(\d{1,20})\b", dream)
        return Foreign("invokeai", dream, words[1] if words else "", seed[1] if seed else "")
    return None


def _comfyui(texts: Mapping[str, str]) -> Foreign | None:
    """`prompt`, the graph that ran: {id: {"class_type", "inputs"}}. In WebP it stands in EXIF behind "prompt:".

    A text input may come from another node; those texts are found there.
    """
    graph = None
    for source in (texts.get("prompt"), *(texts.get(name) for name in ("model", "make"))):
        graph = graph or json_of((source or "").removeprefix("prompt:").removeprefix("Prompt:"))
    if not is_dict(graph):
        return _workflow(texts)
    nodes = [node for node in list(graph.values())[:MOST_NODES] if is_dict(node) and "class_type" in node]
    if not nodes:
        return _workflow(texts)
    words: list[str] = []
    others: dict[str, str] = {}
    for node in nodes:
        inputs = node.get("inputs")
        for key, value in inputs.items() if is_dict(inputs) else ():
            if isinstance(value, str) and key in WORDS and value.strip():
                words.append(value)
            elif key in ("seed", "noise_seed") and isinstance(value, int):
                others.setdefault("seed", str(value))
            elif key in MODELS and isinstance(value, str):
                others.setdefault("model", value)
            elif isinstance(value, (int, float, str)) and not isinstance(value, bool):
                others.setdefault(key, str(value)[:100])
    positive = _followed(graph, "positive") or _followed(graph, "conditioning") or (words[0] if words else "")
    others.setdefault("seed", _linked_seed(graph))
    text = "\n".join(dict.fromkeys([positive, *words]))
    pairs = ", ".join(f"{key}: {value}" for key, value in others.items() if value)
    kinds = ", ".join(dict.fromkeys(plain(node["class_type"])[:60] for node in nodes))
    model = others.get("model", "")
    return Foreign("comfyui", f"{text}\n{pairs}\n{kinds}", positive, others.get("seed", ""), model)


def _linked_seed(graph: dict[str, Any]) -> str:
    """The whole number of the node that a seed comes from."""
    for node in list(graph.values())[:MOST_NODES]:
        inputs = node.get("inputs") if is_dict(node) else None
        links = [inputs.get(name) for name in ("seed", "noise_seed")] if is_dict(inputs) else []
        for link in links:
            source = graph.get(str(link[0])) if is_list(link) and link else None
            inside = source.get("inputs") if is_dict(source) else None
            for value in inside.values() if is_dict(inside) else ():
                if isinstance(value, int) and not isinstance(value, bool):
                    return str(value)
    return ""


def _followed(graph: dict[str, Any], name: str) -> str:
    """The text that comes to an input of this name by links [id, output], at most 20 of them."""
    for node in list(graph.values())[:MOST_NODES]:
        inputs = node.get("inputs") if is_dict(node) else None
        link = inputs.get(name) if is_dict(inputs) else None
        for _ in range(20):
            if not is_list(link) or not link:
                break
            source = graph.get(str(link[0]))
            inside = source.get("inputs") if is_dict(source) else None
            if not is_dict(inside):
                break
            text = next((value for key in WORDS if isinstance(value := inside.get(key), str) and value), "")
            if text:
                return text
            link = next(
                (inside[key] for key in (name, "conditioning", *WORDS) if is_list(inside.get(key))), None
            )
    return ""


def _workflow(texts: Mapping[str, str]) -> Foreign | None:
    """`workflow`, the graph as it was drawn: {"nodes": [{"type", "widgets_values"}]}; its texts without their places."""
    drawn = next((text for text in texts.values() if '"nodes"' in text[:MOST_JSON]), "")
    values = json_of(drawn.removeprefix("workflow:").removeprefix("Workflow:"))
    nodes = values.get("nodes") if is_dict(values) else None
    if not is_list(nodes):
        return None
    words: list[str] = []
    for node in nodes[:MOST_NODES]:
        widgets = node.get("widgets_values") if is_dict(node) else None
        if is_list(widgets):
            words += [value for value in widgets if isinstance(value, str) and len(value) > 2]
    prompt = max(words, key=len, default="")
    return Foreign("comfyui", "\n".join(words), prompt) if words else None


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
    """What another program wrote into the file of a picture; None when there is nothing to read."""
    try:
        return read_foreign(texts_of(data)) or made_by_machine(data)
    except BadInput:
        return None


def foreign_of_text(path: str | Path) -> Foreign | None:
    """What another program wrote into a text file, as lines or as JSON of more than a prompt. None for other texts.

    BadInput when the file cannot be read, or is no text.
    """
    text = read_text(home_path(path), MOST_JSON)
    values = json_of(text)
    if is_list(values) or (is_dict(values) and len(values) <= FEW):
        return None
    found = read_foreign({"comment": text, "prompt": text})
    return None if found is None or found.tool == "other" else found
