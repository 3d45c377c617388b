"""`python launch.py evaluate`: the project's own figures in one table, on a style never trained on, and on samples.

`figures.py` says what is measured and which bars there are, `judges.py` how pictures are judged, `samples.py` and
`compositions.py` look at what Generate draws, `given.py` at what Diffuse makes of pictures, `steering.py` at Optimize,
Guide and Edit, `card.py` writes figures into documents.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from pipelines.core.arguments import Parser, number
from pipelines.diffuse.pipeline import Diffuse
from pipelines.edit.pipeline import Edit
from pipelines.errors import BadInput
from pipelines.evaluation import card
from pipelines.evaluation.compositions import compositions
from pipelines.evaluation.exports import exporting
from pipelines.evaluation.figures import PARTS, Figures, read_figures, to_text
from pipelines.evaluation.given import completion
from pipelines.evaluation.judges import (
    Book,
    NameJudge,
    PixelJudge,
    TextJudge,
    ThingJudge,
    found,
    paired_interval,
    share_within,
)
from pipelines.evaluation.matting import cutting
from pipelines.evaluation.samples import (
    Drawer,
    Drawn,
    common_names,
    composed,
    copies,
    judged,
    time_beside,
    write_sheet,
)
from pipelines.evaluation.see import COMPOSITES, LABELS, pointing, probes, wordings
from pipelines.evaluation.steering import (
    book_and_names,
    editing,
    editing_outside,
    guiding,
    name_judges,
    optimization,
    round_trip,
    validation_pictures,
)
from pipelines.evaluation.synonyms import ASKED_FOR, Entry, read_entries, read_icons
from pipelines.models.base import Clip, Codec
from pipelines.models.checkpoint import load_weights, read_header
from pipelines.models.judge.network import Judge, JudgeConfig
from pipelines.studio import Studio
from pipelines.training.autoencoder import reconstruction
from pipelines.training.clip.retrieval import encode_pictures, retrieval
from pipelines.training.data.dataset import DATA_FILE, Dataset, on_background
from pipelines.training.data.larger import LARGER_NAME
from pipelines.training.data.outside import OUTSIDE_EDITS, OUTSIDE_NAME, read_outside

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "assets" / "tiny" / "README.md", ROOT / "README.md")
NAMES, CANDIDATES, TIMED = 200, 16, 5
DRAWERS: dict[
    str, tuple[str, dict[str, Any]]
] = {  # part -> pipeline, and the settings that are not its defaults
    "diffuse": ("diffuse", {}),
    "generate": ("generate", {}),
    "dalle": ("generate", {"finish": "drawn"}),
}
# parts that are idle until their flag gives them a number: the largest one, what is counted, and what is on their sheet
COUNTED = {
    "pruned": (10_000, "names to draw with pruning, 12 s each", "the best picture of each name"),
    "optimize": (
        10_000,
        "names to optimize, 60 s each",
        "five pictures a name: last and best from a splash, drawn, last and best from it",
    ),
    "guide": (
        10_000,
        "names to guide, 40 s each",
        "text and CLIP, text, CLIP, neither: four pictures a name",
    ),
    "given": (
        10_000,
        "icons to complete, 7 s each",
        "an icon, each half covered and drawn, drawn whole: six pictures a name",
    ),
    "outside": (
        len(OUTSIDE_EDITS),
        "edits of pictures of a style that nothing learned from, 3 s each; needs `launch.py data --outside`",
        "before and after",
    ),
    "edit": (
        20,
        "text pairs to edit ten pictures by",
        "before and after, a row a pair; to this name and -MODE.png",
    ),
}
QUICK_NAMES, QUICK_CANDIDATES = 6, 4  # and a few of everything else, to see that it works


def main(argv: list[str]) -> int:
    """Measure, then print one table, or with --json one object, or renew documents with --card. Returns the exit code."""
    options = _parser().parse_args(argv)
    documents = [] if options.card is None else options.card or DOCUMENTS
    for path in documents:
        card.split_at_markers(path)  # no long measurement for a document that cannot hold it
    if documents and options.quick:
        raise BadInput("evaluation.quick_card")
    if options.figures:
        figures = read_figures(options.figures)
    else:
        emoji = read_data(options.data)
        if options.quick:
            emoji.train, emoji.validation = emoji.train[::16], emoji.validation[::8]
        if options.names is None:
            options.names = QUICK_NAMES if options.quick else NAMES
        if options.candidates is None:
            options.candidates = QUICK_CANDIDATES if options.quick else CANDIDATES
        figures = evaluate(Studio("tiny"), emoji, options)
    if not figures:
        raise BadInput("evaluation.nothing_asked")
    for path in documents:
        card.rewrite(path, figures)
    print(json.dumps(figures, ensure_ascii=False) if options.json else to_text(figures))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="launch.py evaluate", description="Measure the models of the tiny pack.")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"measure only these: {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--names", type=number(int, 0, 10_000), help=f"common names to generate (default {NAMES}; 0 for none)"
    )
    parser.add_argument(
        "--candidates",
        type=number(int, 1, 64),
        help=f"candidates a prompt (default {CANDIDATES}; 64 takes four times as long)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few of everything: does it work? no figure counts"
    )
    parser.add_argument(
        "--data", type=Path, default=DATA_FILE, help=f"made by launch.py data (default {DATA_FILE})"
    )
    parser.add_argument(
        "--sheet", type=Path, help="also write the best picture of each name, to this name and -PART.png"
    )
    parser.add_argument(
        "--judge", type=Path, metavar="FILE", help="weights of the judge, made by launch.py train judge"
    )
    parser.add_argument(
        "--copies", type=Path, metavar="FILE.png", help="samples beside their nearest training pictures"
    )
    for part, (most, counted, sheet) in COUNTED.items():
        parser.add_argument(f"--{part}", type=number(int, 0, most), default=0, help=f"{counted} (default 0)")
        parser.add_argument(f"--{part}-sheet", type=Path, help=sheet)
    parser.add_argument("--matting-sheet", type=Path, help="24 pictures cut out, on black")
    parser.add_argument(
        "--figures", nargs="+", type=Path, metavar="FILE", help="measure nothing, take what --json printed"
    )
    parser.add_argument(
        "--card",
        nargs="*",
        type=Path,
        metavar="FILE.md",
        help="put the table between the markers of these documents (default: both READMEs)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def read_judge(path: Path) -> Judge:
    """The judge's network, from a file that `train judge` wrote. BadInput when it is missing or another kind of file."""
    judge = Judge(JudgeConfig.from_dict(read_header(path)[0]))
    load_weights(path, judge)
    return judge.eval().requires_grad_(False)


