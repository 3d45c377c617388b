"""The command line: verbs, flags made from Settings fields, progress on standard error, results on standard output."""

from __future__ import annotations

import argparse
import getpass
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.arguments import Parser
from pipelines.errors import BadInput, CannotSave, Stopped

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from pipelines.core.journal import Journal
    from pipelines.core.pipeline import Pipeline, Result, Step
    from pipelines.core.record import Record
    from pipelines.studio import Studio

ROOT = Path(__file__).resolve().parents[2]
WRONG, FAILED, INTERRUPTED = 2, 1, 130  # exit codes

HELP = """\
Atelier makes pictures with the CLIP family.

  python launch.py                      open the studio in the browser
  python launch.py generate PROMPT      draw candidates with DALL·E and rank them with CLIP
  python launch.py optimize PROMPT      let CLIP's gradient grow a picture (VQGAN-CLIP)
  python launch.py edit FILE            change a picture from one text to another (DiffusionCLIP)
  python launch.py replay FILE.png      run a picture's record again and compare
  python launch.py models               the model packs: what is there, size, licence, origin
  python launch.py deploy OWNER/NAME    send this to a Hugging Face Space
  python launch.py data                 build the training data
  python launch.py train NAME           train one of the small models
  python launch.py evaluate             measure the models
  python launch.py bench NAME           measure speed
  python launch.py showcase             remake the example pictures
  python launch.py test                 run the tests

Each of them tells its flags with --help.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 when it failed, 2 for wrong input, 130 after Ctrl+C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nobody is called unless the user asks for it
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    for stream in (sys.stdout, sys.stderr):  # a prompt in Chinese must not end in a traceback on any terminal
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return _dispatch(arguments)
    except BadInput as problem:
        _say(str(problem))
        return WRONG
    except CannotSave as problem:
        _say(str(problem))
        return FAILED
    except KeyboardInterrupt:
        _say("stopped; nothing unfinished was kept")
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except SystemExit as end:  # argparse after --help
        return end.code if isinstance(end.code, int) else FAILED
    except Exception as problem:
        if os.environ.get("ATELIER_DEBUG"):
            raise
        from app.jobs.queue import explain

        _say(explain(problem).replace("the server's log says where", "set ATELIER_DEBUG=1 to see where"))
        return FAILED


def _dispatch(arguments: list[str]) -> int:
    verbs: dict[str, Callable[[list[str]], int]] = {
        "ui": _ui,
        "replay": _replay,
        "models": _elsewhere("app.cli.models"),
        "deploy": _elsewhere("app.deploy"),
        "data": _elsewhere("pipelines.training.data.emoji"),
        "train": _elsewhere("pipelines.training.cli"),
        "evaluate": _elsewhere("pipelines.evaluation.cli"),
        "bench": _elsewhere("pipelines.benchmarks.cli"),
        "showcase": _elsewhere("pipelines.evaluation.showcase"),
        "test": _test,
    }
    if arguments[:1] in (["-h"], ["--help"], ["help"]):
        print(HELP, end="")
        return 0
    if arguments[:1] == ["--version"]:
        from pipelines.core.record import VERSION

        print(f"Atelier {VERSION}")
        return 0
    if not arguments or arguments[0].startswith("-"):
        return _ui(arguments)
    verb, *rest = arguments
    if verb in verbs:
        return verbs[verb](rest)
    pipelines = _pipelines()
    if verb not in pipelines:
        raise BadInput(
            f"the command {verb[:40]!r} is not known; the commands are {', '.join([*pipelines, *verbs])}"
        )
    return _run(verb, pipelines[verb], rest)


# ---------------------------------------------------------------------------------------------- running a pipeline


def _run(name: str, kind: type[Pipeline[Any]], arguments: list[str]) -> int:
    """`generate` and every other pipeline: settings from flags, pictures with records into a folder."""
    from pipelines.core.journal import Journal
    from pipelines.core.pipeline import Resumable
    from pipelines.core.record import write_pictures

    options = _pipeline_parser(name, kind).parse_args(arguments)
    given = _settings_values(kind, options)
    resumable = issubclass(kind, Resumable)
    old = Journal(_existing(options.resume)) if resumable and options.resume else None
    settings = _resumed(kind, old, given) if old else kind.Settings.from_dict(given)
    video, frames = getattr(options, "video", None), getattr(options, "frames", None)
    if video:
        from pipelines.io.video import check_suffix

        check_suffix(video)
    keep = getattr(options, "save_direction", None)
    if keep:
        from pipelines.edit.directions import check_direction_name

        check_direction_name(keep)
        if not settings.update_count():  # type: ignore[attr-defined]
            raise BadInput(
                "there is nothing to save: only the modes quick, reusable and paper learn a direction"
            )
    folder = _folder(options.out)
    stem = f"{time.strftime('%H%M%S')}-{os.urandom(3).hex()}"
    journal = None
    if resumable and not frames:
        journal = Journal(folder / f"{stem}-run")
        if old and (steps := old.steps()):
            journal = old.fork(folder / f"{stem}-run", steps[-1])
    studio, pipeline, load_seconds = _load(name, options.pack, options.device, _use(options.use))
    if frames:
        return _restyle(name, studio, pipeline, settings, options, folder / f"{stem}-frames")
    result, interrupted = _watch(pipeline, settings, journal)
    made: list[dict[str, Any]] = []
    first: Record | None = None
    for told, record in write_pictures(folder, stem, pipeline=name, studio=studio, result=result):
        made.append(told)
        first = first or record
    if video and journal is not None:
        _write_film(video, pipeline.film(result.settings, journal))  # type: ignore[attr-defined]
    if keep and journal is not None:
        pipeline.direction(result.settings, journal).save(keep)  # type: ignore[attr-defined]
    seconds = {"load": round(load_seconds, 3), "run": round(result.seconds, 3)}
    if options.json:
        facts = {
            "pictures": made,
            "seconds": seconds,
            "record": json.loads(first.to_json()) if first else None,
        }
        if journal is not None:
            facts |= {"journal": str(journal.folder)}
        facts |= {name: value for name, value in (("video", video), ("direction", keep)) if value}
        print(json.dumps(facts, allow_nan=False))
    else:
        for one in made:
            score = "" if one["score"] is None else f"  {one['score']:.3f}"
            print(f"{one['path']}{score}  seed {one['seed']}")
        for path in filter(None, (video, keep)):
            print(path)
        _say(f"{len(made)} pictures in {seconds['run']:.1f} s, after {seconds['load']:.1f} s of loading")
    if made and (ended := made[0].get("ended")):
        _say(ended)
    if made and made[0].get("drift"):
        _say("CLIP's score rose while the critic's fell; the picture the critic likes best comes first")
    if interrupted and journal is not None:
        _say(f"stopped; go on with: python launch.py {name} --resume {journal.folder}")
    return INTERRUPTED if interrupted else 0


def _existing(folder: str) -> Path:
    path = Path(folder).expanduser()
    if not (path / "run.json").is_file():
        raise BadInput(f"there is no run in {folder[:80]}; give the folder that ends in -run")
    return path


def _resumed(kind: type[Pipeline[Any]], journal: Journal, given: dict[str, Any]) -> Any:
    """The settings of a journal's run, with what is given anew changed from its last snapshot on."""
    settings = kind.Settings.from_dict((journal.identity() or {}).get("settings", {}))
    steps = journal.steps()
    if not given:
        return settings
    if not steps:
        return kind.Settings.from_dict(settings.to_dict() | given)
    return settings.changed(steps[-1], **given)  # type: ignore[attr-defined]


