"""The verb `probe`: teach CLIP labels from a folder of pictures for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.see.common import finish_parser, open_studio, print_json, progress, tell_broken
from pipelines.core.arguments import Parser
from pipelines.io.files import check_writable

if TYPE_CHECKING:
    from pipelines.see.probe import Curve, Probe


def _parser() -> Parser:
    parser = Parser(
        prog="launch.py probe",
        description="Teach labels from a folder of pictures for each: logistic regression on CLIP's vectors.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="a folder with a folder of pictures for each label")
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="probe.safetensors",
        help="the file to write (default: probe.safetensors)",
    )
    parser.add_argument(
        "--test",
        metavar="FOLDER",
        help="pictures to judge by, in the same folders (default: those left over)",
    )
    return finish_parser(parser)


def main(arguments: list[str]) -> int:
    """Teach a probe and judge it. Prints what it knows, or one JSON object. Returns the exit code."""
    options = _parser().parse_args(arguments)

    from pipelines.see.folders import labelled_files, see_labelled
    from pipelines.see.probe import accuracy_of, check_probe_name, few_shot_curve, teach

    check_probe_name(options.out)
    options.out = str(check_writable(options.out))
    files = labelled_files(options.folder)
    tests = labelled_files(options.test, list(files)) if options.test else None
    studio = open_studio(options)
    with progress() as tell:
        clip = studio.clip()
        seen = see_labelled(clip, files, tell)
        judged = see_labelled(clip, tests, tell) if tests else None
        labels = list(files)
        probe = teach(clip, seen.vectors, seen.targets, labels)
        test = (judged.vectors, judged.targets) if judged else None
        curve = few_shot_curve(clip, seen.vectors, seen.targets, labels, test=test, progress=tell)
        if judged:
            probe.facts["accuracy"] = accuracy_of(probe, judged.vectors, judged.targets)
    probe.save(options.out)
    broken = tell_broken([*seen.broken, *(judged.broken if judged else ())])
    if options.json:
        facts = {"probe": str(Path(options.out)), "labels": labels, **probe.facts, "curve": curve.to_json()}
        print_json(facts | {"broken": broken})
    else:
        print(*_lines(options.out, probe, curve), sep="\n")
    return 0


def _lines(path: str, probe: Probe, curve: Curve) -> list[str]:
    """What there is to say, a fact a line."""
    lines = [f"{path}: {len(probe.labels)} labels from {probe.facts['pictures']} pictures"]
    lines += [
        f"{point.shots:>3} a label: {point.mean:.1%} ({min(point.accuracies):.1%} to {max(point.accuracies):.1%})"
        for point in curve.points
    ]
    if "accuracy" in probe.facts:
        lines.append(f"with all of them: {probe.facts['accuracy']:.1%}")
    lines.append(f"zero-shot, by the labels' names: {curve.zero_shot:.1%}")
    return lines