def read_data(path: Path) -> Dataset:
    """The data file in memory. BadInput when it is missing or another kind of file."""
    read_icons(path)
    try:
        return Dataset(path)
    except (KeyError, IndexError, ValueError, OSError) as error:
        raise BadInput("evaluation.data_damaged", file=path) from error


@torch.no_grad()
def evaluate(studio: Studio, emoji: Dataset, options: Namespace) -> Figures:
    """The parts that were asked for, in the order of PARTS, each a flat dict of figures."""
    evaluation, figures = Evaluation(studio, emoji, options), {}
    for part in PARTS:
        if part in (options.only or PARTS) and evaluation.wants(part):
            print(f"measuring: {part}", file=sys.stderr, flush=True)
            figures[part] = getattr(evaluation, part)()
    return figures


class Evaluation:
    """One method a part of the table."""

    def __init__(self, studio: Studio, emoji: Dataset, options: Namespace):
        self.studio, self.emoji, self.options = studio, emoji, options
        self.critic: Clip = studio.load("tiny-critic")
        self.judges: dict[str, Clip] = {"CLIP": studio.clip(), "critic": self.critic}
        self.names = common_names(emoji, options.names)
        self.drawn: dict[str, Drawn] = {}  # by part

    def wants(self, part: str) -> bool:
        """Whether a part has anything to do: some are idle until their flag gives them a number."""
        counts = {name: getattr(self.options, name) for name in COUNTED} | {"instant": self.options.edit}
        counts |= dict.fromkeys((*DRAWERS, "compared", "composed", "copies"), len(self.names))
        return counts.get(part, 1) > 0

    @cached_property
    def name_judges(self) -> dict[str, NameJudge]:
        """Those who rank what is drawn: the judge where its file is given, CLIP, the critic and pixels."""
        book = Book(self.emoji.icons)
        clips = {who: TextJudge(clip, book) for who, clip in self.judges.items()}
        return {**self.trained_judge, **clips, "pixels": PixelJudge(self.emoji)}

    @cached_property
    def trained_judge(self) -> dict[str, NameJudge]:
        """The judge, where its file is given."""
        if self.options.judge is None:
            return {}
        return {"judge": ThingJudge(read_judge(self.options.judge), self.emoji.icons)}

    def drawer(self, part: str) -> Drawer:
        """What draws in a part: a pipeline with its settings."""
        name, fields = DRAWERS[part]
        return Drawer(self.studio.pipeline(name), fields)

    def retrieval(self) -> dict[str, float]:
        """Picture to text: the share of validation pictures whose own name is among the first of all names."""
        return {
            f"{who} {name.replace('_chinese', ' Chinese')}": share
            for who, judge in self.judges.items()
            for name, share in retrieval(judge, self.emoji).items()
        }

    def words(self) -> dict[str, float]:
        """Text to picture, for words that no caption holds: the share with a right picture among the nearest ten.

        About half of them are WordNet phrases, which the text towers read with their teacher, never beside a picture. The
        thesaurus knows some of them from the same teacher.
        """
        emoji, read = self.emoji, set(self.emoji.phrases)
        names = [emoji.icons[k].name for k in emoji.validation]
        pictures = on_background(emoji.rgba[emoji.validation])
        entries = [entry for entry in (*read_entries(), *ASKED_FOR) if set(entry.accepted) & set(names)]
        groups: dict[str, Callable[[Entry], bool]] = {
            "300 synonyms": lambda entry: entry.kind != "asked for",
            "synonyms among them": lambda entry: entry.kind == "synonym",
            "descriptions among them": lambda entry: entry.kind == "description",
            ", ".join(entry.text for entry in ASKED_FOR): lambda entry: entry.kind == "asked for",
            "those among the 300 that it never read": lambda entry: (
                entry.kind != "asked for" and entry.text not in read
            ),
        }
        figures = {}
        readers: dict[str, tuple[Any, Callable[[str], str]]] = {
            who: (judge, str) for who, judge in self.judges.items()
        }
        clip: Any = self.judges["CLIP"]
        readers["CLIP by its thesaurus"] = clip, clip.tokenizer.known_as
        for who, (judge, said) in readers.items():
            texts = judge.encode_text([said(entry.text) for entry in entries])
            verdicts = found(entries, texts, names, encode_pictures(judge, pictures))
            for group, belongs in groups.items():
                own = [right for entry, right in zip(entries, verdicts, strict=True) if belongs(entry)]
                if own:
                    figures[f"{who}, {group}"] = sum(own) / len(own)
        return figures

    def see(self) -> dict[str, float]:
        """What See promises, by the pack's CLIP."""
        clip, quick = self.judges["CLIP"], self.options.quick
        figures = wordings(clip, self.emoji) | pointing(clip, self.emoji, 4 if quick else COMPOSITES)
        return figures | probes(clip, self.emoji, 4 if quick else LABELS)

    def vqgan(self) -> dict[str, float]:
        """What is left of the validation pictures on white after tokens."""
        figures: dict[str, float] = {}
        for name, title in (("tiny-codec", "codec"), ("tiny-vqgan", "the DALL·E's VQGAN")):
            vqgan = self.studio.load(name)
            pictures = validation_pictures(self.emoji, vqgan.config.image_size).to(self.studio.torch_device)
            figures |= {f"{title}, {what}": value for what, value in reconstruction(vqgan, pictures).items()}
        return figures

    def diffuse(self) -> dict[str, float]:
        """Whether Diffuse's pictures show their names."""
        return self._judged("diffuse")

    def pruned(self) -> dict[str, float]:
        """Whether Diffuse's best pictures do in the same time when the worse candidates are dropped on the way."""
        plain = self.drawer("diffuse")
        pruning = replace(plain, fields={"prune": True})
        names, candidates = common_names(self.emoji, self.options.pruned), self.options.candidates
        drawn = judged(pruning, self.critic, self.name_judges, names, candidates)
        if self.options.pruned_sheet:
            write_sheet(self.options.pruned_sheet, drawn.best, 20)
        figures = {
            f"{who} top-{top}, the best": share_within(drawn.choice(who, candidates), top)
            for who in drawn.places
            for top in (1, 5)
        }
        beside = time_beside(pruning, plain, names[:TIMED], candidates)
        return figures | {"processor time beside drawing all": beside}

    def generate(self) -> dict[str, float]:
        """Whether Generate's pictures do, with the finish that the pack has."""
        return self._judged("generate")

    def dalle(self) -> dict[str, float]:
        """Whether the DALL·E's own do."""
        return self._judged("dalle")

    def _judged(self, part: str) -> dict[str, float]:
        drawn = judged(self.drawer(part), self.critic, self.name_judges, self.names, self.options.candidates)
        self.drawn[part] = drawn
        if self.options.sheet:
            write_sheet(self.options.sheet.with_stem(f"{self.options.sheet.stem}-{part}"), drawn.best, 20)
        return drawn.figures()

    def compared(self) -> dict[str, float]:
        """Differences of the parts that were drawn, by the judge where there is one, else by the critic."""
        who, count, figures = next(iter(self.name_judges)), self.options.candidates, {}
        who = who if who == "judge" else "critic"
        for one, other in combinations(self.drawn, 2):
            for top in (1, 5):
                first, second = (self.drawn[part].choice(who, count) for part in (one, other))
                low, high = paired_interval(first, second, top)
                name = f"{one} over {other}, {who} top-{top}"
                figures[name] = share_within(first, top) - share_within(second, top)
                figures |= {f"{name}, from": low, f"{name}, to": high}
        return figures

    def composed(self) -> dict[str, float]:
        """Whether pictures show all parts of their prompts."""
        asked, figures = compositions()[:: 8 if self.options.quick else 1], {}
        for part, title in (("diffuse", "Diffuse"), ("generate", "Generate")):
            shares = composed(self.drawer(part), self.critic, self.emoji, asked, self.options.candidates)
            figures |= {
                kind if kind.endswith("true pictures") else f"{title}, {kind}": share
                for kind, share in shares.items()
            }
        return figures

    def copies(self) -> dict[str, float]:
        """Whether the best pictures of the names, by Diffuse, are copies."""
        if "diffuse" not in self.drawn:
            self.diffuse()
        return copies(self.critic, self.emoji, self.drawn["diffuse"].best, self.options.copies)

    def matting(self) -> dict[str, float]:
        """Whether things are cut out as their drawings say."""
        codec: Codec = self.studio.load("tiny-codec")
        return cutting(self.studio.matting(), codec, self.emoji, self.options.matting_sheet)

    def export(self) -> dict[str, float]:
        """Whether pictures stay crisp when they are enlarged, and like themselves as SVG."""
        return exporting(self.emoji, self.options.data.with_name(LARGER_NAME))

    def given(self) -> dict[str, float]:
        """Whether Diffuse completes icons, continues them and keeps of them what is asked."""
        diffuse = self.studio.pipeline("diffuse")
        assert isinstance(diffuse, Diffuse)
        book, names = book_and_names(self.emoji, self.options.given)
        judges = name_judges({"critic": self.critic}, book) | self.trained_judge
        return completion(diffuse, judges, self.emoji, names, self.options.given_sheet)

    def unet(self) -> dict[str, float]:
        """Whether Edit's way up the noise and down again gives pictures back."""
        edit = self.studio.pipeline("edit")
        assert isinstance(edit, Edit)
        pictures = validation_pictures(self.emoji, edit.unet.config.image_size)
        return round_trip(edit, pictures[:: -(-len(pictures) // (4 if self.options.quick else 32))])

    def optimize(self) -> dict[str, float]:
        """Whether Optimize arrives at the prompt."""
        return optimization(self.studio, self.emoji, self.options.optimize, self.options.optimize_sheet)

    def guide(self) -> dict[str, float]:
        """Whether Guide does, with and without the text, with and without CLIP."""
        options = self.options
        return guiding(self.studio, self.emoji, options.guide, options.guide_sheet, self.trained_judge)

    def instant(self) -> dict[str, float]:
        """Whether Edit does so without learning."""
        return editing(self.studio, self.emoji, self.options.edit, self._edit_sheet("instant"), "instant")

    def outside(self) -> dict[str, float]:
        """Whether it does so on pictures of a style that nothing learned from."""
        pictures = read_outside(self.options.data.with_name(OUTSIDE_NAME))
        edits = OUTSIDE_EDITS[: self.options.outside]
        judges = {"critic": TextJudge(self.critic, Book(self.emoji.icons))} | self.trained_judge
        return editing_outside(self.studio, pictures, edits, judges, self.options.outside_sheet)

    def edit(self) -> dict[str, float]:
        """Whether Edit turns pictures into what is asked and keeps the rest."""
        return editing(self.studio, self.emoji, self.options.edit, self._edit_sheet("reusable"))

    def _edit_sheet(self, mode: str) -> Path | None:
        sheet = self.options.edit_sheet
        return None if sheet is None else sheet.with_stem(f"{sheet.stem}-{mode}")