def _restyle(
    name: str, studio: Studio, pipeline: Any, settings: Any, options: argparse.Namespace, folder: Path
) -> int:
    """One run for every frame of a folder or a film, each beginning with the result of the one before."""
    from pipelines.core.record import write_pictures
    from pipelines.io.video import Frame, read_frames
    from pipelines.optimize.timelapse import restyle

    frames, before, made = read_frames(options.frames), None, []
    for number, frame in enumerate(frames, start=1):
        _say(f"frame {number}")
        if made and frame.size != made[0].size:
            frame = frame.resize(made[0].size)
        result, interrupted = _watch(pipeline, restyle(settings, frame, before), None)
        before = max(
            result.pictures, key=lambda one: one.facts["step"]
        )  # the last: its neighbours are like it
        result = replace(result, pictures=[before])
        for told, _ in write_pictures(folder, f"{number:05}", pipeline=name, studio=studio, result=result):
            print(told["path"], file=sys.stderr if options.json else sys.stdout)
        made.append(before.image)
        if interrupted:
            return INTERRUPTED
    if options.video:
        from pipelines.optimize.pipeline import Film

        _write_film(options.video, Film(iter(Frame(one) for one in made), len(made), [settings.prompt]))
    if options.json:
        print(json.dumps({"frames": len(made), "folder": str(folder), "video": options.video}))
    return 0


