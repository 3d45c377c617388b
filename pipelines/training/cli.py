"""`python launch.py train NAME`: one command per network, to a time budget, resumable.

On several processes of this machine with `--processes N`; on several machines by torchrun, with the same flags:
`torchrun --nproc-per-node N -m pipelines.training.cli NAME ...`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from pipelines.errors import BadInput, CannotSave, CodedError, Message
from pipelines.io.files import check_writable, remove_leftovers
from pipelines.training import own, processes
from pipelines.training.batches import sensible_workers
from pipelines.training.control import follow
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.stream import Stream
from pipelines.training.flags import DEFAULTS, SAVE_SECONDS, SIZES, parser_of
from pipelines.training.holding import held
from pipelines.training.loop import Budget, fit
from pipelines.training.report import fastest_precision, hardware
from pipelines.training.state import State
from pipelines.training.trainer import Trainer

ASSETS = own.TINY
OPTIONS = {  # flags of some networks only
    "codec": ("dalle", "transformer"),
    "condition": ("transformer",),
    **dict.fromkeys(("text", "loss", "chunk"), ("clip", "critic")),
    **dict.fromkeys(("shard", "plan"), ("dalle",)),
}
OF_ANOTHER_TRAINING = ("codec", "condition", "text", "loss")  # of OPTIONS; each choice has a state of its own
LARGE = ("dalle", "transformer")  # which have this size
NICENESS = 15  # of a training in the background


def clip_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """CLIP and its critic; the tokenizer is made on the first training and kept."""
    from pipelines.models.clip.tokenizer import WORDS, Tokenizer
    from pipelines.training.clip.trainer import ClipTrainer, CriticTrainer
    from pipelines.training.clip.vocabulary import caption_words, train_tokenizer

    emoji, path = _data(options), options.out / "tokenizer.json"
    with accelerator.main_process_first():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(WORDS).write_text("\n".join(caption_words(emoji)), "utf-8")
            path.write_text(train_tokenizer(emoji).vocabulary.to_str(), "utf-8")
    trainer = {"clip": ClipTrainer, "critic": CriticTrainer}[options.name]
    recipe |= {"start": options.start, "chunk": options.chunk} | _drawn_pictures(accelerator, options, emoji)
    recipe |= {"text_kind": options.text} if options.text else {}
    recipe |= {"sigmoid": True} if options.loss == "sigmoid" else {}
    return trainer(accelerator, emoji, Tokenizer.load(path), options.state / "clip", **recipe)


def _data(options: argparse.Namespace) -> Dataset:
    """What is learned from: a data file, or the stream of which it is a sample."""
    return Stream(options.data, options.tars, options.seed) if options.tars else Dataset(options.data)


def _drawn_pictures(accelerator: Accelerator, options: argparse.Namespace, emoji: Dataset) -> dict[str, Any]:
    """What the pack in `out` draws, for a CLIP to learn to read: `codec` and `redrawn` of its trainer."""
    from pipelines.training.clip.redrawn import RedrawnIcons

    codec = options.out / "codec.safetensors"
    if not codec.exists():
        return {}
    if not emoji.of_things or not (options.out / "prior.safetensors").exists():
        return {"codec": codec}
    folder = options.state / "clip"
    with accelerator.main_process_first():
        redrawn = RedrawnIcons.of(options.out, emoji, folder, accelerator.device, options.seed)
    return {"codec": codec, "redrawn": redrawn}


def image_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """More training for the image tower of the CLIP in `out`; its texts' vectors stay the same."""
    from pipelines.models.clip.tokenizer import Tokenizer
    from pipelines.training.clip.image import ImageTrainer

    book, emoji = Tokenizer.load(options.out / "tokenizer.json"), Dataset(options.data)
    recipe |= _drawn_pictures(accelerator, options, emoji)
    return ImageTrainer(accelerator, emoji, book, options.state / "clip", pack=options.out, **recipe)


