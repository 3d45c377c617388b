"""ComfyUI's graphs: the one that ran, {id: {"class_type", "inputs"}}, and the one that was drawn, {"nodes", "links"}.

An input is a value or a link [id, output]. A text may come through many nodes; it is followed back from the sampler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.library.entry import Foreign
from app.library.foreign_values import MOST_JSON, digits, object_of, plain
from pipelines.io.values import is_dict, is_list

Graph = dict[str, dict[str, Any]]  # the inputs of each node by its id, with its class as CLASS

CLASS = "class_type"
MOST_NODES = 2000
DEEPEST = 40  # links that are followed to a text
WORDS = (  # inputs that hold texts, the likelier first
    "text", "prompt", "positive", "populated_text", "text_positive", "positive_prompt", "text_g", "text_l", "string",
    "value", "clip_l", "t5xxl", "wildcard_text",
)  # fmt: skip
PART = re.compile(r"(?:text|string|prompt)_?(?:[a-z]|\d{1,2})")  # inputs of nodes that join texts
NO_TEXT = ("clip", "model", "vae", "image", "mask", "latent_image", "samples", "control_net", "negative")
MODELS = ("ckpt_name", "unet_name", "model_name", "base_model", "model")
SEEDS = ("seed", "noise_seed")
AFTER = ("fixed", "randomize", "increment", "decrement")  # the widget behind a seed's says one of these
TEXT_CLASS = re.compile("text|prompt|string|encode|primitive|wildcard", re.IGNORECASE)
NOTES = re.compile("note|label", re.IGNORECASE)
MUTED, BYPASSED = "2", "4"  # the mode of a node that does not run, and of one that passes on what comes


def read_comfyui(texts: Mapping[str, str]) -> Foreign | None:
    """What the graphs in a picture's texts say; None where there is none.

    They stand in `prompt` and `workflow`, in WebP and JPEG in texts of EXIF behind "prompt:" and "workflow:". One that is
    damaged is told as text.
    """
    sources = [texts[name] for name in ("prompt", "model", "make", "comment") if texts.get(name)]
    for source in sources:
        values = _values_in(source)
        if graph := _ran(values):
            beside = values.get("extraMetadata")
            return _told(graph, object_of(beside) if isinstance(beside, str) else {})
    drawn = next((text for text in texts.values() if '"nodes"' in text[:MOST_JSON]), "")
    if graph := _drawn(_values_in(drawn)):
        return _told(graph, {})
    return next((Foreign("comfyui", text) for text in sources if '"class_type"' in text), None)


def _values_in(text: str) -> dict[str, Any]:
    """The JSON object that a text ends in, behind what EXIF needs before it; {} for none."""
    return object_of(text[text.find("{") :])


def _ran(values: dict[str, Any]) -> Graph:
    nodes = [
        (key, node) for key, node in list(values.items())[:MOST_NODES] if is_dict(node) and CLASS in node
    ]
    return {
        key: {**(inputs if is_dict(inputs := node.get("inputs")) else {}), CLASS: plain(node[CLASS])[:60]}
        for key, node in nodes
    }


def _drawn(values: dict[str, Any]) -> Graph:
    """A drawn graph, with those inside its nodes, as one that ran. Notes and muted nodes are left out."""
    inner = values.get("definitions")
    parts = inner.get("subgraphs") if is_dict(inner) else None
    graph: Graph = {}
    for part in [values, *(parts[:50] if is_list(parts) else [])]:
        if is_dict(part):
            _draw(part, graph)
    return graph


def _draw(part: dict[str, Any], graph: Graph) -> None:
    """Add the nodes of one drawn graph."""
    nodes, links = (part.get(name) for name in ("nodes", "links"))
    begins: dict[Any, list[Any]] = {}  # the number of a link -> the node and the output that it comes from
    for link in links[: 4 * MOST_NODES] if is_list(links) else []:
        if is_list(link) and len(link) > 2:
            begins[plain(link[0])] = [plain(link[1]), link[2]]
        elif is_dict(link):
            begins[plain(link.get("id"))] = [plain(link.get("origin_id")), link.get("origin_slot")]
    for node in nodes[:MOST_NODES] if is_list(nodes) else []:
        kind, mode = (plain(node.get(name)) for name in ("type", "mode")) if is_dict(node) else ("", "")
        if not kind or NOTES.search(kind) or mode == MUTED:
            continue
        inputs: dict[str, Any] = {CLASS: kind[:60]}
        if mode != BYPASSED:
            inputs |= _widgets(kind, node.get("widgets_values"))
        listed = node.get("inputs")
        for entry in listed[:200] if is_list(listed) else []:
            if is_dict(entry) and (begin := begins.get(plain(entry.get("link")))):
                inputs[plain(entry.get("name"))] = begin
        graph.setdefault(plain(node.get("id")), inputs)


def _widgets(kind: str, values: Any) -> dict[str, Any]:
    """The text and the seed among the values of a node's widgets, which have no names."""
    if is_dict(values):
        return dict(values)
    found: dict[str, Any] = {}
    listed: list[Any] = values[:200] if is_list(values) else []
    for value, after in zip(listed, [*listed[1:], None], strict=False):
        if isinstance(value, str) and TEXT_CLASS.search(kind) and value.strip() and value not in AFTER:
            found.setdefault("text", value)
        elif isinstance(value, int) and after in AFTER:
            found.setdefault("seed", value)
    return found


