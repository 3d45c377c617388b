"""Running one pipeline from the command line: loading, progress, Ctrl+C, files, and what is told at the end."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.flags import parts_in_use, pipeline_parser, settings_of_file, settings_values, takes_several
from app.cli.progress import INTERRUPTED, Interrupts, ProgressLine, say
from pipelines.errors import BadInput, Stopped, reason_of
from pipelines.io.files import check_writable, home_path, path_to_write

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from pipelines.core.journal import Journal
    from pipelines.core.pipeline import Pipeline, Result, Step
    from pipelines.core.record import Record
    from pipelines.io.video import Timelapse
    from pipelines.studio import Studio

ROOT = Path(__file__).resolve().parents[2]


def run_pipeline(name: str, kind: type[Pipeline[Any]], arguments: list[str]) -> int:
    """`generate` and every other pipeline: settings from flags, pictures with records into a folder."""
    from pipelines.core.journal import Journal
    from pipelines.core.pipeline import HasTimelapse, LearnsDirection, Resumable
    from pipelines.core.record import write_pictures

    options = pipeline_parser(name, kind).parse_args(arguments)
    if takes_several(kind) and len(prompts := _prompts(options)) != 1:
        return _run_several(name, kind, prompts, options)
    settings, old = _begin(kind, options)
    video, frames = getattr(options, "video", None), getattr(options, "frames", None)
    keep = getattr(options, "save_direction", None)
    folder = picture_folder(options.out)
    stem = f"{time.strftime('%H%M%S')}-{os.urandom(3).hex()}"
    journal = None
    if issubclass(kind, Resumable) and not (frames or settings.x or settings.y):
        journal = Journal(folder / f"{stem}-run")
        if old and (steps := old.steps()):
            journal = old.fork(folder / f"{stem}-run", steps[-1])
    studio, pipeline, load_seconds = load(name, options.pack, options.device, parts_in_use(options.use))
    if frames:
        return _restyle(name, studio, pipeline, settings, options, folder / f"{stem}-frames")
    result, interrupted = watch(pipeline, settings, journal)
    made: list[dict[str, Any]] = []
    first: Record | None = None
    for facts, record in write_pictures(folder, stem, pipeline=name, studio=studio, result=result):
        made.append(facts)
        first = first or record
    if video and journal is not None and isinstance(pipeline, HasTimelapse):
        _write_film(video, pipeline.timelapse(result.settings, journal))
    if keep and journal is not None and isinstance(pipeline, LearnsDirection):
        pipeline.direction(result.settings, journal).save(keep)
    seconds = {"load": round(load_seconds, 3), "run": round(result.seconds, 3)}
    _finish(options, made, first, journal, seconds)
    if interrupted and journal is not None:
        say(f"stopped; go on with: python launch.py {name} --resume {journal.folder}")
    return INTERRUPTED if interrupted else 0


def _prompts(options: argparse.Namespace) -> list[str]:
    """The prompts of the command line and of its file. BadInput when there is none and one is needed."""
    from pipelines.core.several import prompts_in

    text = " ".join(options.prompt)
    found = prompts_in(f"{text}\n{_prompts_of_file(options.prompts)}" if options.prompts else text)
    prompts = found or ([""] if getattr(options, "prior", None) else [])
    if not prompts:
        raise BadInput("settings.prompt_empty")
    options.prompt = prompts[:1]
    return prompts


def _prompts_of_file(path: str) -> str:
    """The text of a file of prompts, or the prompt of a run that another program wrote into it."""
    from app.library import foreign_of_text
    from pipelines.core.several import read_prompts

    found = foreign_of_text(path)
    if found is None:
        return read_prompts(path)
    whose = "another program" if found.tool == "other" else found.tool
    say(f"{path} is of {whose}; its prompt is drawn, its other settings are left out")
    return " ".join(found.prompt.split())


def _run_several(
    name: str, kind: type[Pipeline[Any]], prompts: list[str], options: argparse.Namespace
) -> int:
    """One run for each prompt, with the same other settings; what is made stays when a later one is interrupted."""
    from pipelines.core.record import write_pictures

    runs: list[Any] = []
    for prompt in prompts:
        options.prompt = [prompt]
        runs.append(_begin(kind, options)[0])
    folder = picture_folder(options.out)
    studio, pipeline, load_seconds = load(name, options.pack, options.device, parts_in_use(options.use))
    made: list[dict[str, Any]] = []
    first: Record | None = None
    seconds = {"load": round(load_seconds, 3), "run": 0.0}
    for settings in runs:
        say(settings.prompt)
        result, _ = watch(pipeline, settings)
        stem = f"{time.strftime('%H%M%S')}-{os.urandom(3).hex()}"
        for facts, record in write_pictures(folder, stem, pipeline=name, studio=studio, result=result):
            made.append({**facts, "prompt": settings.prompt})
            first = first or record
        seconds["run"] = round(seconds["run"] + result.seconds, 3)
    _finish(options, made, first, None, seconds)
    return 0


def _begin(kind: type[Pipeline[Any]], options: argparse.Namespace) -> tuple[Any, Journal | None]:
    """The settings of the run, and the journal that it resumes. BadInput for wrong flags, before a model is loaded."""
    from pipelines.core.journal import Journal
    from pipelines.core.pipeline import LearnsDirection, Resumable

    values = settings_values(kind, options)
    if path := getattr(options, "settings_file", None):
        given, notes = settings_of_file(kind, path, values)
        values = given | values
        for note in notes:
            say(str(note))
    resumable = issubclass(kind, Resumable)
    old = Journal(_existing(options.resume)) if resumable and options.resume else None
    settings = _resumed(kind, old, values) if old else kind.Settings.from_dict(values)
    if settings.x or settings.y:
        _check_sheet(options)
    for note in settings.notes():
        say(str(note))
    _say_parts(settings)
    if video := getattr(options, "video", None):
        from pipelines.io.video import check_suffix

        check_suffix(video)
        options.video = str(check_writable(video))
    if (keep := getattr(options, "save_direction", None)) and issubclass(kind, LearnsDirection):
        kind.check_direction(settings, keep)
        options.save_direction = str(check_writable(keep))
    return settings, old


def _say_parts(settings: Any) -> None:
    """How a prompt of several parts, weights or scenes is read, a line a part."""
    from pipelines.core.prompts import written_scenes

    if settings.grammar == "words":
        return
    scenes = written_scenes(settings.prompt, settings.grammar)
    targets = [target for scene in scenes for target in scene.targets]
    if len(targets) == 1 and targets[0].weight == 1:
        return
    for number, scene in enumerate(scenes, start=1):
        begin = f" from step {scene.step}" if scene.step else ""
        where = f"scene {number}{begin}: " if len(scenes) > 1 else ""
        for target in scene.targets:
            stop = "" if target.stop is None else f", until {target.stop:g}"
            say(f"  {where}{target.weight:g} x {target.text}{stop}")


def _check_sheet(options: argparse.Namespace) -> None:
    """BadInput when a sheet is to be more than pictures."""
    for name in ("resume", "video", "frames", "save_direction"):
        if getattr(options, name, None):
            raise BadInput("cli.sheet_alone", flag="--" + name.replace("_", "-"))


def _finish(
    options: argparse.Namespace,
    made: list[dict[str, Any]],
    first: Record | None,
    journal: Journal | None,
    seconds: dict[str, float],
) -> None:
    """Tell what was made: one JSON object, or a line for each file and what there is to say about the run."""
    video, keep = getattr(options, "video", None), getattr(options, "save_direction", None)
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
        for picture in made:
            score = "" if picture["score"] is None else f"  {picture['score']:.3f}"
            print(f"{picture['path']}{score}  seed {picture['seed']}")
        for path in filter(None, (video, keep)):
            print(path)
        say(f"{len(made)} pictures in {seconds['run']:.1f} s, after {seconds['load']:.1f} s of loading")
    for name, words in (("read_as", "drawn as"), ("regions", "laid as")):
        told = first.settings.get(name) if first else None
        if told and told != getattr(options, name, None):
            say(f"{words}: {told}")
    if made and (ended := made[0].get("ended")):
        say(ended)
    if made and made[0].get("drift"):
        say("CLIP's score rose while the critic's fell; the picture the critic likes best comes first")


def _existing(folder: str) -> Path:
    path = home_path(folder)
    if not (path / "run.json").is_file():
        raise BadInput("cli.no_run", folder=folder[:80])
    return path


def _resumed(kind: type[Pipeline[Any]], journal: Journal, values: dict[str, Any]) -> Any:
    """The settings of a journal's run, with what is given anew changed from its last snapshot on."""
    from pipelines.core.settings import Changeable

    settings = kind.Settings.from_dict((journal.identity() or {}).get("settings", {}))
    steps = journal.steps()
    if not values:
        return settings
    if not steps:
        return kind.Settings.from_dict(settings.to_dict() | values)
    assert isinstance(settings, Changeable)
    return settings.changed(steps[-1], **values)


