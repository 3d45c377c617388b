"""Studios whose pictures tell their prompt in a form of their own, and those that only say that a machine made them."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from typing import Any

from app.library.entry import Foreign
from app.library.exif import XMP
from app.library.foreign_values import MOST_TEXT, digits, json_of, lines_of, plain
from pipelines.io.values import is_dict

COMMENT, COMMENT_END = "<exif:UserComment>", "</exif:UserComment>"
MOST_COMMENT = 200_000  # characters
FLAGS = re.compile(r"\s(?:--\w|Job ID:)")  # where a prompt of Midjourney ends
SEED = re.compile(r"--seed[ =]+(\d{1,20})\b")
LINKS = re.compile(r"(?:<?https?://\S+>?\s+)+")  # pictures before a prompt
MOCHI = re.compile(r"(?:^|;)\s*(Include in Image|Exclude from Image|Model|Seed|Generator):\s*([^;]*)")
MACHINES = (  # marks of pictures that a model drew: IPTC's digital source type, and the label of GB 45438-2025
    b"trainedAlgorithmicMedia", b"tc260.org.cn/ns/AIGC", b'"AIGC"',
)  # fmt: skip
SIGNS = {  # what such pictures hold of who made them -> the studio
    b"OpenAI": "openai",
    b"Firefly": "firefly",
    b"Microsoft": "microsoft",
    b"Midjourney": "midjourney",
    b"Stability": "stability",
    b"Google": "google",
}


def _novelai(texts: Mapping[str, str]) -> Foreign | None:
    """`Software: NovelAI`, the prompt in `Description`, and JSON in `Comment`."""
    values = json_of(texts.get("Comment") or texts.get("comment") or "")
    values = values if is_dict(values) else {}
    named = "NovelAI" in texts.get("Software", "") + texts.get("Title", "") + texts.get("Source", "")
    if not named and not {"uc", "sampler", "prompt"} <= set(values):  # as WebP has it
        return None
    prompt = texts.get("Description") or plain(values.get("prompt"))
    text = "\n".join(part for part in (prompt, lines_of(values)) if part)
    return Foreign("novelai", text or "NovelAI", prompt, digits(values.get("seed")), texts.get("Source", ""))


def _swarmui(texts: Mapping[str, str]) -> Foreign | None:
    """JSON with "sui_image_params" in `parameters`, or in the comment of EXIF."""
    values = json_of(texts.get("parameters") or texts.get("comment") or "")
    told = values.get("sui_image_params") if is_dict(values) else None
    if not is_dict(told):
        return None
    return _of_values("swarmui", told, told.get("prompt"), told.get("model"))


def _drawthings(texts: Mapping[str, str]) -> Foreign | None:
    """JSON in the comment of EXIF, which a PNG holds in its XMP: "c" is the prompt, "uc" what is not wanted."""
    _, _, rest = texts.get(XMP, "").partition(COMMENT)
    packet, end, _ = rest[:MOST_COMMENT].partition(COMMENT_END)
    told = re.sub("<[^<>]*>", "", packet) if end else texts.get("comment") or ""
    values = json_of(html.unescape(told))
    if not is_dict(values) or "c" not in values or not {"uc", "sampler", "v2"} & set(values):
        return None
    return _of_values("drawthings", values, values.get("c"), values.get("model"))


def _easydiffusion(texts: Mapping[str, str]) -> Foreign | None:
    """One text a setting, or JSON of them in the comment of EXIF."""
    values: Any = json_of(texts.get("comment") or "")
    values = values if is_dict(values) else dict(texts)
    if not {"use_stable_diffusion_model", "num_inference_steps"} & set(values) or "prompt" not in values:
        return None
    return _of_values("easydiffusion", values, values.get("prompt"), values.get("use_stable_diffusion_model"))


def _tensorart(texts: Mapping[str, str]) -> Foreign | None:
    """JSON in `generation_data`, which ends in a zero byte."""
    values = json_of(texts.get("generation_data", "").rstrip("\0"))
    if not is_dict(values):
        return None
    model = values.get("baseModel")
    name = model.get("modelFileName") if is_dict(model) else model
    return _of_values("tensorart", values, values.get("prompt"), name)


def _midjourney(texts: Mapping[str, str]) -> Foreign | None:
    """The prompt with its flags, and `Job ID: ...`, in `Description`."""
    told = texts.get("Description") or texts.get("description") or ""
    if not re.search(r"Job ID: [0-9a-f-]{8}|\s--(?:v|niji) \d|\s--ar \d", told[:MOST_TEXT]):
        return None
    seed = SEED.search(told)
    prompt = LINKS.sub("", FLAGS.split(told[:MOST_TEXT], maxsplit=1)[0].strip(), count=1)
    return Foreign("midjourney", told, prompt, seed[1] if seed else "")


def _mochi(texts: Mapping[str, str]) -> Foreign | None:
    """`Include in Image: ...; Seed: ...; Generator: Mochi Diffusion` in any text."""
    told = next((text for text in texts.values() if "Include in Image:" in text[:MOST_TEXT]), "")
    pairs = {found[1]: found[2].strip() for found in MOCHI.finditer(told[:MOST_TEXT])}
    if "Include in Image" not in pairs:
        return None
    return Foreign(
        "mochi", told, pairs["Include in Image"], digits(pairs.get("Seed")), pairs.get("Model", "")
    )


STUDIOS: tuple[Callable[[Mapping[str, str]], Foreign | None], ...] = (
    _novelai, _swarmui, _drawthings, _easydiffusion, _tensorart, _midjourney, _mochi,
)  # fmt: skip


def made_by_machine(data: bytes) -> Foreign | None:
    """Which studio made a picture that says no more than that a model drew it: by C2PA, XMP or a label. Else None."""
    mark = next((mark for mark in MACHINES if mark in data), None)
    if mark is None:
        return None
    tool = next((studio for sign, studio in SIGNS.items() if sign in data), "machine")
    return Foreign(tool, mark.decode())


def _of_values(tool: str, values: dict[str, Any], prompt: Any, model: Any) -> Foreign:
    return Foreign(tool, lines_of(values), plain(prompt), digits(values.get("seed")), plain(model))
