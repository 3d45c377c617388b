"""The grammar of prompts: targets with weights and stops, scenes over time, regions of the canvas.

    a castle | fog:0.5 | blur:-0.3 | a moon:1:0.7      several targets, TEXT[:WEIGHT[:STOP]]
    a castle ^ a ruin @80                              scenes; each begins at its step, or all share the run evenly
    a sun @ top | a boat:0.5 @ mask.png                regions, TARGET @ WHERE

Weights are read from the right, so a colon inside a sentence is only a colon, and one between two whole numbers is a
ratio or a time: "16:9". Full-width marks are marks too. What stands in quotes, in braces or after a backslash is
words, and so is the grammar of other programs, see `prompt_notes`. Lists of pictures and numbers (`parse_list`) have no
quotes: every character of a path or a data URI is its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipelines.errors import BadInput
from pipelines.io.values import is_list
from pipelines.io.visible import by_number

# the largest weight; a larger number after a colon is part of the sentence, as in "at 10:30"
MAX_WEIGHT = 10.0
MAX_TERMS = 8  # of a prompt whose parts are drawn together: each costs as much as a prompt alone
NUMBER = re.compile(r"[-+]?(?:0|[1-9]\d?)?(?:\.\d+)?")
# the fact of a picture that says how its prompt was read; records before this grammar have none
READ = "read"
SIDES = ("left", "right", "top", "bottom", "centre")

BAR, COLON, CARET, AT = "|｜", ":：", "^＾", "@＠"  # each with its full-width form
MARKS = BAR + COLON + CARET + AT + "\"'“”‘’«»「」『』\\[]{}<>()［］｛｝＜＞（）"
QUOTES = ("''", "‘’", "«»", "「」", "『』")  # beside the double ones
PAIRS = ("[]", "{}", "()", "<>", "“”", "«»", "「」", "『』", "［］", "｛｝", "（）", "＜＞")
OPENS = re.compile("(?<![^\\s|:^｜：＾])'|‘")  # may begin a quote that ends in another part
ESCAPE = "\ufdef"  # in the place of a backslash before a mark; no text has it, nor those of HIDDEN
HIDDEN = {ord(mark): 0xE0200 + k for k, mark in enumerate(MARKS)}
KEPT = {HIDDEN[ord(mark)] for mark in BAR + COLON + CARET + AT}  # marks that were kept from being marks
SHOWN = {hidden: mark for mark, hidden in HIDDEN.items()}
FULL_WIDTH = {0xFF10 + k: str(k) for k in range(10)} | {
    ord(a): b for a, b in zip("．－＋，", ".-+.", strict=True)
}
SIGNS = FULL_WIDTH | dict.fromkeys(map(ord, "−–—‐‑﹣"), "-") | dict.fromkeys(map(ord, ",。·"), ".")


def _nested(opens: str, closes: str) -> str:
    """A pattern of brackets, with others of their kind inside up to four deep."""
    first, last = f"[{re.escape(opens)}]", f"[{re.escape(closes)}]"
    inside = f"[^{re.escape(opens + closes)}]"
    pattern = f"{first}{inside}*{last}"
    for _ in range(4):
        pattern = f"{first}(?:{inside}|{pattern})*{last}"
    return pattern


WORDS = re.compile(  # marks inside are no marks, but for those in round or square brackets without a meaning elsewhere
    r"""(?P<code>\\u\{[0-9a-f]{1,6}\}) | \\(?P<mark>[|:^@"'\\｜：＾＠“”‘’«»「」『』\[\]{}<>()［］｛｝＜＞（）])
    | (?<![^\s|:^｜：＾])"[^"]*"(?![^\s|:^@.,;!?｜：＾＠，。]) | “[^“”]*”
    | (?<![^\s|:^｜：＾])'[^']*[|:^@｜：＾＠][^']*'(?![^\s|:^@.,;!?｜：＾＠，。])
    | ‘[^‘’]*’ | «[^«»]*» | 「[^「」]*」 | 『[^『』]*』
    | <\|\w+\|> | [<＜]\w+(?:\[[^\[\]]*\])?[:：][^<>＜＞]*[>＞]
    | :: | (?<=\w)\^\d+(?:\.\d+)? | \^[_.oO-]?\^"""
    f"| {_nested('{｛', '}｝')} | (?P<square>{_nested('[［', ']］')}) | (?P<round>{_nested('(（', ')）')})",
    re.VERBOSE,
)
CHOOSING = re.compile("[|:｜：]")  # in square brackets: a schedule or an alternation
STRESSED = re.compile(r"[:：]\s*[-+−]?\d*[.．]?\d+\s*[)）]$")  # at the end of round ones
CODE = re.compile(r"\\u\{([0-9a-f]{1,6})\}")  # a character by its number, as `as_words` writes it


@dataclass(frozen=True)
class Target:
    """A target of the loss. `text` is words, the path or data URI of a picture, or a number, depending on its list.

    A `weight` below zero maximizes the distance. `stop` is a great-circle distance (theta^2 / 2) below which there is no
    gradient, or for a negative weight above which there is none. None means no limit.
    """

    text: str
    weight: float = 1.0
    stop: float | None = None


@dataclass(frozen=True)
class Scene:
    """One scene as it was written. `targets` are all of `words`, those of weight 0 too.

    `step` holds the digits after `@`, the empty text where there are none.
    """

    words: str
    step: str
    targets: list[Target]


@dataclass(frozen=True)
class Region:
    """A target for a part of the canvas: `where` is one of SIDES or a mask picture, white in the region."""

    target: Target
    where: str


def _target(hidden: str) -> Target:
    """Read `TEXT[:WEIGHT[:STOP]]` from the right; the weight is 1 when there is none."""
    text = hidden.strip()
    head, last = _split_weight(text)
    if last is None:
        return Target(_words(text))
    first, weight = _split_weight(head)
    if weight is not None:
        return Target(_words(first), weight, abs(last))
    return Target(_words(head), last)


def _hidden(text: str) -> str:
    """The text with other characters in the place of marks that are words. `_written` gives it back."""
    parts, at = list[str](), 0
    while match := WORDS.search(text, at):
        parts.append(text[at : match.start()])
        at = match.end()
        square, rounded = match["square"], match["round"]
        if match["mark"]:
            parts.append(ESCAPE + match["mark"].translate(HIDDEN))
        elif match["code"]:
            parts.append(match["code"])
        elif (square and not CHOOSING.search(square)) or (rounded and not STRESSED.search(rounded)):
            at = match.start() + 1
            parts.append(text[match.start()])
        else:
            parts.append(match[0].translate(HIDDEN))
    return "".join([*parts, text[at:]])


def _written(hidden: str) -> str:
    """The text that `_hidden` was given."""
    return hidden.replace(ESCAPE, "\\").translate(SHOWN)


def _words(hidden: str) -> str:
    """What a target says: hidden marks come back without a backslash, and quotes around all of it go.

    Quotes other than the double ones go where they kept a mark from being one.
    """
    text = CODE.sub(lambda match: _character(int(match[1], 16)), hidden.strip())
    plain = text.replace(ESCAPE, "").translate(SHOWN)
    quoted = ('""', "“”", *(QUOTES if KEPT & set(map(ord, text)) else ()))
    if len(plain) > 2 and ESCAPE not in text and plain[0] + plain[-1] in quoted:
        inside = plain[1:-1].strip()
        return inside if inside and plain[0] not in inside else plain
    return plain


def _character(number: int) -> str:
    return "" if number >= 0x110000 or 0xD800 <= number < 0xE000 else chr(number)


def _split_weight(text: str) -> tuple[str, float | None]:
    """Words and the number after their last colon; None for a number that is no weight."""
    at = max(map(text.rfind, COLON))
    head, tail = text[: max(at, 0)], text[at + 1 :].strip().translate(SIGNS)
    is_ratio = re.fullmatch("[0-9]+", tail) and re.search(r"(?:^|[^:：\d.\s])\s*[\d.]+\s*$", head)
    if at < 0 or is_ratio or re.fullmatch(r"[\d.,\s]+", head):
        return text, None
    return _number(text, head, tail)


def _number(text: str, head: str, tail: str) -> tuple[str, float | None]:
    if not head.strip() or not any(map(str.isdigit, tail)) or not NUMBER.fullmatch(tail):
        return text, None
    number = float(tail)
    return (head.strip(), number) if abs(number) <= MAX_WEIGHT else (text, None)


def parse_list(text: str) -> list[Target]:
    """Parse pictures or numbers, `SOURCE[:WEIGHT[:STOP]]`, separated by bars; those of weight 0 are dropped."""
    return [target for part in text.split("|") if part.strip() and (target := _item(part)).weight != 0]


def _item(text: str) -> Target:
    text = text.strip()
    head, last = _split_plainly(text)
    if last is None:
        return Target(text)
    first, weight = _split_plainly(head)
    return Target(head, last) if weight is None else Target(first, weight, abs(last))


def _split_plainly(text: str) -> tuple[str, float | None]:
    head, colon, tail = text.rpartition(":")
    return _number(text, head, tail.strip()) if colon else (text, None)


def parse_targets(text: str) -> list[Target]:
    """Parse targets separated by bars; empty ones and those of weight 0 are dropped."""
    return [target for target in _written_targets(_hidden(text)) if target.weight != 0]


def _written_targets(hidden: str) -> list[Target]:
    return [_target(part) for part in re.split(f"[{BAR}]", hidden) if part.strip()]


def written_targets(text: str) -> list[Target]:
    """The targets of a prompt without scenes as they were written, those of weight 0 too."""
    return _written_targets(_hidden(text))


def written_scenes(text: str, grammar: str) -> list[Scene]:
    """The scenes of a prompt as they were written; a single one in the grammar of terms, in which ^ and @ are words."""
    return [Scene(text, "", written_targets(text))] if grammar == "terms" else parse_scenes(text)


def check_targets(targets: list[Target]) -> None:
    """BadInput when there is no target, when none has a positive weight, or when the weights sum to zero."""
    if not targets:
        raise BadInput("settings.prompt_empty")
    if not any(target.weight > 0 for target in targets):
        raise BadInput("optimize.no_positive_weight")
    if abs(sum(target.weight for target in targets)) < 1e-6:
        raise BadInput("optimize.weights_cancel", target=targets[0].text)


def parse_terms(text: str) -> list[tuple[str, float]]:
    """Pairs of a text and its share of the guidance, of a prompt without scenes: `a castle | fog:0.5 | people:-0.4`.

    A share is the weight divided by the sum of the positive weights, so one text alone has the share 1. BadInput when
    there is no text, when no weight is positive, or for more than MAX_TERMS texts.
    """
    targets = written_targets(text)
    if not targets:
        raise BadInput("settings.prompt_empty")
    targets = [target for target in targets if target.weight != 0]
    total = sum(target.weight for target in targets if target.weight > 0)
    if not total:
        raise BadInput("optimize.no_positive_weight")
    if len(targets) > MAX_TERMS:
        raise BadInput("core.too_many_terms", count=len(targets), most=MAX_TERMS)
    return [(target.text, target.weight / total) for target in targets]


def one_text(prompt: str, setting: str) -> str:
    """The text of a prompt that has one part. BadInput for several, which do not go together with `setting`."""
    (text, _), *more = parse_terms(prompt)
    if more:
        raise BadInput("core.one_part", setting=setting, count=1 + len(more))
    return text


def parse_scenes(text: str) -> list[Scene]:
    """Scenes between carets as they were written, also empty ones and steps that do not grow. Raises nothing."""
    scenes: list[Scene] = []
    for part in map(str.strip, re.split(f"[{re.escape(CARET)}]", _hidden(text))):
        match = re.fullmatch(rf"(.*\S)\s*[{AT}]\s*([0-9０-９]{{1,6}})", part, re.DOTALL)
        words, step = (match[1], match[2].translate(FULL_WIDTH)) if match else (part, "")
        scenes.append(Scene(_written(words), step, _written_targets(words)))
    return scenes


def as_words(text: str) -> str:
    """How a prompt is written that is these words alone, whatever marks they hold; mostly the text itself.

    Characters that cannot be seen are written by their number, because `clean_prompt` would leave them out.
    """
    (scene, *more) = parse_scenes(text)
    if more or scene.step or scene.targets != [Target(text.strip())]:
        return _escaped(text)
    return by_number(text)


def _escaped(text: str) -> str:
    return by_number("".join(f"\\{one}" if one in MARKS else one for one in text))


def as_read(prompt: str, read: object) -> str:
    """A prompt of terms as it is written now, of a picture that says how it was `read`: pairs of a text and its share."""
    pairs = [pair for pair in read if is_list(pair) and len(pair) == 2] if is_list(read) else []
    texts = [str(text) for text, share in pairs if isinstance(share, (int, float))]
    if not texts or texts == [target.text for target in parse_targets(prompt)]:
        return prompt
    targets = [Target(str(text), float(share)) for text, share in pairs]
    return " | ".join(map(said, targets))


def in_known_words(prompt: str, known_as: Callable[[str], str]) -> str:
    """A prompt of terms with each in the words that `known_as` gives for it, "" for its own; "" where nothing changes."""
    targets = parse_targets(prompt)
    known = [replace(target, text=known_as(target.text) or target.text) for target in targets]
    return "" if known == targets else " | ".join(map(said, known))


def said(target: Target) -> str:
    """A target as it is written, whatever its text holds and whatever stands beside it; mostly TEXT:WEIGHT."""
    text = target.text
    weight = "" if target.weight == 1 and target.stop is None else _weight_of(target)
    whole = (
        '"' not in text and not OPENS.search(text) and all(text.count(a) == text.count(b) for a, b in PAIRS)
    )
    if whole and _written_targets(_hidden(text + weight)) == [target] and by_number(text) == text:
        return text + weight
    if text[-1:].isdigit() and weight and not set(text) & set(MARKS):
        return f'"{by_number(text)}"{weight}'
    return _escaped(text) + weight


def parse_story(text: str, steps: int) -> list[tuple[int, str]]:
    """Parse scenes separated by carets: (first step, prompt) in order; the first begins at step 0.

    Scene k of n without `@STEP` begins at k * steps / n. BadInput for an empty scene, or when the steps do not increase.
    """
    scenes = parse_scenes(text)
    if any(not scene.words for scene in scenes):
        raise BadInput("optimize.scene_empty")
    story: list[tuple[int, str]] = []
    for k, scene in enumerate(scenes):
        begin = int(scene.step) if scene.step else k * steps // len(scenes)
        if k == 0 and begin != 0:
            raise BadInput("optimize.first_scene_late", step=begin)
        if story and begin <= story[-1][0]:
            raise BadInput("optimize.scene_out_of_order", scene=k + 1, step=begin)
        story.append((begin, scene.words))
    return story


def of_first_grammar(prompt: str) -> str:
    """A prompt of scenes that was written before there were quotes, as it is written now; mostly the text itself."""
    now, scenes = parse_scenes(prompt), list[str]()
    for part in map(str.strip, prompt.split("^")):
        match = re.fullmatch(r"(.*\S)\s*@\s*(\d{1,6})", part, re.DOTALL)
        words, step = (match[1], match[2]) if match else (part, "")
        items = [_item(item) for item in words.split("|") if item.strip()]
        scene = now[len(scenes)] if len(scenes) < len(now) else None
        if scene is not None and (scene.targets, scene.step) == (items, step):
            scenes.append(part)
        else:
            scenes.append(" | ".join(map(said, items)) + (step and f" @{step}"))
    return prompt if scenes == [part.strip() for part in prompt.split("^")] else " ^ ".join(scenes)


def parse_regions(text: str) -> list[Region]:
    """Parse regions `TARGET @ WHERE` separated by bars. BadInput when one has no target or no place."""
    regions: list[Region] = []
    for part in re.split(f"[{BAR}]", _hidden(text)):
        if not part.strip():
            continue
        match = re.fullmatch(rf"(.*)[{AT}](.*)", part, re.DOTALL)
        words, where = (match[1], _written(match[2]).strip()) if match else ("", "")
        if not words.strip() or not where:
            region = _written(part).strip()[:40]
            raise BadInput("optimize.region_without_place", region=region, places=", ".join(SIDES))
        regions.append(Region(_target(words), where))
    return regions


def map_list(text: str, change: Callable[[str], str]) -> str:
    """The list of pictures with `change` applied to each; weights and stops are kept."""
    return " | ".join(f"{change(item.text)}{_weight_of(item)}" for item in parse_list(text))


def map_regions(text: str, change: Callable[[str], str]) -> str:
    """The list of regions with `change` applied to every mask picture; named sides are kept."""
    return " | ".join(
        f"{as_words(region.target.text)}{_weight_of(region.target)} @ "
        f"{region.where if region.where in SIDES else change(region.where)}"
        for region in parse_regions(text)
    )


def _weight_of(target: Target) -> str:
    return f":{target.weight:g}" + ("" if target.stop is None else f":{target.stop:g}")


def parse_palette(text: str) -> list[list[float]]:
    """Parse 1 to 32 `#rrggbb` colours, separated by spaces or commas -> rows (r, g, b) in [-1, 1]. BadInput for others."""
    colours = text.replace(",", " ").split()
    for colour in colours:
        if not re.fullmatch(r"#?[0-9a-fA-F]{6}", colour):
            raise BadInput("optimize.not_a_colour", colour=colour[:20])
    if not 1 <= len(colours) <= 32:
        raise BadInput("optimize.palette_size", count=len(colours))
    plain = [colour.removeprefix("#") for colour in colours]
    return [[int(digits[k : k + 2], 16) / 127.5 - 1 for k in (0, 2, 4)] for digits in plain]
