"""Studios whose pictures tell their prompt in a form of their own, and those that only say that a machine made them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.library.entry import Foreign
from app.library.foreign_values import MOST_TEXT, digits, lines_of, object_of, plain, small_names, told
from app.library.infotext import STRING, pairs_of
from pipelines.io.values import is_dict, is_list

ALL = ""  # instead of a text's name: the texts themselves are the object


@dataclass(frozen=True)
class Form:
    """How a studio writes a run as one JSON object, with names in small letters.

    `texts` are where it stands, the likelier first. One that others write into, too, is known by its prompt and one at
    least of `marks`. The prompt, the model and the seed stand in the object, or in the one `inside` it.
    """

    tool: str
    texts: tuple[str, ...]
    marks: frozenset[str] = frozenset()
    prompt: str = "prompt"
    models: tuple[str, ...] = ("model",)
    inside: str = ""


FORMS = (
    Form("invokeai", ("invokeai_metadata",), prompt="positive_prompt"),
    Form("invokeai", ("sd-metadata",), inside="image", models=("model_weights",)),
    Form("swarmui", ("parameters", "comment"), inside="sui_image_params"),
    Form("drawthings", ("exif:UserComment", "comment"), frozenset({"uc", "sampler", "v2"}), prompt="c"),
    Form("easydiffusion", ("comment", ALL), frozenset({"use_stable_diffusion_model", "num_inference_steps"}),
         models=("use_stable_diffusion_model",)),
    Form("tensorart", ("generation_data",), models=("basemodel",)),
    Form("fooocus", ("parameters", "comment"), frozenset({"full_prompt", "metadata_scheme", "performance",
         "base_model", "base_model_name"}), models=("base_model", "base_model_name")),
)  # fmt: skip
LINKS = re.compile(r"(?:<?https?://\S+\s+)+")  # pictures before a prompt of Midjourney
FLAG = re.compile(r"\s--(\w+)(?:[ =]+([\w:.]+))?")  # and what stands behind it
JOB = re.compile(r"(?:^|\s)Job ID: [0-9a-f-]{8}")
DREAM = re.compile(rf"\s*({STRING}).*?(?:\s-S\s*(\d+)\b|\Z)", re.DOTALL)
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


def _of_forms(texts: Mapping[str, str]) -> Foreign | None:
    for form in FORMS:
        for name in form.texts:
            values = object_of(texts.get(name, "")) if name != ALL else dict(texts)
            named = small_names(values)
            inner = named.get(form.inside) if form.inside else named
            if not is_dict(inner) or not inner:
                continue
            if form.marks and (form.prompt not in named or not form.marks & set(named)):
                continue
            named |= small_names(inner)
            model = next((named[name] for name in form.models if named.get(name)), None)
            return told(form.tool, values, _joined(named.get(form.prompt)), named.get("seed"), model)
    return None


def _joined(prompt: Any) -> Any:
    """A prompt of several parts, [{"prompt", "weight"}], as one text."""
    if is_list(prompt):
        return " ".join(plain(part.get("prompt") if is_dict(part) else part) for part in prompt)
    return prompt


def _invokeai(texts: Mapping[str, str]) -> Foreign | None:
    """A graph that ran, one that was drawn, or a command line, `"a fox" -S 7`.

    The graph has nodes by their ids, and edges from the field of one to the field of another.
    """
    if values := object_of(texts.get("invokeai_graph", "")):
        nodes, edges = (values.get(name) for name in ("nodes", "edges"))
        nodes = {key: node for key, node in nodes.items() if is_dict(node)} if is_dict(nodes) else {}
        prompt = ""
        for edge in edges if is_list(edges) else []:
            begin, end = (edge.get("source"), edge.get("destination")) if is_dict(edge) else (None, None)
            if is_dict(begin) and is_dict(end) and end.get("field") == "positive_conditioning":
                prompt = prompt or plain(nodes.get(plain(begin.get("node_id")), {}).get("prompt"))
        seed = next((found for node in nodes.values() if (found := digits(node.get("seed")))), "")
        return Foreign("invokeai", lines_of(nodes) or "InvokeAI", prompt, seed)
    if "invokeai_workflow" in texts:
        return Foreign("invokeai", texts["invokeai_workflow"])
    if dream := texts.get("Dream"):
        found = DREAM.match(dream)
        return Foreign("invokeai", dream, found[1][1:-1] if found else "", digits(found[2]) if found else "")
    return None


def _novelai(texts: Mapping[str, str]) -> Foreign | None:
    """`Software: NovelAI`, the prompt in `Description`, and JSON in `Comment`."""
    values = object_of(texts.get("Comment") or texts.get("comment") or "")
    named = "NovelAI" in texts.get("Software", "") + texts.get("Title", "") + texts.get("Source", "")
    if not named and not {"uc", "sampler", "prompt"} <= set(values):  # as WebP has it
        return None
    prompt = texts.get("Description") or plain(values.get("prompt"))
    text = "\n".join(part for part in (prompt, lines_of(values)) if part)
    return Foreign("novelai", text or "NovelAI", prompt, digits(values.get("seed")), texts.get("Source", ""))


def _midjourney(texts: Mapping[str, str]) -> Foreign | None:
    """The prompt with its flags, and `Job ID: ...`, in `Description`."""
    text = texts.get("Description") or texts.get("description") or ""
    words, *job = JOB.split(text[:MOST_TEXT], maxsplit=1)
    prompt, flags = FLAG.split(words, maxsplit=1)[0], dict(FLAG.findall(text[:MOST_TEXT]))
    if not job and not any(flags.get(name, "")[:1].isdecimal() for name in ("v", "niji", "ar")):
        return None
    return Foreign("midjourney", text, LINKS.sub("", prompt.strip(), count=1), digits(flags.get("seed")))


def _mochi(texts: Mapping[str, str]) -> Foreign | None:
    """`Include in Image: ...; Seed: ...; Generator: Mochi Diffusion` in any text."""
    text = next((text for text in texts.values() if "Include in Image:" in text[:MOST_TEXT]), "")
    pairs = pairs_of(text[:MOST_TEXT], ";")
    if "include in image" not in pairs:
        return None
    return Foreign(
        "mochi", text, pairs["include in image"], digits(pairs.get("seed")), pairs.get("model", "")
    )


STUDIOS: tuple[Callable[[Mapping[str, str]], Foreign | None], ...] = (
    _novelai, _of_forms, _invokeai, _midjourney, _mochi,
)  # fmt: skip


def made_by_machine(data: bytes) -> Foreign | None:
    """Which studio made a picture that says no more than that a model drew it: by C2PA, XMP or a label. Else None."""
    mark = next((mark for mark in MACHINES if mark in data), None)
    if mark is None:
        return None
    tool = next((studio for sign, studio in SIGNS.items() if sign in data), "machine")
    return Foreign(tool, mark.decode())