def _told(graph: Graph, beside: dict[str, Any]) -> Foreign | None:
    """What a graph says; `beside` is what Civitai writes beside it of the same run."""
    words: list[str] = []
    others: dict[str, str] = {}
    for key, value in ((key, value) for node in graph.values() for key, value in node.items()):
        if key in (CLASS, *SEEDS):
            continue
        if isinstance(value, str) and (key in WORDS or key == "negative" or PART.fullmatch(key)):
            words += [value] if value.strip() else []
        elif key in MODELS and isinstance(value, str):
            others.setdefault("model", value)
        elif isinstance(value, (int, float, str)) and not isinstance(value, bool):
            others.setdefault(key, str(value)[:100])
    unwanted = _text_at(graph, "negative")
    rest = (word for word in words if word != unwanted)
    positive = _text_at(graph, "positive") or _text_at(graph, "conditioning")
    positive = positive or plain(beside.get("prompt")) or next(rest, "")
    seed = _seed_of(graph) or digits(beside.get("seed"))
    text = "\n".join(dict.fromkeys([positive, *words]))
    pairs = ", ".join(f"{key}: {value}" for key, value in {**others, "seed": seed}.items() if value)
    kinds = ", ".join(dict.fromkeys(node[CLASS] for node in graph.values()))
    if not (text or seed):
        return None
    return Foreign("comfyui", f"{text}\n{pairs}\n{kinds}", positive, seed, others.get("model", ""))


def _text_at(graph: Graph, name: str) -> str:
    """The text that comes to an input of this name, of a node with a seed if there is one."""
    nodes = sorted(graph.values(), key=lambda node: not set(SEEDS) & set(node))
    seen: set[str] = set()
    return next((text for node in nodes if (text := _followed(graph, node.get(name), name, seen))), "")


def _followed(graph: Graph, link: Any, name: str, seen: set[str], left: int = DEEPEST) -> str:
    """The text that comes by a link; `name` is the input that it may come to on its way."""
    key = plain(link[0]) if is_list(link) and link else ""
    node = graph.get(key)
    if node is None or key in seen or not left:
        return ""
    seen.add(key)
    own = next((value for key in WORDS if isinstance(value := node.get(key), str) and value.strip()), "")
    if own:
        return own
    parts = [
        value if isinstance(value, str) else _followed(graph, value, name, seen, left - 1)
        for key, value in node.items()
        if PART.fullmatch(key)
    ]
    if joined := plain(node.get("delimiter", " ")).join(part for part in parts if part.strip()):
        return joined
    inputs = [value for first in (name, "conditioning", *WORDS) if (value := node.get(first))]
    inputs += [value for key, value in node.items() if key not in NO_TEXT]
    return next((text for value in inputs if (text := _followed(graph, value, name, seen, left - 1))), "")


def _seed_of(graph: Graph) -> str:
    """The seed of what samples, else of what makes noise, else the first."""

    def rank(node: dict[str, Any]) -> int:
        return 0 if "positive" in node else 1 if "Sampler" in node[CLASS] or "Noise" in node[CLASS] else 2

    return next((seed for node in sorted(graph.values(), key=rank) for seed in _seeds(graph, node)), "")


def _seeds(graph: Graph, node: dict[str, Any]) -> Iterator[str]:
    """The seeds of a node, those that come by a link too."""
    for value in (node.get(name) for name in SEEDS):
        source = graph.get(plain(value[0]), {}) if is_list(value) and value else {}
        numbers = [source.get(name) for name in SEEDS] + list(source.values()) if source else [value]
        for number in numbers:
            if isinstance(number, int) and (seed := digits(number)):
                yield seed