def _write_film(path: str, film: Any) -> None:
    from pipelines.io.video import write_film

    write_film(path, film.frames, film.count, scenes=film.scenes)


def _pipeline_parser(name: str, kind: type[Pipeline[Any]]) -> Parser:
    """The flags of a pipeline: one for each field of its Settings, and those that all pipelines share."""
    from pipelines.core.pipeline import Resumable

    resumable = issubclass(kind, Resumable)
    words = (kind.__doc__ or "").strip().split("\n\n")[0]
    parser = Parser(prog=f"launch.py {name}", description=" ".join(words.split()))
    for one in kind.Settings.knobs():
        text = one.help.replace("%", "%%") + one.range_text()
        flag = "--" + (one.flag or one.name).replace("_", "-")
        if one.name == kind.Settings.subject:
            many = "*" if resumable else "+"
            metavar = "FILE" if one.kind == "picture" else one.name.upper()
            parser.add_argument(
                one.name, nargs="?" if one.kind == "picture" else many, metavar=metavar, help=text
            )
        elif one.type is bool:
            parser.add_argument(
                flag, dest=one.name, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        else:
            metavar = "FILE" if one.kind == "picture" else {int: "N", float: "X"}.get(one.type, "TEXT")
            parser.add_argument(flag, dest=one.name, metavar=metavar, help=text)
    if resumable:
        parser.add_argument(
            "--resume", metavar="DIR", help="go on with a run; other flags change it from there on"
        )
    if hasattr(kind, "film"):
        parser.add_argument("--video", metavar="FILE", help="also write how it grew, as .mp4 or .webp")
        parser.add_argument("--frames", metavar="FILE", help="restyle a folder of pictures or a short film")
    if hasattr(kind, "direction"):
        parser.add_argument(
            "--save-direction", metavar="FILE", help="also keep what was learned, as .safetensors"
        )
    _shared_flags(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output at the end"
    )
    return parser


def _shared_flags(parser: Parser) -> None:
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the pictures (default: ATELIER_OUTPUTS or outputs/, and the date)",
    )
    _model_flags(parser)


def _model_flags(parser: Parser) -> None:
    parser.add_argument("--pack", default="tiny", metavar="NAME", help="model pack (default: tiny)")
    parser.add_argument(
        "--use",
        action="append",
        default=[],
        metavar="PART=MODEL",
        help="another model for a part of the pack, for example clip=clip-vit-l-14; may be given again",
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda or mps (default: the best one)"
    )


def _use(pairs: list[str]) -> dict[str, str]:
    """["clip=clip-vit-l-14"] -> {"clip": "clip-vit-l-14"}."""
    for one in pairs:
        if not all(one.partition("=")):
            raise BadInput(f"--use {one[:60]!r} is not PART=MODEL; try --use clip=clip-vit-l-14")
    return {part: name for part, _, name in (one.partition("=") for one in pairs)}


