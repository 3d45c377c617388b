"""`python launch.py train NAME`: one command per network, to a time budget, resumable.

On several processes: `torchrun --nproc-per-node N -m pipelines.training.cli NAME ...`, with the same flags.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from pipelines.core.arguments import Parser, number
from pipelines.core.explain import explain
from pipelines.core.pipeline import Step
from pipelines.errors import BadInput, CannotSave, Message, Stopped
from pipelines.io.files import check_writable
from pipelines.training.batches import sensible_workers
from pipelines.training.control import Control
from pipelines.training.data.dataset import DATA_FILE, Dataset
from pipelines.training.loop import Budget, fit
from pipelines.training.report import fastest_precision, hardware
from pipelines.training.state import State
from pipelines.training.trainer import Trainer

ASSETS = Path(__file__).parents[2] / "assets" / "tiny"
SIZES = ("tiny", "small", "base")
CODECS = ("vqgan", "vqvae", "dvae")
CONDITIONS, TEXT_KINDS = ("none", "class", "text"), ("transformer", "bag", "cbow")
OPTIONS = {  # flags of some networks only
    "codec": ("dalle", "transformer"),
    "condition": ("transformer",),
    **dict.fromkeys(("text", "loss", "chunk"), ("clip", "critic")),
}
NICENESS = 15  # of a training in the background


def clip_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """CLIP and its critic; the tokenizer is made on the first training and kept."""
    from pipelines.models.clip.tokenizer import Tokenizer
    from pipelines.training.clip.trainer import ClipTrainer, CriticTrainer
    from pipelines.training.clip.vocabulary import caption_words, train_tokenizer

    emoji, path = Dataset(options.data), options.out / "tokenizer.json"
    with accelerator.main_process_first():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name("words.txt").write_text("\n".join(caption_words(emoji)), "utf-8")
            path.write_text(train_tokenizer(emoji).vocabulary.to_str(), "utf-8")
    trainer = {"clip": ClipTrainer, "critic": CriticTrainer}[options.name]
    recipe |= {"start": options.start, "chunk": options.chunk} | _drawn_pictures(accelerator, options, emoji)
    recipe |= {"text_kind": options.text} if options.text else {}
    recipe |= {"sigmoid": True} if options.loss == "sigmoid" else {}
    return trainer(accelerator, emoji, Tokenizer.load(path), options.state / "clip", **recipe)


def _drawn_pictures(accelerator: Accelerator, options: argparse.Namespace, emoji: Dataset) -> dict[str, Any]:
    """What the pack in `out` draws, for a CLIP to learn to read: `codec` and `redrawn` of its trainer."""
    from pipelines.training.clip.redrawn import RedrawnIcons

    codec = options.out / "codec.safetensors"
    if not codec.exists():
        return {}
    if not (options.out / "prior.safetensors").exists():
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
    """More training for the text tower of the CLIP in `out`; its pictures' vectors stay the same."""
    from pipelines.models.clip.tokenizer import Tokenizer
    from pipelines.training.clip.text import TextTrainer

    book = Tokenizer.load(options.out / "tokenizer.json")
    folder = options.state / "clip"
    return TextTrainer(accelerator, Dataset(options.data), book, folder, pack=options.out, **recipe)


def vqgan_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The DALL·E's VQGAN, or the codec, with perceptual features from the CLIP in `out` when there is one."""
    from pipelines.training.vqgan import CodecTrainer, VqganTrainer

    trainer = {"vqgan": VqganTrainer, "codec": CodecTrainer}[options.name]
    return trainer(accelerator, Dataset(options.data), options.out, start=options.start, **recipe)


def vqvae_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """A VQ-VAE of as many tokens as the VQGAN."""
    from pipelines.training.vqvae import VqvaeTrainer

    return VqvaeTrainer(accelerator, Dataset(options.data), **recipe)


def dvae_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """A dVAE of as many tokens as the VQGAN."""
    from pipelines.training.dvae import DvaeTrainer

    return DvaeTrainer(accelerator, Dataset(options.data), **recipe)


def decoder_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """More training for the decoder of the codec in `out`; its latents stay the same."""
    from pipelines.training.vqgan import DecoderTrainer

    return DecoderTrainer(accelerator, Dataset(options.data), options.out, **recipe)


