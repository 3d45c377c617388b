"""A linear probe: logistic regression on CLIP's vectors, from a few pictures a label (Radford et al. 2021, section 3.2).

Only the pictures are learned from. Beginning at the labels' text vectors instead was measured and knew fewer pictures of
a new style.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pipelines.core.pipeline import Step
from pipelines.core.settings import clean_prompt
from pipelines.errors import BadInput
from pipelines.io.files import bytes_to_uri, read_file_or_uri, write_atomically
from pipelines.io.tensors import header_of
from pipelines.io.values import is_dict, is_list
from pipelines.models.base import Clip
from pipelines.models.checkpoint import canonical_bytes, network_hash
from pipelines.see.classify import Classification, accuracy
from pipelines.see.labels import ART, MOST_LABELS, Templates, label_vectors
from pipelines.see.pictures import Progress, quiet

SHOTS = (1, 2, 4, 8, 16)  # pictures a label, as in figure 6 of Radford et al. 2021
MAX_BYTES = 32_000_000
DECAY = 0.01  # of the weights; from 0.001 to 1 it makes no difference


@dataclass(frozen=True)
class Probe:
    """A label set that was taught: logits = scale * vector @ weight.T, with `weight` (labels, d) float32.

    `clip` is the hash of the image tower that it belongs to. `facts` are JSON values: pictures a label and figures.
    """

    labels: list[str]
    weight: Tensor
    scale: float
    clip: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def check(self, clip: Clip) -> None:
        """BadInput when it was taught with another CLIP, whose vectors mean something else."""
        if clip_hash(clip) != self.clip:
            raise BadInput("see.probe_of_another_clip")

    def classify(self, clip: Clip, vectors: Tensor) -> Classification:
        """Classify n pictures by their (n, d) vectors of unit length. BadInput for another CLIP."""
        self.check(clip)
        scores = vectors.cpu().float() @ self.weight.T
        return Classification(self.labels, scores, (scores * self.scale).softmax(-1))

    def to_bytes(self) -> bytes:
        """The contents of the file. Equal probes give equal bytes."""
        told = {"labels": self.labels, "scale": self.scale, "clip": self.clip, "facts": self.facts}
        metadata = {"probe": json.dumps(told, ensure_ascii=False, sort_keys=True)}
        return canonical_bytes(save({"weight": self.weight.contiguous()}, metadata))

    def save(self, path: str | Path) -> None:
        """Write the file atomically. BadInput unless the name ends in .safetensors; CannotSave when writing fails."""
        check_probe_name(path)
        write_atomically(path, self.to_bytes())

    def to_uri(self) -> str:
        """The contents of the file as a data URI, which `read_probe` takes."""
        return bytes_to_uri(self.to_bytes())


def check_probe_name(path: str | Path) -> None:
    """BadInput unless the name ends in .safetensors."""
    if Path(path).suffix.lower() != ".safetensors":
        raise BadInput("see.probe_suffix", path=str(path)[:80])


def accuracy_of(probe: Probe, vectors: Tensor, targets: Tensor) -> float:
    """The share of n pictures, (n, d) vectors, that a probe gives their right label, (n,) int64."""
    return accuracy(vectors.cpu().float() @ probe.weight.T, targets)


def clip_hash(clip: Clip) -> str:
    """What tells one CLIP's vectors from another's: 16 hexadecimal digits of its image tower's hash."""
    return network_hash(clip.image)[:16]


# --------------------------------------------------------------------------------------------------------- teaching


def teach(clip: Clip, vectors: Tensor, targets: Tensor, labels: Sequence[str]) -> Probe:
    """Learn a probe from n pictures.

    Args:
        clip: The CLIP whose vectors these are.
        vectors: (n, d) of unit length.
        targets: (n,) int64, the index of each picture's label.
        labels: At least two names; each has at least one picture.

    Returns:
        The probe, whose facts tell the number of pictures, and of the label that has the fewest.

    Raises:
        BadInput: When there are too few or too many labels, or a label without a picture.
    """
    if len(labels) < 2:
        raise BadInput("see.one_label")
    if len(labels) > MOST_LABELS:
        raise BadInput("see.too_many_labels", count=len(labels), most=MOST_LABELS)
    counts = torch.bincount(targets.cpu(), minlength=len(labels))
    if not bool((counts > 0).all()):
        raise BadInput("see.label_without_pictures", label=labels[int(counts.argmin())][:60])
    weight = fit(vectors, targets, len(labels), clip.logit_scale)
    facts: dict[str, Any] = {"pictures": int(counts.sum()), "fewest": int(counts.min())}
    return Probe(list(labels), weight, clip.logit_scale, clip_hash(clip), facts)