def _settings_values(kind: type[Pipeline[Any]], options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, in their types where they can be read so; Settings itself checks them."""
    values: dict[str, Any] = {}
    for one in kind.Settings.knobs():
        value = getattr(options, one.name)
        if value is None:
            continue
        if isinstance(value, list):  # the words of a prompt
            if not value and getattr(options, "resume", None):
                continue
            value = " ".join(value)
        elif one.type in (int, float):
            value = _number(value)
        values[one.name] = value
    return values


def _number(text: str) -> int | float | str:
    """The number that a text spells, or the text, for Settings to complain about."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _folder(out: str | None) -> Path:
    """Where pictures go. BadInput at once, before anything is computed, when it cannot be a folder."""
    folder = Path(out).expanduser().absolute() if out else _outputs() / time.strftime("%Y-%m-%d")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise BadInput(
            f"the folder {str(folder)[:80]} cannot be made ({reason}); choose another --out"
        ) from None
    if not os.access(folder, os.W_OK):
        raise BadInput(f"the folder {str(folder)[:80]} may not be written; choose another --out")
    return folder


def _outputs() -> Path:
    """Where pictures go by themselves: the folder that ATELIER_OUTPUTS names, else outputs/ beside the program."""
    given = os.environ.get("ATELIER_OUTPUTS")
    return Path(given).expanduser().absolute() if given else ROOT / "outputs"


def _load(name: str, pack: str, device: str, use: dict[str, str]) -> tuple[Studio, Pipeline[Any], float]:
    """The studio, the pipeline with its models, and the seconds that took. Tells large needs before loading."""
    from pipelines.studio import Studio, memory_needed

    begun = time.perf_counter()
    with redirect_stdout(sys.stderr):
        studio = Studio(pack=pack, device=device, use=use)
        if memory := memory_needed(pack, name, use):
            _say(f"loading {name} of the pack {pack}, which needs about {memory / 1e9:.1f} GB of memory")
        pipeline = studio.pipeline(name)
    return studio, pipeline, time.perf_counter() - begun


def _watch(pipeline: Pipeline[Any], settings: Any, journal: Journal | None = None) -> tuple[Result, bool]:
    """Run to the end, showing progress. Ctrl+C ends the run with what there is, or goes on up when it keeps nothing."""
    from pipelines.core.pipeline import Result, Resumable, run

    line = _ProgressLine()
    events = run(pipeline, settings, journal)
    pressed = _Interrupts() if isinstance(pipeline, Resumable) else None
    try:
        with redirect_stdout(sys.stderr):  # standard output is for the result alone
            for event in events:
                if isinstance(event, Result):
                    return event, False
                line.show(event)
                if pressed and pressed.count:
                    kept = events.throw(Stopped())
                    assert isinstance(kept, Result)
                    return kept, True
    except Stopped:  # too early to keep anything
        raise KeyboardInterrupt from None
    finally:
        line.end()
        events.close()
        if pressed:
            pressed.close()
    raise AssertionError("a run ends with a Result")


class _Interrupts:
    """Counts Ctrl+C until closed; the second one is no longer held back."""

    def __init__(self) -> None:
        self.count = 0
        self._before = signal.signal(signal.SIGINT, self._note)

    def _note(self, *_: Any) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt

    def close(self) -> None:
        signal.signal(signal.SIGINT, self._before)


class _ProgressLine:
    """Progress on standard error: one line redrawn on a terminal, a few lines elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.stage = ""
        self.begun = self.shown = 0.0

    def show(self, step: Step) -> None:
        now = time.monotonic()
        new = step.stage != self.stage
        if new:
            self.end()
            self.stage, self.begun = step.stage, now
        last = step.done >= step.total
        if not new and not last and now - self.shown < (0.1 if self.live else 5.0):
            return
        if not self.live and new and not last:
            return  # elsewhere a stage is told when it ends, or every five seconds
        self.shown = now
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in list(step.metrics.items())[:4])
        left = (step.total - step.done) * (now - self.begun) / max(step.done, 1)
        ending = f"{now - self.begun:.1f} s" if last else f"{left:.0f} s left" if now > self.begun else ""
        if self.live:
            full = 24 * step.done // max(step.total, 1)
            bar = "━" * full + "·" * (24 - full)
            text = f"{step.stage:<10} {bar} {step.done}/{step.total}  {ending}  {numbers}"
            sys.stderr.write("\r\x1b[K" + text[: _terminal_width() - 1])
        else:
            sys.stderr.write(f"{step.stage} {step.done}/{step.total}  {ending}  {numbers}".rstrip() + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self.live and self.stage:
            sys.stderr.write("\n")
            sys.stderr.flush()


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


# ---------------------------------------------------------------------------------------------------- other verbs


def _replay(arguments: list[str]) -> int:
    """Run a picture's record again. Exit code 0 when every pixel is the same, 1 when not."""
    parser = Parser(
        prog="launch.py replay", description="Run a picture's record again and compare the pixels."
    )
    parser.add_argument("file", metavar="FILE.png", help="a picture that Atelier made")
    parser.add_argument("--out", metavar="DIR", help="also save the new picture in this folder")
    parser.add_argument("--pack", metavar="NAME", help="model pack (default: the record's own)")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda or mps (default: the best one)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output at the end"
    )
    options = parser.parse_args(arguments)

    from pipelines.core.record import check_complete, compare, read_record, record_of, write_png
    from pipelines.io.images import open_picture
    from pipelines.weights.catalog import is_known

    pipelines = _pipelines()
    old = read_record(options.file, pipelines)
    check_complete(old)
    image = open_picture(options.file)
    settings = pipelines[old.pipeline].Settings.from_dict(old.settings)
    folder = _folder(options.out) if options.out else None
    names = {part: fact["name"] for part, fact in old.models.items()}
    made_with = {} if options.pack else {part: name for part, name in names.items() if is_known(name)}
    studio, pipeline, _ = _load(old.pipeline, options.pack or old.pack, options.device, made_with)
    result, _ = _watch(pipeline, settings)
    rank, picture = _same_picture(result, old)
    new = record_of(
        pipeline=old.pipeline,
        pack=studio.pack,
        device=studio.device,
        models=studio.models(old.pipeline),
        settings=result.settings,
        picture=picture,
        rank=rank,
    )
    verdict = compare(image, picture.image, old, new)
    path = None
    if folder:
        path = folder / f"{Path(options.file).stem}-replay.png"
        write_png(path, picture.image, new)
    if options.json:
        facts = {
            "identical": verdict.identical,
            "largest_difference": verdict.largest,
            "share": verdict.share,
        }
        facts |= {"environment": verdict.environment, "path": str(path) if path else None}
        print(json.dumps(facts | {"record": json.loads(new.to_json())}, allow_nan=False))
    else:
        print(verdict.sentence())
    return 0 if verdict.identical else FAILED


