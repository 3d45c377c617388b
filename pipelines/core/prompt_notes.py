"""What is told about a prompt before a run: grammar of other programs, which is read as words, and marks without effect.

Other programs are the web UIs of Stable Diffusion, Midjourney, InvokeAI (Compel), NovelAI and Dynamic Prompts. Nothing
here changes how a prompt is read; `prompts` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal

from pipelines.core.prompts import MAX_WEIGHT, NUMBER, SIGNS, Target, parse_scenes
from pipelines.errors import Message
from pipelines.io.visible import has_unseen, visible

Grammar = Literal["words", "terms", "scenes"]  # none; several weighted texts; these over time

TOLD: dict[str, Callable[[str], Message]] = {  # another program's grammar -> what is told of a text in it
    "network": lambda text: Message("core.foreign_network", {"text": text}),
    "schedule": lambda text: Message("core.foreign_schedule", {"text": text}),
    "alternation": lambda text: Message("core.foreign_alternation", {"text": text}),
    "emphasis": lambda text: Message("core.foreign_emphasis", {"text": text}),
    "parts": lambda text: Message("core.foreign_parts", {"text": text}),
    "flags": lambda text: Message("core.foreign_flags", {"text": text}),
    "negative": lambda text: Message("core.foreign_negative", {"text": text}),
    "wildcard": lambda text: Message("core.foreign_wildcard", {"text": text}),
    "percent": lambda text: Message("core.foreign_percent", {"text": text}),
    "inside": lambda text: Message("core.weight_inside", {"text": text}),
    "alike": lambda text: Message("core.mark_alike", {"text": text}),
    "quote": lambda text: Message("core.quote_open", {"text": text}),
    "code": lambda text: Message("core.foreign_code", {"text": text}),
}
NO_WEIGHT = (
    r"\d+(?:\.\d+)?\s*[%‰]|\d*[½⅓⅔¼¾⅕⅖⅗⅘⅙⅛⅜⅝⅞¹²³]|[٠-٩۰-۹०-९]+(?:[.٫][٠-٩۰-۹०-९]+)?|\d+/\d+"
    r"|\d+(?:\.\d+)?(?:e[-+]?\d+|x)|0x[0-9a-f]+|(?<=[-+−])\s+\d*\.?\d+|\d*\.\s+\d+"
    r"|[(=]\s*-?\d*\.?\d+\s*\)?|\d*\.\d+(?:[a-z)]|\s*:)"
)
WIDE = {0xFF01 + k: chr(0x21 + k) for k in range(94)} | {0x3000: " "}  # full-width forms -> the plain ones
NETWORKS = "lora|lyco|loha|hypernet|embed|embedding|ti|model|base"
PROMPTS = "(?:positive )?prompt|(?:正向|正面)?提示词"
TAGS = "b|i|p|br|div|span|strong|em|a"
CHANCES = "random|wildcard|alternate|alt"
JOINS = "AND(?:_PERP|_SALT|_TOPK)?|BREAK|ADDBASE|ADDCOMM|ADDCOL|ADDROW"
FLAGS = "ar|no|v|s|q|c|iw|chaos|seed|stylize|style|niji|tile|stop"
FOREIGN = (  # the first that fits of each grammar is told
    ("network", re.compile(rf"<\s*(?:{NETWORKS})\s*:[^<>]*>|\bembedding:\w+")),
    ("wildcard", re.compile(rf"<\s*(?:{CHANCES})(?:\[[^\[\]]*\])?:[^<>]*>")),
    ("flags", re.compile(rf"<\s*(?!(?:{NETWORKS}|{CHANCES})\b)\w+(?:\[[^\[\]]*\])?\s*:[^<>]*>")),
    ("schedule", re.compile(r"\[[^\[\]|]*[:：][^\[\]|]*\]")),
    ("alternation", re.compile(r"\[[^\[\]]*[|｜][^\[\]]*\]")),
    ("emphasis", re.compile(r"\([^()]*[:：]\s*[-+−]?\d*\.?\d+\s*\)")),
    ("emphasis", re.compile(r"\({2,}[^()]+\){2,}|\[{2,}[^\[\]]+\]{2,}|\{{2,}[^{}]+\}{2,}")),
    ("emphasis", re.compile(r"\([^()]+\)(?:[-+]{1,}|\d+\.\d+)(?=[\s,]|$)")),
    (
        "emphasis",
        re.compile(r"\b(?!C\+\+)\w{2,}(?:\+{2,}|-{2,})(?=[\s,]|$)|\b\w+\^\d+(?:\.\d+)?\b"),
    ),
    ("emphasis", re.compile(r"(?<=[^\W\d])\*\d*\.?\d+\b|\[[^\[\]|:：]+\](?:\d*\.?\d+)?|\{[^{}|｜$]+\}")),
    ("emphasis", re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?::[^:]+::")),
    ("parts", re.compile(r"\S[^|:]{0,30}::\s*-?\d*\.?\d*")),
    (  # not between other words in capitals
        "parts",
        re.compile(rf"(?<![A-Z] )(?<!\w)(?:{JOINS})(?!\w)|(?<!\w)(?:{JOINS})(?!\w)(?! [A-Z]{{2}})"),
    ),
    ("parts", re.compile(r"\)\s*\.(?:and|blend|swap)\([^()]*\)|\w+\.swap\([^()]*\)")),
    ("flags", re.compile(rf"(?:^|\s)(?:--[A-Za-z][\w-]*|[-—–]{{1,2}}(?:{FLAGS})\s)(?:\s*[\w.:/-]+)?")),
    ("flags", re.compile(r"(?:^|\s)-[sSCWHn]\s?\d[\d.]*(?=\s|$)")),
    ("flags", re.compile(r"^\s*/(?:imagine|draw|dream|create|paint)\b(?:\s*prompt\s*:)?")),
    ("flags", re.compile(rf"^\s*(?:{PROMPTS})\s*[:：]", re.IGNORECASE)),
    ("flags", re.compile(r"\b(?:STYLE|I?MASK|AREA|FEATHER|COUPLE|SHIFT)\(")),
    ("negative", re.compile(r"(?:\bnegative prompt|(?:反向|负面|负向)提示词)\s*[:：]", re.IGNORECASE)),
    ("negative", re.compile(r"\bSteps: \d+, Sampler: ")),
    ("wildcard", re.compile(r"__[\w/*-]+__|\{\s*[\d-]*\s*\$\$[^{}]*\}|\$\{\w+[^{}]*\}")),
    ("percent", re.compile(r"[:：]\s*`[^`]*`")),
    ("percent", re.compile(rf"[:：]\s*[-+−]?(?:{NO_WEIGHT})(?=\s*(?:[|｜]|$))")),
    ("inside", re.compile(r"[^\W\d]\w*[:：]\s*-?\d*\.\d+(?=\s*[,，;；、](?!\d)|\s+[^\W\d])")),
    ("inside", re.compile(r"[^\W\d]\w*[:：]-?\d{1,3}(?=\s+[^\W\d])")),
    ("inside", re.compile(r"[^\W\d]\w*[:：]\d(?=\s*[,，;；、](?!\d))")),
    ("alike", re.compile(r"\S*\s*[∣│┃❘¦ǀ丨‖⏐︱∥]\s*\S*|\S*\s*[∶꞉︰﹕˸]\s*-?\d*\.?\d+\s*(?=$|[|｜])")),
    ("code", re.compile(r"^\s*[\[{]\s*\"[^\"]*\"\s*[:,\]]|<\|\w+\|>")),
    ("code", re.compile(rf"(?:^|\s)//\s.*|/\*.*?\*/|<!--.*?-->|</?(?:{TAGS})(?:\s[^<>]*)?/?>")),
    ("code", re.compile(r"&(?:amp|lt|gt|quot|nbsp|apos|#\d{2,6});")),
    ("quote", re.compile(r"(?:^|(?<=[\s|｜]))[\"“「『«‘][^\"”」』»’]*[|｜:：^＾][^\"”」』»’]*$")),
)
LARGE = re.compile(r"(?:[^\d\s]|[^\W\d]\s*[:：]\s*-?\d+(?:\.\d+)?)\s*[:：]\s*(-?\d+(?:\.\d+)?)\s*$")
LAST = re.compile(  # what is like a weight at the end of a part, and the character before its colon
    r"(?P<before>[^\s:]?)\s*(?<!:):\s*(?P<number>[-+−–]*\.?\d[\d.,。]*[^\w\s|:^()\[\]{}<>\"'»」』%‰]*)(?=\s*(?:[|^]|$))"
)
PAIRED = ("()", "[]", "{}", "【】", "〔〕", "《》", "〈〉")
UNREAD = re.compile(r"[@＠]\s*[-+]?\d[\d.,e]*\s*(?:%|frames?|steps?|s|帧|步)?$")  # like a scene's first step
SMILEYS = re.compile(r"[:;=8xX][-o^']?[()\[\]{}]|[()][-o^']?[:;=8]")


def prompt_notes(text: str, grammar: Grammar, steps: int | None = None) -> list[Message]:
    """What to tell about a prompt as it was typed.

    Args:
        text: The prompt.
        grammar: What the tool reads: words alone, terms, or scenes of them.
        steps: The length of a run with scenes, to tell those that begin after its end.

    Returns:
        Each note once.
    """
    notes = _foreign(text)
    scenes = parse_scenes(text)
    marked = len(scenes) > 1 or any(scene.step for scene in scenes)
    if grammar != "scenes" and marked:
        notes.append(Message("core.no_scenes_here"))
    if grammar == "words" and any(_weighs(scene.targets) for scene in scenes):
        notes.append(Message("core.no_terms_here"))
    if grammar == "terms" and any(target.stop is not None for scene in scenes for target in scene.targets):
        notes.append(Message("core.no_stops_here"))
    if grammar == "scenes" and steps is not None:
        late = [
            (k, scene.step)
            for k, scene in enumerate(scenes, start=1)
            if scene.step and int(scene.step) >= steps
        ]
        notes += [
            Message("core.scene_beyond", {"scene": k, "step": int(step), "steps": steps})
            for k, step in late[:1]
        ]
    if grammar == "scenes" and len(scenes) > 1:
        notes += [
            Message("core.step_unread", {"text": match[0][:40]})
            for scene in scenes
            if not scene.step and (match := UNREAD.search(scene.words))
        ]
    if grammar != "terms" and (braces := re.search(r"(?<!\\)\{[^{}]*\|[^{}]*\}", text.translate(WIDE))):
        notes.append(Message("core.no_braces_here", {"text": braces[0][:40]}))
    if grammar != "words":
        targets = [target for scene in scenes for target in scene.targets]
        notes += _too_large([target.text for target in targets])
        if not any(note.code == "core.weight_inside" for note in notes):
            notes += _no_weight(text)
        notes += _open_bracket(text, targets)
    if has_unseen(text):
        notes.append(Message("core.unseen_characters"))
    return [note for k, note in enumerate(notes) if note.code not in [other.code for other in notes[:k]]]


def notes_on_several(prompts: Iterable[str], grammar: Grammar) -> list[Message]:
    """What to tell about several prompts: the first note of each kind."""
    notes: dict[str, Message] = {}
    for prompt in prompts:
        for note in prompt_notes(prompt, grammar):
            notes.setdefault(note.code, note)
    return list(notes.values())


def _foreign(text: str) -> list[Message]:
    found: dict[str, Message] = {}
    text = visible(text).translate(WIDE)
    for grammar, pattern in FOREIGN:
        match = pattern.search(text)
        if match and grammar not in found and not _is_shouted(match[0], text):
            found[grammar] = TOLD[grammar](match[0].strip()[:40])
    if "emphasis" in found and "percent" in found and str(found["percent"].facts["text"]).endswith(")"):
        del found["percent"]  # it is that of "(cat:1.2)"
    for whole, parts in (
        ("schedule", ("parts", "inside")),
        ("emphasis", ("inside",)),
        ("code", ("emphasis", "inside", "percent", "alternation", "schedule")),
        ("parts", ("inside",)),
        ("wildcard", ("emphasis",)),
    ):
        for part in parts if whole in found else ():  # "[a::0.5]" is one thing
            found.pop(part, None)
    return list(found.values())


def _is_shouted(words: str, text: str) -> bool:
    """Whether words in capitals stand among others in capitals alone, where AND is a word."""
    return words.isupper() and text.isupper() and any(map(str.isupper, text.replace(words, "")))


def _weighs(targets: list[Target]) -> bool:
    return len(targets) > 1 or any(target.weight != 1 for target in targets)


def _too_large(texts: list[str]) -> list[Message]:
    """Numbers after the colon at a text's end that are no weights, because they are too large."""
    for text in texts:
        match = LARGE.search(text)
        if match and abs(float(match[1])) > MAX_WEIGHT:
            return [Message("core.weight_too_large", {"number": match[1], "most": f"{MAX_WEIGHT:g}"})]
    return []


def _no_weight(text: str) -> list[Message]:
    """Numbers at the end of a part that are no weights: with a sign too many, or without words before them."""
    for match in LAST.finditer(visible(text).translate(WIDE)):
        before, number = match["before"], match["number"].strip()
        if before in ("", "|", "^"):
            return [Message("core.weight_alone", {"text": f":{number}"})]
        plain = number.translate(SIGNS)
        large = re.fullmatch(r"-?\d+(?:\.\d+)?", plain) and abs(float(plain)) > MAX_WEIGHT
        if not (before.isdigit() or NUMBER.fullmatch(plain) or large):
            return [Message("core.foreign_percent", {"text": f":{number}"})]
    return []


def _open_bracket(text: str, targets: list[Target]) -> list[Message]:
    """The first part with a bracket that does not close in it, where there are marks that end parts."""
    for target in targets if _weighs(targets) and "\\" not in text else ():
        words = SMILEYS.sub("", target.text.translate(WIDE))
        if any(words.count(pair[0]) > words.count(pair[1]) for pair in PAIRED):
            return [Message("core.bracket_open", {"text": target.text[:40]})]
    return []
