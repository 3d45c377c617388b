"""What decides a run of Generate."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.core.settings import Settings, knob


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(Settings):
    """What decides a set of candidates."""

    candidates: int = knob(16, 1, 512, help="how many pictures are drawn and ranked")
    keep: int = knob(4, 1, 64, help="how many of the best are kept")
    temperature: float = knob(0.7, 0.05, 4.0, help="lower is safer, higher is wilder", advanced=True)
    top_k: int = knob(64, 0, 16384, help="draw each token from the k likeliest; 0 for all", advanced=True)
    top_p: float = knob(
        1.0, 0.05, 1.0, help="draw each token from the likeliest that make up this share", advanced=True
    )
    guidance: float = knob(
        3.0, 0.0, 20.0, help="how strongly the prompt steers; 1 is plain sampling", advanced=True
    )
    hide_duplicates: bool = knob(False, help="keep only one of candidates that look the same", advanced=True)
    image: str = knob("", help="a picture to vary or to complete", advanced=True, kind="picture")
    keep_rows: int = knob(
        0, 0, 63, help="rows of image tokens kept from the picture, from the top", advanced=True
    )
    likeness: float = knob(0.3, 0.0, 1.0, help="how close variations stay to the picture", advanced=True)
    batch: int = knob(0, 0, 512, help="candidates drawn together; 0 for what the device likes", advanced=True)