def _same_picture(result: Result, record: Record) -> tuple[int, Any]:
    """Of a replayed run the picture that a record is about, by its seed, and its rank now."""
    ranked = list(enumerate(result.pictures, start=1))
    same = [one for one in ranked if one[1].seed == record.picture["seed"]]
    if len(same) == 1:
        return same[0]
    place = min(record.picture["rank"], len(ranked)) - 1
    if place < 0:
        raise BadInput("the run gave no picture to compare with")
    return ranked[place]


def _ui(arguments: list[str]) -> int:
    """Serve the page until Ctrl+C, on this machine unless other hosts are asked for."""
    from app.serving import PORT, add_flags, check_free, serving_of

    parser = Parser(prog="launch.py ui", description="Open the studio in the browser.")
    add_flags(parser)
    parser.add_argument("--no-browser", action="store_true", help="only serve, open no browser")
    parser.add_argument(
        "--mcp",
        action="store_true",
        default=os.environ.get("GRADIO_MCP_SERVER", "").lower() == "true",
        help="also serve the tools to agents, by the Model Context Protocol (default: what GRADIO_MCP_SERVER says)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for pictures and jobs (default: ATELIER_OUTPUTS or outputs/)"
    )
    _model_flags(parser)
    options = parser.parse_args(arguments)
    serving = serving_of(
        host=options.host,
        port=options.port,
        allow_host=options.allow_host,
        password=_password(options.password),
        open_to_all=options.open_to_all,
        root_path=options.root_path,
        shared_library=options.shared_library,
        environment=os.environ,
    )
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH"):  # they have been read
        os.environ.pop(name, None)
    check_free(serving.host, serving.port or PORT)

    from app.ui import serve

    folder = _folder(options.out) if options.out else _outputs()
    return serve(
        pack=options.pack,
        device=options.device,
        use=_use(options.use),
        folder=folder,
        serving=serving,
        open_browser=not options.no_browser,
        mcp=options.mcp,
    )


def _password(given: str | None) -> str | None:
    """The password of --password or of the environment; asked for in the terminal when the flag stands alone."""
    if given is None:
        return os.environ.get("ATELIER_PASSWORD") or None
    if not given:
        try:
            given = getpass.getpass("password for the studio's visitors: ")
        except EOFError:
            given = ""
    if not given:
        raise BadInput("the password is empty; give one after --password")
    return given


def _elsewhere(module: str) -> Callable[[list[str]], int]:
    """A verb that has its own file: `main(arguments)` there, imported when it is asked for."""

    def verb(arguments: list[str]) -> int:
        return importlib.import_module(module).main(arguments)

    return verb


def _test(arguments: list[str]) -> int:
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment)


# -------------------------------------------------------------------------------------------------------- helpers


def _pipelines() -> dict[str, type[Pipeline[Any]]]:
    from pipelines.studio import PIPELINES

    return PIPELINES


def _say(text: str) -> None:
    print(f"atelier: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
