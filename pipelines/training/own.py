"""Training on a user's own folder: its pictures are checked first, and what is trained is a part of a pack of its own.

A pack begins as a copy of the tiny pack's parts, so it can be used from the first minute on, and each network goes on from
there. Its card says which parts were trained, on what, and whether they still fit to one another.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipelines.errors import BadInput, Message
from pipelines.io.files import check_writable, home_path, write_atomically
from pipelines.models.checkpoint import file_hash, read_header
from pipelines.models.clip.tokenizer import WORDS, signs_in, words_in
from pipelines.models.pack_card import CARD, TAKEN, VOCABULARY, PackCard, check_pack_name, packs_folder
from pipelines.training.batches import batches
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.examples import EXAMPLE_SIZE, write_own_examples
from pipelines.training.data.folder import NOT_STATED, Check, check
from pipelines.training.data.stream import Rates, Reader, Stream
from pipelines.training.data.tars import tars_of
from pipelines.training.holding import held
from pipelines.training.processes import is_first
from pipelines.training.state import State
from pipelines.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
TINY = ROOT / "assets" / "tiny"
PACK = "pack"  # all of PARTS, one after another
CAN_START = ("clip", "critic", "vqgan", "codec", "dalle", "prior", "matting")
PARTS = ("clip", "critic", "codec", "vqgan", "prior", "dalle")  # what the tools use, in the tiny pack too
# networks that need names of things, a teacher's words, or opacity
ICONS_ONLY = ("text", "critic-text", "judge", "matting")
# trainings that need no picture beforehand
STREAMED = ("clip", "critic", "vqgan", "codec", "vqvae", "dvae", "decoder", "dalle")
KEEPS = ("decoder", "image")  # trainings after which what stands on the part still does
SHARES = {"clip": 0.17, "codec": 0.19, "vqgan": 0.13, "prior": 0.27, "dalle": 0.12, "critic": 0.04}
# of a pack's minutes, in this order; the rest is for reading, encoding and figures
# between two saved states; with a step's time and the writing, a crash loses less than a minute
SAVE_SECONDS = 40.0
MEASURED_SECONDS = 20.0
SHOWN = 20  # files that are told one by one


@dataclass(frozen=True)
class Plan:
    """What the networks of a pack are given, in minutes, by name and in order."""

    minutes: dict[str, float]

    @classmethod
    def of(cls, minutes: float) -> Plan:
        """The minutes of a whole pack divided by SHARES."""
        return cls({name: round(share * minutes, 5) for name, share in SHARES.items()})


def train_on_folder(
    options: argparse.Namespace,
    found: Check,
    train: Callable[[argparse.Namespace], dict[str, float]],
    trainer_of: Callable[[argparse.Namespace], Trainer],
) -> dict[str, Any]:
    """Tell what was found in a user's folder and train on it, unless that is all; returns what --json prints.

    `train` trains one network with some options and returns its figures; `trainer_of` only makes its trainer.
    """
    own = settled(options, found)
    plan = Plan.of(options.minutes) if options.name == PACK else Plan({options.name: options.minutes})
    told: dict[str, Any] = {"check": found.to_json(), "minutes": plan.minutes, "out": str(own.out)}
    if is_first():
        report(found, options.licence or "")
        if options.name == PACK:
            say("minutes: " + ", ".join(f"{name} {minutes:.1f}" for name, minutes in plan.minutes.items()))
    if options.check:
        return told | {"pace": _paces(own, plan, trainer_of)}
    with held(own.out) if options.name == PACK else nullcontext():
        if is_first():
            begin_pack(own.out, found)
        figures = {name: _train_part(own, name, minutes, train) for name, minutes in plan.minutes.items()}
    if is_first():
        say(str(farewell(own.out, options.name)))
    return told | {"figures": figures}


def _train_part(
    options: argparse.Namespace,
    name: str,
    minutes: float,
    train: Callable[[argparse.Namespace], dict[str, float]],
) -> dict[str, float]:
    """Train one part of a user's pack, unless it is done; returns its figures."""
    part = argparse.Namespace(**{**vars(options), "name": name, "minutes": minutes})
    if options.name == PACK and is_done(options.out, name, minutes, options.folder.hash):
        say(f"{name} is done")
        return {}
    if name in CAN_START and part.start is None and not options.fresh and options.size == "tiny":
        part.start = options.out / f"{name}.safetensors"  # one of PARTS, so it is there
    return train(part)