def _restyle(
    name: str, studio: Studio, pipeline: Any, settings: Any, options: argparse.Namespace, folder: Path
) -> int:
    """One run for every frame of a folder or a film, each beginning with the result of the one before."""
    from pipelines.core.record import write_pictures
    from pipelines.io.video import Frame, Timelapse, read_frames

    frames, before, made = read_frames(options.frames), None, []
    for number, frame in enumerate(frames, start=1):
        say(f"frame {number}")
        if made and frame.size != made[0].size:
            frame = frame.resize(made[0].size)
        result, interrupted = watch(pipeline, pipeline.restyle(settings, frame, before), None)
        # the last: its neighbours are like it
        before = max(result.pictures, key=lambda picture: picture.facts["step"])
        result = replace(result, pictures=[before])
        for facts, _ in write_pictures(folder, f"{number:05}", pipeline=name, studio=studio, result=result):
            print(facts["path"], file=sys.stderr if options.json else sys.stdout)
        made.append(before.image)
        if interrupted:
            return INTERRUPTED
    if options.video:
        _write_film(
            options.video, Timelapse(iter(Frame(image) for image in made), len(made), [settings.prompt])
        )
    if options.json:
        print(json.dumps({"frames": len(made), "folder": str(folder), "video": options.video}))
    return 0