def dalle_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """DALL·E over the tokens of a codec in `out`."""
    from pipelines.training.dalle import DalleTrainer

    recipe |= {"codec": options.codec or "vqgan"}
    return DalleTrainer(accelerator, Dataset(options.data), options.out, options.state / "dalle", **recipe)


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


TRAINERS: dict[str, Callable[..., Trainer]] = {
    "clip": clip_trainer,
    "critic": clip_trainer,
    "image": image_trainer,
    "text": text_trainer,
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
}


def main(argv: list[str]) -> int:
    """Train one network, or a queue of them; returns the exit code."""
    try:
        if argv[:1] == ["queue"]:
            from pipelines.training.queue import main as queue

            return queue(argv[1:], TRAINERS)
        options = _parser().parse_args(argv)
        if options.control is None:
            train(options)
        else:
            _train_watched(options, Control(options.control))
    except (BadInput, CannotSave, FileNotFoundError, ArithmeticError) as error:
        print(f"atelier: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="launch.py train",
        description="Train one of the small networks. The same command again goes on where it stopped. "
        "`train queue FILE` runs a list of trainings: see train queue --help.",
    )
    add = parser.add_argument
    add("name", choices=sorted(TRAINERS))
    add(
        "--size", choices=SIZES, default="tiny", help="tiny is what the pack ships; small and base want a GPU"
    )
    add("--minutes", type=number(float, 0.01, 100_000), default=20.0, help="time budget (default 20)")
    add(
        "--steps",
        type=number(int, 1, 10**9),
        help="a budget in steps instead; then a resumed run repeats exactly",
    )
    add(
        "--batch",
        type=number(int, 1, 65_536),
        help="samples a step in each process (default: the size's own)",
    )
    add("--seed", type=number(int, 0, 2**32 - 1), default=0)
    add("--data", type=Path, default=DATA_FILE, help=f"made by launch.py data (default {DATA_FILE})")
    add("--state", type=Path, default=Path("runs"), help="where trainings keep their state (runs)")
    add("--out", type=Path, default=ASSETS, help="where the finished weights go (assets/tiny)")
    add(
        "--start",
        type=Path,
        help="clip, critic, vqgan, codec and prior: an earlier checkpoint, of which the tensors that fit are taken",
    )
    add("--codec", choices=CODECS, help="dalle and transformer: whose tokens are learned (default vqgan)")
    add("--condition", choices=CONDITIONS, help="transformer: what it is told (default none)")
    add("--text", choices=TEXT_KINDS, help="clip and critic: the text tower (default transformer)")
    add(
        "--loss",
        choices=("softmax", "sigmoid"),
        help="clip and critic: sigmoid is SigLIP's (default softmax)",
    )
    add(
        "--chunk",
        type=number(int, 1, 65_536),
        help="clip and critic: pictures encoded at once, for batches larger than memory; the gradients stay those of "
        "the batch (default: all)",
    )
    add("--save-every", type=number(float, 1, 100_000), default=300.0, help="seconds (default 300)")
    add(
        "--report-every",
        type=number(float, 0.1, 100_000),
        default=20.0,
        help="minutes between two lines of figures, sheets and kept states (default 20)",
    )
    add(
        "--sample-every",
        type=number(float, 0.01, 100_000),
        help="minutes between two sheets that are drawn in between; few of them are kept (default: none are drawn)",
    )
    add(
        "--control",
        type=Path,
        help="a folder where it tells how it stands and looks whether to wait, pause or stop; for one process",
    )
    add(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="what minutes are: of the clock, or of computing, which waits do not shorten (default wall)",
    )
    add(
        "--workers",
        type=number(int, 0, 256),
        help="processes that prepare batches ahead (default: none beside a CPU, most cores beside a GPU)",
    )
    add(
        "--precision",
        choices=("no", "bf16"),
        help="mixed precision (default: bf16 on a GPU, on a CPU whichever is faster)",
    )
    add(
        "--compile", action="store_true", help="compile the networks first; pays on a GPU after a few minutes"
    )
    add("--background", action="store_true", help="give way to other work on this machine")
    return parser


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