def text_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """More training for how the CLIP in `out`, or its critic, reads texts; its pictures' vectors stay the same."""
    from pipelines.models.clip.tokenizer import Tokenizer
    from pipelines.training.clip.text import CriticTextTrainer, TextTrainer

    trainer = {"text": TextTrainer, "critic-text": CriticTextTrainer}[options.name]
    book, folder = Tokenizer.load(options.out / "tokenizer.json"), options.state / "clip"
    return trainer(accelerator, Dataset(options.data), book, folder, pack=options.out, **recipe)


def vqgan_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The DALL·E's VQGAN, or the codec, with perceptual features from the CLIP in `out` when there is one."""
    from pipelines.training.vqgan import CodecTrainer, VqganTrainer

    trainer = {"vqgan": VqganTrainer, "codec": CodecTrainer}[options.name]
    return trainer(accelerator, _data(options), options.out, start=options.start, **recipe)


def vqvae_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """A VQ-VAE of as many tokens as the VQGAN."""
    from pipelines.training.vqvae import VqvaeTrainer

    return VqvaeTrainer(accelerator, _data(options), **recipe)


def dvae_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """A dVAE of as many tokens as the VQGAN."""
    from pipelines.training.dvae import DvaeTrainer

    return DvaeTrainer(accelerator, _data(options), **recipe)


def decoder_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """More training for the decoder of the codec in `out`; its latents stay the same."""
    from pipelines.training.vqgan import DecoderTrainer

    return DecoderTrainer(accelerator, _data(options), options.out, **recipe)


def dalle_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """DALL·E over the tokens of a codec in `out`."""
    from pipelines.training.dalle import DalleTrainer
    from pipelines.training.dalle_stream import StreamedDalleTrainer

    recipe |= {"codec": options.codec or "vqgan", "start": options.start, "shard": bool(options.shard)}
    trainer = StreamedDalleTrainer if options.tars else DalleTrainer
    return trainer(accelerator, _data(options), options.out, options.state / "dalle", **recipe)


def transformer_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The second stage of a codec in `out`."""
    from pipelines.training.transformer import TransformerTrainer

    recipe |= {"codec": options.codec or "vqgan", "condition": options.condition or "none"}
    return TransformerTrainer(
        accelerator, Dataset(options.data), options.out, options.state / "dalle", **recipe
    )


def semantic_dalle_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """DALL·E with semantic tokens, over the tokens of the VQGAN in `out`, under the texts of its CLIP."""
    from pipelines.training.dalle_semantic import SemanticDalleTrainer

    folder = options.state / "dalle-semantic"
    return SemanticDalleTrainer(accelerator, Dataset(options.data), options.out, folder, **recipe)


def prior_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The latent prior over the latents of the codec in `out`, under the texts of its CLIP."""
    from pipelines.training.prior import PriorTrainer

    folder = options.state / "prior"
    return PriorTrainer(
        accelerator, Dataset(options.data), options.out, folder, start=options.start, **recipe
    )


def judge_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The network that figures are taken by."""
    from pipelines.training.judge import JudgeTrainer

    return JudgeTrainer(accelerator, Dataset(options.data), **recipe)


def unet_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The diffusion model that edits start from."""
    from pipelines.training.unet import UnetTrainer

    emoji = Dataset(options.data, UnetTrainer.SIZES[options.size]["image_size"])
    return UnetTrainer(accelerator, emoji, **recipe)


