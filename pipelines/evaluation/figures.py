"""What a measurement is: figures by part and name, the bars that they are held against, and how they are written."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.errors import BadInput

Figures = dict[str, dict[str, float]]

PARTS = {  # what each part of the table is about
    "retrieval": "Plain names of the 1,409 pictures of emojione, never trained on",
    "words": "Words beyond the captions, right picture among the nearest ten of 1,409",
    "see": "See on emojione: the first of all names, maps on 200 composites of two icons, probes",
    "vqgan": "VQGAN on emojione",
    "matting": "Cutting out the pictures of emojione",
    "export": "Enlarging and tracing pictures of emojione, to 128 pixels and at 128",
    "diffuse": "Diffuse, common names",
    "pruned": "Diffuse with pruning, common names: twice the candidates begun, the quarter of them finished",
    "generate": "Generate with its own finish, common names",
    "dalle": "Generate as drawn, the DALL·E alone, common names",
    "compared": "How much oftener the first is right, best of all candidates, with 95 % intervals over the same names",
    "composed": "40 prompts of several parts, right by the critic (0.25 by chance)",
    "copies": "Are the best pictures copies of training pictures",
    "given": "Diffuse on given pictures: common icons of emojione, one candidate each",
    "unet": "Edit's denoiser, emojione up to step 600 of the noise and down again, 40 steps",
    "optimize": "Optimize, common names",
    "guide": "Guide, common names from noise in 60 steps",
    "instant": "Edit, pairs of texts instantly, ten pictures each",
    "outside": "Edit instantly on pictures of openmoji, a style that nothing learned from, 24 pairs of names",
    "edit": "Edit, pairs of texts by reusable directions, ten pictures each",
}
TARGETS = {  # what the figures should reach, on two cores
    ("retrieval", "CLIP R@1"): 0.55,
    ("retrieval", "CLIP R@5"): 0.78,
    ("retrieval", "CLIP R@1 Chinese"): 0.50,
    ("retrieval", "CLIP R@5 Chinese"): 0.72,
    ("retrieval", "critic R@1"): 0.50,
    ("words", "CLIP, 300 synonyms"): 0.50,
    ("see", "peaks inside the named icon of two"): 0.80,
    ("vqgan", "codec, PSNR"): 26.5,
    ("vqgan", "codec, PSNR without codes"): 28.0,
    ("vqgan", "codec, SSIM without codes"): 0.90,
    ("vqgan", "codec, codes used"): 0.60,
    ("matting", "IoU"): 0.97,
    ("export", "SVG drawn again, SSIM"): 0.90,
    ("export", "SVG, kB, the largest"): 60.0,
    ("diffuse", "judge top-1, best of 1"): 0.25,
    ("diffuse", "judge top-5, best of 1"): 0.50,
    ("diffuse", "judge top-1, best of 16"): 0.45,
    ("diffuse", "judge top-5, best of 16"): 0.70,
    ("diffuse", "of the best possible choice, CLIP's gets"): 0.65,
    ("generate", "judge top-1, best of 16"): 0.40,
    ("generate", "judge top-5, best of 16"): 0.65,
    ("dalle", "judge top-1, best of 16"): 0.25,
    ("dalle", "judge top-5, best of 16"): 0.45,
    ("composed", "Diffuse, all"): 0.75,
    ("given", "critic, a half drawn over drawn whole: top-5"): 0.0,
    ("given", "share of pixels outside the mask that stay"): 1.0,
    ("given", "share of edges with at most 1.2"): 1.0,
    ("given", "share of strengths at which it falls"): 1.0,
    ("unet", "PSNR"): 30.0,
    ("optimize", "critic, last, from splash: top-5"): 0.60,
    ("optimize", "critic, last, from drawn: top-5"): 0.80,
    ("guide", "critic, text and CLIP: top-5"): 0.70,
    ("guide", "critic, what CLIP adds without a text: top-5"): 0.30,
    ("instant", "won"): 0.90,
    ("instant", "SSIM"): 0.65,
    ("outside", "judge, won"): 0.85,
    ("outside", "SSIM"): 0.60,
    ("edit", "won"): 0.90,
    ("edit", "SSIM"): 0.65,
}


def shown(value: float) -> str:
    """A figure as text, four digits at most."""
    return f"{value:.4g}"


def to_text(figures: Figures) -> str:
    """The table for a terminal: part, figure, value, bar."""
    rows = [("part", "figure", "value", "bar")]
    for part, values in figures.items():
        for name, value in values.items():
            target = TARGETS.get((part, name))
            rows.append((part, name, shown(value), "" if target is None else shown(target)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def read_figures(paths: list[Path]) -> Figures:
    """Figures that earlier runs printed with --json; of parts measured more than once the last file's count."""
    figures: Figures = {}
    for path in paths:
        try:
            measured = json.loads(path.read_text("utf-8"))
            figures |= {
                part: {name: float(value) for name, value in rows.items()} for part, rows in measured.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            raise BadInput("evaluation.no_figures", file=path) from None
    if unknown := set(figures) - set(PARTS):
        raise BadInput("evaluation.part_unknown", part=sorted(unknown)[0], known=", ".join(PARTS))
    return {part: figures[part] for part in PARTS if part in figures}
