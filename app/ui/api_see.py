"""The tools of See as an API: classify, explain, probe, score. Pictures come in as data URIs, as in `api`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from app.jobs.threads import run_in_own_thread
from app.ui.api import DATA_URI, MOST_PICTURES, as_text, check_pictures, looking, offer, one_sentence
from app.ui.context import PageContext
from pipelines.core.settings import clean_prompt
from pipelines.errors import BadInput
from pipelines.io.images import open_picture
from pipelines.see.classify import classify as classified
from pipelines.see.explain import explain as explained
from pipelines.see.folders import see_labelled
from pipelines.see.labels import PLAIN, read_labels, read_templates
from pipelines.see.names import names_for, names_in
from pipelines.see.pictures import see_all
from pipelines.see.probe import few_shot_curve, read_probe, teach
from pipelines.see.score import score_pairs

MOST_TAUGHT = 640  # pictures that a probe is taught from in one call
MOST_TOLD = 20  # labels of each picture


def build(context: PageContext) -> None:
    """Add the four endpoints to the page that is being built."""
    for tool in (
        _classify_tool(context.studio),
        _explain_tool(context.studio),
        _probe_tool(context.studio),
        _score_tool(context.studio),
    ):
        offer(tool)


def _classify_tool(studio: Any) -> Callable[..., Any]:
    @run_in_own_thread
    def work(pictures: Sequence[str], labels: str, templates: str, probe: str) -> dict[str, Any]:
        check_pictures(pictures)
        if probe and (labels or templates):
            raise BadInput("see.labels_or_probe")
        if probe and not probe.startswith("data:"):
            raise BadInput("see.not_a_probe")
        names = read_labels(labels) if labels.strip() else names_in()
        wordings = read_templates(templates) if labels.strip() or templates else PLAIN
        taught = read_probe(probe) if probe else None
        with looking:
            clip = studio.clip()
            seen = see_all(clip, pictures)
            if taught:
                found = taught.classify(clip, seen.vectors)
            else:
                found = classified(clip, seen.vectors, names, wordings)
        best = {source: found.best(row, MOST_TOLD) for row, source in enumerate(seen.sources)}
        problems = dict(seen.broken)
        told = [
            {"picture": number, "problem": str(problems[source])}
            if source in problems
            else {
                "picture": number,
                "labels": [
                    {"label": label, "probability": share, "cosine": near}
                    for label, share, near in best[source]
                ],
            }
            for number, source in enumerate(pictures)
        ]
        return {"pictures": told, "independent": found.independent}

    def classify(pictures: list[str], labels: str = "", templates: str = "", probe: str = "") -> dict:
        with one_sentence():
            return work(pictures, as_text(labels), as_text(templates), as_text(probe))

    classify.__doc__ = f"""Say which of some labels fits each picture, by CLIP, untrained.

    Args:
        pictures: 1 to {MOST_PICTURES} pictures, each {DATA_URI}
        labels: names between commas, in English or Chinese (default: the names that the pack knows)
        templates: wordings such as "a photo of a {{label}}", one a line, of which the mean is taken (default: several)
        probe: labels that were taught, as the tool `probe` gives them; then without labels and templates
    Returns:
        for each picture its likeliest labels with probabilities, and whether these are independent of one another
    """
    return classify


def _explain_tool(studio: Any) -> Callable[..., Any]:
    @run_in_own_thread
    def work(picture: str, text: str) -> dict[str, Any]:
        check_pictures([picture])
        prompt, image = clean_prompt(text), open_picture(picture)
        with looking:
            return explained(studio.clip(), image, prompt, names_for(prompt)).to_json()

    def explain(picture: str, text: str) -> dict:
        with one_sentence():
            return work(picture, as_text(text))

    explain.__doc__ = f"""Say why a picture fits a text, by CLIP.

    Args:
        picture: {DATA_URI}
        text: what it should show, in English or Chinese
    Returns:
        the score, what each phrase adds to it, the closest other name and how sure that is, and for each word where it
        is in the picture, as rows of numbers from 0 to 100 and its peak in shares of width and height
    """
    return explain


def _probe_tool(studio: Any) -> Callable[..., Any]:
    @run_in_own_thread
    def work(pictures: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        check_pictures(pictures, MOST_TAUGHT)
        if not isinstance(labels, (list, tuple)) or len(labels) != len(pictures):
            count = len(labels) if isinstance(labels, (list, tuple)) else 1
            raise BadInput("see.labels_do_not_fit", pictures=len(pictures), labels=count)
        files: dict[str, list[str]] = {}
        for source, label in zip(pictures, labels, strict=True):
            files.setdefault(clean_prompt(as_text(label)), []).append(source)
        names = list(files)
        with looking:
            clip = studio.clip()
            seen = see_labelled(clip, files)
            taught = teach(clip, seen.vectors, seen.targets, names)
            curve = few_shot_curve(clip, seen.vectors, seen.targets, names)
        return {"probe": taught.to_uri(), "labels": names, **taught.facts, "curve": curve.to_json()}

    def probe(pictures: list[str], labels: list[str]) -> dict:
        with one_sentence():
            return work(pictures, labels)

    probe.__doc__ = f"""Teach labels from pictures, by logistic regression on CLIP's vectors; five a label will do.

    Args:
        pictures: 2 to {MOST_TAUGHT} pictures, each {DATA_URI}
        labels: the label of each picture, in the same order
    Returns:
        the taught labels as a data URI that the tool `classify` takes, and how good they are on pictures left over, by
        the number of pictures a label, beside CLIP untrained
    """
    return probe


def _score_tool(studio: Any) -> Callable[..., Any]:
    @run_in_own_thread
    def work(pictures: Sequence[str], text: str) -> list[dict[str, Any]]:
        check_pictures(pictures)
        prompt = clean_prompt(text)
        with looking:
            rows = score_pairs(studio.clip(), studio.critic(), [(source, prompt) for source in pictures])
        return [
            {"picture": number, "clip": row.clip, "critic": row.critic, "problem": row.to_json()["problem"]}
            for number, row in enumerate(rows)
        ]

    def score(pictures: list[str], text: str) -> list[dict]:
        with one_sentence():
            return work(pictures, as_text(text))

    score.__doc__ = f"""Score how well pictures fit a text, by CLIP and by the critic, a second CLIP that steers nothing.

    Args:
        pictures: 1 to {MOST_PICTURES} pictures, each {DATA_URI}
        text: what they should show, in English or Chinese
    Returns:
        for each picture its cosines with the text by both, in the pictures' order
    """
    return score