def fit(vectors: Tensor, targets: Tensor, label_count: int, scale: float) -> Tensor:
    """Logistic regression by L-BFGS: (n, d) vectors, (n,) int64 targets -> weights (labels, d) float32 on the CPU.

    Minimizes the cross-entropy of softmax(scale * vectors @ weight.T), in which each label counts alike however many
    pictures it has, plus DECAY * scale / 2 times the mean over the labels of |weight|^2.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # no gradient passes tensors of inference mode
        x, y = vectors.cpu().double().clone(), targets.cpu().clone()
        counts = torch.bincount(y, minlength=label_count).clamp(min=1).double()
        share = (counts.reciprocal() / label_count)[y]
        weight = torch.zeros(label_count, x.shape[1], dtype=torch.float64, requires_grad=True)
        solver = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value = (F.cross_entropy(scale * x @ weight.T, y, reduction="none") * share).sum()
            value = value + DECAY * scale / 2 * weight.square().sum() / label_count
            value.backward()  # pyright: ignore[reportUnknownMemberType]
            return value

        solver.step(loss)  # pyright: ignore[reportUnknownMemberType, reportArgumentType]
    return weight.detach().float()


# ------------------------------------------------------------------------------------------------ the few-shot curve


@dataclass(frozen=True)
class CurvePoint:
    """The accuracy of probes taught with `shots` pictures a label, in [0, 1]: of each draw of these pictures."""

    shots: int
    accuracies: list[float]

    @property
    def mean(self) -> float:
        """The mean over the draws."""
        return sum(self.accuracies) / len(self.accuracies)


@dataclass(frozen=True)
class Curve:
    """Accuracy by pictures a label, beside that of zero-shot on the same pictures; all in [0, 1]."""

    points: list[CurvePoint]
    zero_shot: float
    pictures: int  # that were judged, on average

    def to_json(self) -> dict[str, Any]:
        """As JSON values: each point with its mean, lowest and highest."""
        points = [
            {
                "shots": point.shots,
                "mean": point.mean,
                "low": min(point.accuracies),
                "high": max(point.accuracies),
            }
            for point in self.points
        ]
        return {"points": points, "zero_shot": self.zero_shot, "pictures": self.pictures}


def few_shot_curve(
    clip: Clip,
    vectors: Tensor,
    targets: Tensor,
    labels: Sequence[str],
    *,
    test: tuple[Tensor, Tensor] | None = None,
    shots: Sequence[int] = SHOTS,
    draws: int = 3,
    seed: int = 0,
    templates: Templates = ART,
    progress: Progress = quiet,
) -> Curve:
    """How good probes are with ever more pictures a label, each number of them drawn `draws` times.

    They are judged on `test`, (m, d) vectors and (m,) targets; without it on the pictures that were not drawn, so that a
    point needs labels with more pictures than its shots. Where there are none, there are no points.
    """
    generator = torch.Generator().manual_seed(seed)
    fewest = int(torch.bincount(targets.cpu(), minlength=len(labels)).min())
    usable = [count for count in shots if count <= fewest - (test is None)]
    words = label_vectors(clip, labels, templates).cpu()
    points: list[CurvePoint] = []
    judged: list[int] = []
    zero: list[float] = []
    for count in usable:
        figures: list[float] = []
        for _ in range(draws):
            chosen = torch.cat(list(_drawn(targets.cpu(), len(labels), count, generator)))
            rest = torch.ones(len(targets), dtype=torch.bool)
            rest[chosen] = False
            seen, right = (
                test if test is not None else (vectors[rest.to(vectors.device)], targets.cpu()[rest])
            )
            weight = fit(
                vectors[chosen.to(vectors.device)], targets.cpu()[chosen], len(labels), clip.logit_scale
            )
            figures.append(accuracy(seen.cpu().float() @ weight.T, right))
            zero.append(accuracy(seen.cpu().float() @ words.T, right))
            judged.append(len(right))
        points.append(CurvePoint(count, figures))
        progress(Step("teach", len(points), len(usable)))
    seen, right = test if test is not None else (vectors, targets)
    plain = sum(zero) / len(zero) if zero else accuracy(seen.cpu().float() @ words.T, right)
    return Curve(points, plain, round(sum(judged) / len(judged)) if judged else len(right))


def _drawn(targets: Tensor, label_count: int, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """For each label the places of `count` of its pictures."""
    for label in range(label_count):
        places = (targets == label).nonzero()[:, 0]
        yield places[torch.randperm(len(places), generator=generator)[:count]]


# ---------------------------------------------------------------------------------------------------------- reading


def read_probe(source: str | Path) -> Probe:
    """Read an untrusted probe from a path or a data URI.

    BadInput when it is missing, too large, damaged, or not a probe.
    """
    data = read_file_or_uri(
        source,
        MAX_BYTES,
        missing=BadInput("see.probe_missing", path=str(source)[:80]),
        too_large=BadInput("see.probe_too_heavy", most=MAX_BYTES // 1_000_000),
        damaged=BadInput("see.not_a_probe"),
    )
    try:
        told = json.loads(header_of(data)["__metadata__"]["probe"])
        tensors = load(data)
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError):
        raise BadInput("see.not_a_probe") from None
    weight = tensors.get("weight")
    if not is_dict(told) or weight is None or len(tensors) != 1 or weight.dtype != torch.float32:
        raise BadInput("see.not_a_probe")
    labels, scale, clip, facts = (told.get(name) for name in ("labels", "scale", "clip", "facts"))
    if not is_list(labels) or not 2 <= len(labels) <= MOST_LABELS:
        raise BadInput("see.not_a_probe")
    if weight.dim() != 2 or len(weight) != len(labels) or not bool(weight.isfinite().all()):
        raise BadInput("see.not_a_probe")
    if not isinstance(scale, (int, float)) or not 0 < scale < 1000 or not isinstance(clip, str):
        raise BadInput("see.not_a_probe")
    names = [clean_prompt(str(label)) for label in labels]
    return Probe(names, weight, float(scale), clip, facts if is_dict(facts) else {})