def matting_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The network that cuts things out, also of pictures that the codec in `out` has drawn."""
    from pipelines.training.matting import MattingTrainer

    folder = options.state / "matting"
    recipe |= {"start": options.start}
    return MattingTrainer(accelerator, Dataset(options.data), options.out, folder, **recipe)


TRAINERS: dict[str, Callable[..., Trainer]] = {
    "clip": clip_trainer,
    "critic": clip_trainer,
    "image": image_trainer,
    "text": text_trainer,
    "critic-text": text_trainer,
    "vqgan": vqgan_trainer,
    "codec": vqgan_trainer,
    "vqvae": vqvae_trainer,
    "dvae": dvae_trainer,
    "decoder": decoder_trainer,
    "dalle": dalle_trainer,
    "transformer": transformer_trainer,
    "dalle-semantic": semantic_dalle_trainer,
    "prior": prior_trainer,
    "judge": judge_trainer,
    "unet": unet_trainer,
    "matting": matting_trainer,
}


def main(argv: list[str]) -> int:
    """Train one network, or a queue of them; returns the exit code."""
    try:
        if argv[:1] == ["queue"]:
            from pipelines.training.queue import main as queue

            return queue(argv[1:], TRAINERS)
        options = parser_of(TRAINERS).parse_args(argv)
        if options.plan:
            plan = _memory_plan(options, options.processes)
            if options.json:
                print(json.dumps({"plan": plan}, ensure_ascii=False))
            return 0
        if options.processes > 1 and "RANK" not in os.environ:
            if options.name == own.PACK:
                raise BadInput("training.pack_alone")
            return processes.run(argv, options.processes, options.state)
        if processes.watched():
            processes.end_with_watcher()
        with options.control.held() if options.control else nullcontext():
            told = _on_folder_or_file(options)
            if options.json and processes.is_first():
                print(json.dumps(told, ensure_ascii=False))
    except (BadInput, CannotSave, FileNotFoundError, ArithmeticError) as error:
        print(f"atelier: {error}", file=sys.stderr)
        if "--json" in argv and processes.is_first():
            told = error.to_json() if isinstance(error, CodedError) else {}
            print(json.dumps({"error": {"text": str(error), **told}}, ensure_ascii=False))
        if isinstance(error, CannotSave):
            return processes.UNSAVED if processes.watched() else 1
        return 2
    except KeyboardInterrupt:
        if not processes.watched():
            own.say("stopped; the same command goes on from the last saved state")
        return 130
    except RuntimeError as error:
        if not processes.lost_the_others(error):
            raise
        if not processes.watched():
            own.say(f"atelier: {Message('training.process_gone')}")
        return processes.LOST
    return 0


def _on_folder_or_file(options: argparse.Namespace) -> dict[str, Any]:
    """Train on what the options name; returns what --json prints."""
    if (data := own.data_of(options)) is None:
        return _on_data_file(options)
    return own.train_on_folder(options, data, train, lambda part: _trainer(part, _accelerator(part)))


def _on_data_file(options: argparse.Namespace) -> dict[str, Any]:
    """Train one network on a data file; returns what --json prints."""
    if options.check or options.name == own.PACK:
        raise BadInput("training.only_folders", flag="--check" if options.check else own.PACK)
    options.out = options.out or ASSETS
    options.save_every = options.save_every or SAVE_SECONDS
    return {"figures": train(options), "out": str(options.out)}


def give_way() -> None:
    """Give this process the lowest share of the processor beside other work.

    Linux shares it among sessions first, and a process's niceness counts within its own session only. So the process gets
    a session of its own with the same niceness.
    """
    psutil.Process().nice(NICENESS if os.name != "nt" else psutil.IDLE_PRIORITY_CLASS)
    with suppress(OSError, AttributeError):  # it leads one already, or the system has none
        os.setsid()
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def train(options: argparse.Namespace) -> dict[str, float]:
    """Fit, evaluate, export; prints progress to standard error. Returns the figures.

    Stopped when `options.control` was asked to pause, or to stop: then the weights so far were exported. BadInput for
    options of other networks, and when another process trains this network with this state.
    """
    if options.background:
        give_way()
    check_writable(options.out / "a.safetensors")  # hours before it is needed
    _check_options(options)
    folder = state_folder(options)
    with held(folder) if processes.is_first() else nullcontext():
        if processes.is_first():
            remove_leftovers(folder)
        return _train(options)


def _train(options: argparse.Namespace) -> dict[str, float]:
    accelerator = _accelerator(options)
    if options.shard and accelerator.is_main_process:
        _memory_plan(options, accelerator.num_processes)
    trainer = _trainer(options, accelerator)
    device = accelerator.device
    if options.compile:
        for module in trainer.compile_targets():
            module.compile(dynamic=False)
    workers = sensible_workers(device) if options.workers is None else options.workers
    budget = Budget(options.minutes, options.steps, options.clock == "processor")
    folder, report_every = state_folder(options), 60 * options.report_every
    sample_every = 60 * options.sample_every if options.sample_every else None
    control = options.control
    if control is not None:
        control.begin_network(options.name, folder, _facts(trainer))
    training = fit(trainer, folder, budget, options.save_every, workers, report_every, sample_every)
    state = follow(training, options.name if accelerator.is_main_process else "", control)
    whole = budget.progress(state.step, state.seconds) >= 1.0  # else it was stopped, and has learned for less
    minutes = options.minutes if whole else state.seconds / 60
    figures = _finish(trainer, state, options, minutes) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if control is not None:
        control.end_network(figures)
    return figures


def state_folder(options: argparse.Namespace) -> Path:
    """Where a training keeps its state: a folder below `options.state` by the network, and by what else it learns."""
    chosen = [getattr(options, name) for name in OF_ANOTHER_TRAINING]
    others = [choice for choice in chosen if choice not in (None, *DEFAULTS)]
    return options.state / "-".join([options.name, *others])


def _check_options(options: argparse.Namespace) -> None:
    """BadInput for what this network has not."""
    for option, networks in OPTIONS.items():
        if getattr(options, option) is not None and options.name not in networks:
            raise BadInput(
                "training.no_option", option=option, networks=", ".join(networks), network=options.name
            )
    if options.start is not None and options.name not in own.CAN_START:
        raise BadInput("training.no_start", network=options.name)
    if options.size == SIZES[-1] and options.name not in LARGE:
        raise BadInput("training.size_unknown", size=options.size, known=", ".join(SIZES[:-1]))


def _memory_plan(options: argparse.Namespace, processes: int) -> dict[str, Any]:
    """Print how much memory each process of a training of the DALL·E takes; returns the plan as plain values."""
    from pipelines.training.memory import dalle_of, plan_of

    _check_options(options)
    codec = options.codec or "vqgan"
    pack = options.out if options.out and (options.out / f"{codec}.safetensors").exists() else ASSETS
    make, batch_size = dalle_of(pack, codec, options.size)
    low = (options.precision or fastest_precision(_device())) == "bf16"
    plan = plan_of(make, options.batch or batch_size, processes, bool(options.shard), low)
    for sentence in plan.sentences():
        own.say(str(sentence))
    return plan.to_json()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _accelerator(options: argparse.Namespace) -> Accelerator:
    device = _device()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 wherever it is not bfloat16 anyway
        torch.backends.cudnn.benchmark = True
    precision = options.precision or fastest_precision(device)
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # while one encodes what all learn from
    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu", kwargs_handlers=[patience])


def _trainer(options: argparse.Namespace, accelerator: Accelerator) -> Trainer:
    recipe = {"seed": options.seed, "size": options.size}
    if options.batch:
        recipe["batch_size"] = options.batch
    return TRAINERS[options.name](accelerator, options, **recipe)


def _facts(trainer: Trainer) -> dict[str, Any]:
    """What is trained, and on what."""
    return {
        "parameters": trainer.parameter_count(),
        "hardware": hardware(),
        "processes": trainer.accelerator.num_processes,
        "precision": trainer.accelerator.mixed_precision,
        "batch": trainer.samples_per_step(),
    }


def _finish(trainer: Trainer, state: State, options: argparse.Namespace, minutes: float) -> dict[str, float]:
    """Evaluate on the validation style, and export with the whole story; `minutes` are those that count as done."""
    figures = trainer.evaluate()
    facts = {
        "name": options.name,
        "size": options.size,
        **_facts(trainer),
        "steps": state.step,
        "samples": state.samples,
        "seconds": round(state.seconds),
        "data": trainer.emoji.hash,
        "seed": options.seed,
        "start": trainer.start,
        "figures": figures,
        "licence": trainer.emoji.licence
        or "MIT; trained on Apache-2.0, MIT and CC-BY-4.0 art, see assets/NOTICE",
    }
    file = trainer.file or f"{trainer.name}.safetensors"
    trainer.export(options.out / file, facts)
    own.note_part(options.out, options.name, file, facts | {"minutes": minutes}, options.codec or "")
    print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()), file=sys.stderr)
    return figures


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
