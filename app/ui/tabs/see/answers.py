"""The answers of the See tab as HTML, by the pack's CLIP."""

from __future__ import annotations

from typing import Any

import torch

from app.saved_probes import Probes
from app.ui.html import see as see_html
from app.ui.html import see_teach
from app.ui.tray import Question, Shown, Tray
from pipelines.core.settings import clean_prompt
from pipelines.errors import BadInput
from pipelines.see.classify import classify
from pipelines.see.explain import explain
from pipelines.see.labels import PLAIN, read_labels, read_templates
from pipelines.see.names import names_for, names_in
from pipelines.see.pictures import encode
from pipelines.see.probe import few_shot_curve, teach
from pipelines.see.score import score_pairs


class Answers:
    """Answers questions about the pictures of a tray. `probes` are the visitor's own label sets."""

    def __init__(self, studio: Any, probes: Probes):
        self.studio, self.probes = studio, probes

    def to(self, tray: Tray, question: Question) -> tuple[str, list[str]]:
        """The answer as HTML, and what each picture was taken for, where that was asked. BadInput when there is none."""
        if question.mode == "name":
            return self._names(tray, question)
        if question.mode == "teach":
            return self._taught(tray), []
        prompt = clean_prompt(question.prompt)
        if question.mode == "score":
            pairs = [(picture.uri, prompt) for picture in tray.pictures]
            rows = score_pairs(self.studio.clip(), self.studio.critic(), pairs)
            return see_html.scores(rows, tray.pictures), []
        at = tray.at(question.at)
        picture = tray.pictures[at]
        found = explain(self.studio.clip(), picture.image, prompt, names_for(prompt))
        return see_html.reasons(found, at, picture.ranked if prompt == picture.prompt else ()), []

    def _names(self, tray: Tray, question: Question) -> tuple[str, list[str]]:
        clip = self.studio.clip()
        vectors = encode(clip, [picture.image for picture in tray.pictures])
        if question.taught:
            found = self.probes.read(question.taught).classify(clip, vectors)
        else:
            labels, templates = names_in(question.language), PLAIN
            if question.labels.strip():
                labels, templates = read_labels(question.labels), read_templates(question.templates)
            found = classify(clip, vectors, labels, templates)
        return see_html.names(found, tray.at(question.at), bool(question.taught)), found.first()

    def _taught(self, tray: Tray) -> str:
        clip, labels = self.studio.clip(), list(tray.groups)
        pairs: list[tuple[Shown, int]] = [
            (picture, k) for k, group in enumerate(tray.groups.values()) for picture in group
        ]
        if not pairs:
            raise BadInput("see.nothing_to_teach")
        vectors = encode(clip, [picture.image for picture, _ in pairs])
        targets = torch.tensor([k for _, k in pairs])
        probe = teach(clip, vectors, targets, labels)
        curve = few_shot_curve(clip, vectors, targets, labels)
        return see_teach.learned(probe, curve, self.probes.keep(probe))