def _paces(
    options: argparse.Namespace, plan: Plan, trainer_of: Callable[[argparse.Namespace], Trainer]
) -> dict[str, dict[str, float | str]]:
    """Measure how fast the networks of a plan learn here, and tell it; of a pack, the first two.

    A pack that is not there is not made for it.
    """
    out = options.out if (options.out / CARD).exists() else TINY
    paces: dict[str, dict[str, float | str]] = {}
    for name, minutes in list(plan.minutes.items())[:2]:
        trainer = trainer_of(argparse.Namespace(**{**vars(options), "name": name, "out": out}))
        speed = measured(trainer, MEASURED_SECONDS)
        if trainer.stream is not None:
            sentence = _pace_of_stream(name, speed, trainer.stream)
        else:
            sentence = pace(name, speed, options.folder.pictures - options.folder.held_out, minutes)
        say(str(sentence))
        words = {"en": sentence.text(), "zh": sentence.text("zh")}
        paces[name] = {"pictures_a_minute": round(speed, 1), "minutes": minutes, **words}
    return paces


def data_of(options: argparse.Namespace) -> Check | None:
    """The check of a user's pictures where `options.data` names a folder of them, a tar, or the data file of a check.

    Reading is told on standard error. None for other data files. Of a stream `options.tars` are set. Without a licence it
    is what the pack's card says of the same pictures, and `options.licence` is set. BadInput as `check` raises it, and for
    a network that cannot learn from a stream.
    """
    data, begun = options.data, time.monotonic()
    if options.stream and options.name not in STREAMED:
        raise BadInput("training.no_stream", network=options.name, networks=", ".join(STREAMED))
    if options.stream:
        options.tars = tars_of(data)
    elif data.is_file() and data.suffix.lower() != ".tar":
        return Check.of_data_file(data)
    elif data.suffix == ".safetensors":  # which is not there
        return None

    def tell(done: int, total: int) -> None:
        if done and done % 500 == 0:
            left = (time.monotonic() - begun) / done * (total - done)
            say(f"read {done:,} of {total:,} files, about {left:.0f} seconds left")

    def read(licence: str) -> Check:
        return check(data, options.state / "data", tell, licence, options.tars)

    pack = pack_of(options, Path(os.path.abspath(home_path(data))))
    card = PackCard.read(pack) if not options.licence else None
    if card is not None and card.licence != NOT_STATED:
        found = read(card.licence)  # that of the beginning, if nothing has changed since
        if found.hash == card.data.get("hash"):
            options.licence = card.licence
            return found
    return read(options.licence or "")


def pack_of(options: argparse.Namespace, folder: Path) -> Path:
    """Where the pack is that learns from a folder: `options.out`, else among the user's packs by the folder's name."""
    return Path(os.path.abspath(options.out or packs_folder() / _pack_name(folder)))


def _pack_name(folder: Path) -> str:
    """A pack's name by its folder's; one without Latin letters and digits has a hash in it, so that two stay apart."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.stem.lower()).strip("-")[:35]
    if not name:
        return f"mine-{hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:6]}"
    return f"{name}-mine" if name in TAKEN else name


def report(found: Check, licence: str) -> None:
    """Tell a check on standard error: what there is, what is skipped and why, the sheet, and a licence that is missing."""
    for sentence in found.sentences():
        say(str(sentence))
    for one in found.skipped[:SHOWN]:
        say(f"  {one.name}: {one.problem}")
    if len(found.skipped) > SHOWN:
        say(f"  and {len(found.skipped) - SHOWN:,} more, in {found.file.with_suffix('.json')}")
    say(f"a sheet to look at: {found.sheet}")
    if not licence:
        say(str(Message("training.licence_missing")))


def settled(options: argparse.Namespace, found: Check) -> argparse.Namespace:
    """The options of a training on a data file: where its pack and its state are, and what it begins with.

    BadInput for a network that learns from icons only, and for a name that a pack cannot have.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if options.name == PACK and (several or options.start is not None):
        raise BadInput("training.pack_alone")
    if options.name in ICONS_ONLY:
        raise BadInput("training.icons_only", network=options.name)
    out = pack_of(options, found.folder)
    check_pack_name(out.name)
    own = argparse.Namespace(**vars(options))
    own.data, own.out, own.folder = found.file, out, found
    if options.data.suffix != ".safetensors":  # whoever names a data file names its state too
        own.state = options.state / "own" / f"{out.name}-{found.hash[:8]}"
    own.save_every = options.save_every or SAVE_SECONDS
    return own