def _write_film(path: str, film: Timelapse) -> None:
    from pipelines.io.video import write_film

    write_film(path, film.frames, film.count, scenes=film.scenes)


def picture_folder(out: str | None) -> Path:
    """Where pictures go. BadInput at once, before anything is computed, when it cannot be a folder."""
    folder = path_to_write(out) if out else outputs() / time.strftime("%Y-%m-%d")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise BadInput("cli.folder_not_made", folder=str(folder)[:80], reason=reason_of(error)) from None
    try:
        check_writable(folder / "a.png")
    except BadInput:
        raise BadInput("cli.folder_not_writable", folder=str(folder)[:80]) from None
    return folder


def outputs() -> Path:
    """Where pictures go by themselves: the folder that ATELIER_OUTPUTS names, else outputs/ beside the program."""
    folder = os.environ.get("ATELIER_OUTPUTS")
    return path_to_write(folder) if folder else ROOT / "outputs"


def load(name: str, pack: str, device: str, use: dict[str, str]) -> tuple[Studio, Pipeline[Any], float]:
    """The studio, the pipeline with its models, and the seconds that took. Tells large needs before loading."""
    from pipelines.studio import Studio
    from pipelines.weights.catalog import memory_needed

    begun = time.perf_counter()
    with redirect_stdout(sys.stderr):
        studio = Studio(pack=pack, device=device, use=use)
        if memory := memory_needed(pack, name, use):
            say(f"loading {name} of the pack {pack}, which needs about {memory / 1e9:.1f} GB of memory")
        pipeline = studio.pipeline(name)
    return studio, pipeline, time.perf_counter() - begun


def load_recorded(record: Record, pack: str | None, device: str) -> tuple[Studio, Pipeline[Any], float]:
    """`load` for what a record was made with: its models as far as they are known here, or those of another `pack`."""
    from pipelines.studio import READER
    from pipelines.weights.catalog import is_known

    names = {part: fact["name"] for part, fact in record.models.items() if not part.startswith(READER)}
    made_with = {} if pack else {part: name for part, name in names.items() if is_known(name)}
    return load(record.pipeline, pack or record.pack, device, made_with)


def watch(pipeline: Pipeline[Any], settings: Any, journal: Journal | None = None) -> tuple[Result, bool]:
    """Run to the end, showing progress; also whether it was stopped before its end.

    Ctrl+C stops a Resumable run and gives its pictures so far; other pipelines raise KeyboardInterrupt.
    """
    from pipelines.core.execute import follow, run
    from pipelines.core.pipeline import Resumable

    line = ProgressLine()
    resumable = isinstance(pipeline, Resumable)
    pressed = Interrupts() if resumable else None

    def shall_stop(step: Step) -> bool:
        line.show(step)
        return pressed is not None and pressed.count > 0

    try:
        with redirect_stdout(sys.stderr):  # standard output is for the result alone
            return follow(run(pipeline, settings, journal), shall_stop, resumable=resumable)
    except Stopped:  # too early to keep anything
        raise KeyboardInterrupt from None
    finally:
        line.end()
        if pressed:
            pressed.close()
