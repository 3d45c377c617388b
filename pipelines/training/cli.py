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
from pipelines.core.pipeline import Step
from pipelines.errors import BadInput
from pipelines.io.files import check_writable
from pipelines.training.batches import sensible_workers
from pipelines.training.data.emoji import DATA_FILE, Emoji
from pipelines.training.loop import Budget, fit
from pipelines.training.report import fastest_precision, hardware
from pipelines.training.state import State
from pipelines.training.trainer import Trainer

ASSETS = Path(__file__).parents[2] / "assets" / "tiny"
SIZES = ("tiny", "small", "base")
STARTED = (
    "clip",
    "critic",
    "vqgan",
    "codec",
    "prior",
    "matting",
)  # which may begin with an earlier checkpoint
NICENESS = 15  # of a training in the background


def clip_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """CLIP and its critic; the tokenizer is made on the first training and kept."""
    from pipelines.models.clip.tokenizer import Tokenizer
    from pipelines.training.clip.trainer import ClipTrainer, CriticTrainer
    from pipelines.training.clip.vocabulary import caption_words, train_tokenizer

    emoji, path = Emoji(options.data), options.out / "tokenizer.json"
    with accelerator.main_process_first():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name("words.txt").write_text("\n".join(caption_words(emoji)), "utf-8")
            path.write_text(train_tokenizer(emoji).vocabulary.to_str(), "utf-8")
    trainer = {"clip": ClipTrainer, "critic": CriticTrainer}[options.name]
    recipe |= {"start": options.start} | _drawn_pictures(accelerator, options, emoji)
    return trainer(accelerator, emoji, Tokenizer.load(path), options.state / "clip", **recipe)


def _drawn_pictures(accelerator: Accelerator, options: argparse.Namespace, emoji: Emoji) -> dict[str, Any]:
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

    book, emoji = Tokenizer.load(options.out / "tokenizer.json"), Emoji(options.data)
    recipe |= _drawn_pictures(accelerator, options, emoji)
    return ImageTrainer(accelerator, emoji, book, options.state / "clip", pack=options.out, **recipe)


def text_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """More training for the text tower of the CLIP in `out`; its pictures' vectors stay the same."""
    from pipelines.models.clip.tokenizer import Tokenizer
    from pipelines.training.clip.text import TextTrainer

    book = Tokenizer.load(options.out / "tokenizer.json")
    folder = options.state / "clip"
    return TextTrainer(accelerator, Emoji(options.data), book, folder, pack=options.out, **recipe)


def vqgan_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The DALL·E's VQGAN, or the codec, with perceptual features from the CLIP in `out` when there is one."""
    from pipelines.training.vqgan import CodecTrainer, VqganTrainer

    trainer = {"vqgan": VqganTrainer, "codec": CodecTrainer}[options.name]
    return trainer(accelerator, Emoji(options.data), options.out, start=options.start, **recipe)


def decoder_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """More training for the decoder of the codec in `out`; its latents stay the same."""
    from pipelines.training.vqgan import DecoderTrainer

    return DecoderTrainer(accelerator, Emoji(options.data), options.out, **recipe)


def dalle_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """DALL·E over the tokens of the VQGAN in `out`."""
    from pipelines.training.dalle import DalleTrainer

    return DalleTrainer(accelerator, Emoji(options.data), options.out, options.state / "dalle", **recipe)


def semantic_dalle_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """DALL·E with semantic tokens, over the tokens of the VQGAN in `out`, under the texts of its CLIP."""
    from pipelines.training.dalle_semantic import SemanticDalleTrainer

    folder = options.state / "dalle-semantic"
    return SemanticDalleTrainer(accelerator, Emoji(options.data), options.out, folder, **recipe)


def prior_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The latent prior over the latents of the codec in `out`, under the texts of its CLIP."""
    from pipelines.training.prior import PriorTrainer

    folder = options.state / "prior"
    return PriorTrainer(accelerator, Emoji(options.data), options.out, folder, start=options.start, **recipe)


def judge_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The network that figures are taken by."""
    from pipelines.training.judge import JudgeTrainer

    return JudgeTrainer(accelerator, Emoji(options.data), **recipe)


def unet_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The diffusion model that edits start from."""
    from pipelines.training.unet import UnetTrainer

    emoji = Emoji(options.data, UnetTrainer.SIZES[options.size]["image_size"])
    return UnetTrainer(accelerator, emoji, **recipe)


def matting_trainer(accelerator: Accelerator, options: argparse.Namespace, **recipe: Any) -> Trainer:
    """The network that cuts things out, also of pictures that the codec in `out` has drawn."""
    from pipelines.training.matting import MattingTrainer

    folder = options.state / "matting"
    recipe |= {"start": options.start}
    return MattingTrainer(accelerator, Emoji(options.data), options.out, folder, **recipe)


TRAINERS: dict[str, Callable[..., Trainer]] = {
    "clip": clip_trainer,
    "critic": clip_trainer,
    "image": image_trainer,
    "text": text_trainer,
    "vqgan": vqgan_trainer,
    "codec": vqgan_trainer,
    "decoder": decoder_trainer,
    "dalle": dalle_trainer,
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
        train(_parser().parse_args(argv))
    except (BadInput, FileNotFoundError, ArithmeticError) as error:
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
        help=f"an earlier checkpoint, of which the tensors that fit are taken, for {', '.join(STARTED)}",
    )
    add("--save-every", type=number(float, 1, 100_000), default=300.0, help="seconds (default 300)")
    add(
        "--report-every",
        type=number(float, 0.1, 100_000),
        default=20.0,
        help="minutes between two lines of figures, sheets and kept states (default 20)",
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


def train(options: argparse.Namespace) -> dict[str, float]:
    """Fit, evaluate, export; prints progress to standard error. Returns the figures."""
    if options.background:
        give_way()
    check_writable(options.out / "a.safetensors")  # hours before it is needed
    if options.start is not None and options.name not in STARTED:
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
    state = _watch(
        fit(trainer, folder, budget, options.save_every, workers, report_every),
        options.name if accelerator.is_main_process else "",
    )
    figures = _finish(trainer, state, options) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return figures


def _watch(training: Generator[Step, None, State], name: str) -> State:
    """Run a training to its end, telling how it goes unless `name` is empty."""
    while True:
        try:
            step = next(training)
        except StopIteration as end:
            return end.value
        if name and (step.done % 25 == 0 or step.done == step.total):
            words = "  ".join(f"{key} {value:.4g}" for key, value in step.metrics.items())
            print(f"{name} step {step.done:,} of about {step.total:,}  {words}", file=sys.stderr, flush=True)


def _finish(trainer: Trainer, state: State, options: argparse.Namespace) -> dict[str, float]:
    """Evaluate on the validation style, and export with the whole story."""
    figures = trainer.evaluate()
    facts = {
        "name": options.name,
        "size": options.size,
        "parameters": trainer.parameter_count(),
        "steps": state.step,
        "samples": state.step * trainer.samples_per_step(),
        "seconds": round(state.seconds),
        "hardware": hardware(),
        "processes": trainer.accelerator.num_processes,
        "precision": trainer.accelerator.mixed_precision,
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