def _train_watched(options: argparse.Namespace, control: Control) -> None:
    """`train`, which writes to `control` how it ended: done, kept, paused, or failed and why."""
    with control.held():
        try:
            train(options, control)
        except (Exception, KeyboardInterrupt) as error:
            sentence = isinstance(error, (FileNotFoundError, ArithmeticError)) and str(error)
            problem = Message(sentence) if sentence else explain(error)
            control.end("failed", problem=problem.to_json())
            raise


def train(options: argparse.Namespace, control: Control | None = None) -> dict[str, float]:
    """Fit, evaluate, export; prints progress to standard error. Returns the figures, {} where `control` paused it."""
    if options.background:
        give_way()
    check_writable(options.out / "a.safetensors")  # hours before it is needed
    for option, networks in OPTIONS.items():
        if getattr(options, option) is not None and options.name not in networks:
            raise BadInput(
                "training.no_option", option=option, networks=", ".join(networks), network=options.name
            )
    if options.start is not None and options.name not in ("clip", "critic", "vqgan", "codec", "prior"):
        raise BadInput("training.no_start", network=options.name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 wherever it is not bfloat16 anyway
        torch.backends.cudnn.benchmark = True
    precision = options.precision or fastest_precision(device)
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # while one encodes what all learn from
    accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu", kwargs_handlers=[patience])
    recipe = {"seed": options.seed, "size": options.size}
    if options.batch:
        recipe["batch_size"] = options.batch
    trainer = TRAINERS[options.name](accelerator, options, **recipe)
    if options.compile:
        for module in trainer.compile_targets():
            module.compile(dynamic=False)
    workers = sensible_workers(device) if options.workers is None else options.workers
    budget = Budget(options.minutes, options.steps, options.clock == "processor")
    folder, report_every = options.state / options.name, 60 * options.report_every
    sample_every = 60 * options.sample_every if options.sample_every else None
    if control is not None:
        control.add({"facts": {**_facts(trainer), "steps": options.steps}})
    state, asked = _watch(
        fit(trainer, folder, budget, options.save_every, workers, report_every, sample_every),
        options.name if accelerator.is_main_process else "",
        control,
    )
    if control is not None:
        if asked == "pause":
            control.end("paused", step=state.step, seconds=round(state.seconds))
            return {}
        control.add({"stage": "finishing"})
    figures = _finish(trainer, state, options) if accelerator.is_main_process else {}
    if control is not None:
        facts = {"step": state.step, "seconds": round(state.seconds), "figures": figures}
        control.end("kept" if asked else "done", **facts)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return figures


def _watch(
    training: Generator[Step, None, State], name: str, control: Control | None = None
) -> tuple[State, str]:
    """Run a training to its end, telling how it goes unless `name` is empty. Its state, and what ended it early."""
    asked = ""
    while True:
        try:
            step = training.throw(Stopped()) if asked else next(training)
        except StopIteration as end:
            return end.value, asked
        if control is not None:
            control.tell(step)
            asked = control.wait()
        if name and (step.done % 25 == 0 or step.done == step.total):
            words = "  ".join(f"{key} {value:.4g}" for key, value in step.metrics.items())
            print(f"{name} step {step.done:,} of about {step.total:,}  {words}", file=sys.stderr, flush=True)


def _facts(trainer: Trainer) -> dict[str, Any]:
    """What is trained, and on what."""
    return {
        "parameters": trainer.parameter_count(),
        "hardware": hardware(),
        "processes": trainer.accelerator.num_processes,
        "precision": trainer.accelerator.mixed_precision,
        "batch": trainer.samples_per_step(),
    }


def _finish(trainer: Trainer, state: State, options: argparse.Namespace) -> dict[str, float]:
    """Evaluate on the validation style, and export with the whole story."""
    figures = trainer.evaluate()
    facts = {
        "name": options.name,
        "size": options.size,
        **_facts(trainer),
        "steps": state.step,
        "samples": state.step * trainer.samples_per_step(),
        "seconds": round(state.seconds),
        "data": trainer.emoji.hash,
        "seed": options.seed,
        "start": trainer.start,
        "figures": figures,
        "licence": "MIT; trained on Apache-2.0, MIT and CC-BY-4.0 art, see assets/NOTICE",
    }
    trainer.export(options.out / (trainer.file or f"{trainer.name}.safetensors"), facts)
    print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()), file=sys.stderr)
    return figures


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