def begin_pack(folder: Path, found: Check) -> None:
    """Make the pack where it is not there: the tiny pack's parts, a card, and pictures that Edit learns from.

    A pack that was trained on other pictures keeps its parts. Its known words are those of the captions and of the tiny
    pack, where it begins. CannotSave when the disk is full.
    """
    check_writable(folder / "a.safetensors")
    card = PackCard.read(folder)
    data = Dataset(found.file, EXAMPLE_SIZE)
    facts = {name: getattr(found, name) for name in ("hash", "pictures", "held_out", "captions", "words")}
    facts |= {"folder": found.folder.name} | ({"tars": found.tars} if found.tars else {})
    if card is not None and card.data.get("hash") not in (None, found.hash):
        say(str(Message("training.other_pictures", {"pack": folder.name})))
    card = replace(card, licence=data.licence, data=facts) if card else PackCard(data.licence, facts)
    if not (vocabulary := folder / f"{VOCABULARY}.json").exists():
        write_atomically(vocabulary, (TINY / vocabulary.name).read_bytes())
    write_atomically(folder / WORDS, "\n".join(_words(data)).encode())
    card = card.with_part(folder, VOCABULARY, "tiny", {})
    for name in PARTS:
        path = folder / f"{name}.safetensors"
        if name not in card.parts:
            if not path.exists():
                write_atomically(path, (TINY / path.name).read_bytes())
            # a copy also where a training was killed before it wrote the card
            copied = file_hash(path) == file_hash(TINY / path.name)
            card = card.with_part(folder, name, "tiny" if copied else "trained", _facts_of(path))
    write_own_examples(data, folder / "pictures.safetensors")
    card.with_part(folder, "pictures", "trained", {"licence": data.licence}).write(folder)


def _words(data: Dataset) -> list[str]:
    """The words, and symbols such as emoji, that texts of the tiny pack and of the trained pictures hold, sorted."""
    texts = [text for k in data.train for text in (data.icons[k].name, *data.icons[k].also)]
    own = {word for text in texts for word in (*words_in(text), *signs_in(text))}
    return sorted({*(TINY / WORDS).read_text("utf-8").split(), *own})


def note_part(folder: Path, name: str, file: str, facts: dict[str, Any], codec: str = "") -> None:
    """Write into the pack's card that a training of `name` has written the part `file`, a DALL·E over this codec."""
    if (card := PackCard.read(folder)) is not None:
        part, over = Path(file).stem, codec if name == "dalle" else ""
        card.with_part(folder, part, "trained", facts, kept=name in KEEPS, over=over).write(folder)


def is_done(folder: Path, name: str, minutes: float, data: str) -> bool:
    """Whether the pack has this part, trained on these data for so long, and it still fits."""
    card = PackCard.read(folder)
    part = card.parts.get(name) if card else None
    if card is None or part is None or part.origin != "trained" or not card.fits(name):
        return False
    return part.facts.get("data") == data and part.facts.get("minutes", 0) >= minutes - 1e-6


def measured(trainer: Trainer, seconds: float) -> float:
    """Pictures a minute that a training sees here, over all processes: measured on `seconds` of its own steps.

    The networks are changed by it.
    """
    device, step, begun = trainer.accelerator.device, 0, 0.0
    ahead = batches(trainer, State(), workers=0)
    while step < 2 or time.perf_counter() - begun < seconds:
        trainer.update(next(ahead), 0.0)
        step += 1
        if step == 1:  # the first one warms up
            begun = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return trainer.samples_per_step() * (step - 1) / (time.perf_counter() - begun) * 60


def pace(name: str, speed: float, pictures: int, minutes: float) -> Message:
    """How often a training sees each picture in its minutes, in a sentence."""
    times = speed * minutes / max(pictures, 1)
    return Message("training.pace", {"network": name, "minutes": minutes, "times": times, "speed": speed})


def _pace_of_stream(name: str, speed: float, stream: Stream) -> Message:
    """How fast a training learns and how fast one process can read for it, in a sentence."""
    journey, rates, begun = stream.journey(1, 1), Rates(), time.perf_counter()
    reader = Reader(stream, journey, 0)
    while time.perf_counter() - begun < MEASURED_SECONDS / 4:
        rates.of(journey)
        reader.read(64)
        journey.note(0, [reader.mark])
    told = rates.of(journey)
    read, megabytes = told["samples/s"], told["MB/s"]
    return Message(
        "training.pace_of_stream",
        {"network": name, "speed": speed / 60, "read": read, "megabytes": megabytes},
    )


def farewell(out: Path, network: str) -> Message:
    """How the pack is used now that the network was trained."""
    listed = out.parent == Path(os.path.abspath(packs_folder()))
    if listed and network == "transformer":
        return Message("training.second_stage_listed", {"pack": out.name})
    if listed:
        return Message("training.pack_listed", {"pack": out.name})
    return Message("training.pack_elsewhere", {"folder": str(out)})


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def _facts_of(path: Path) -> dict[str, Any]:
    return {
        name: value for name, value in read_header(path)[1].items() if name in ("figures", "data", "licence")
    }
