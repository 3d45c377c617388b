"""Cut-out pictures as the bytes of a file that keeps to a form, and reading such a file back to check it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, cast

import numpy as np
from PIL import Image, PngImagePlugin
from PIL.IcoImagePlugin import IcoImageFile

from pipelines.errors import BadInput
from pipelines.export.presets import Form
from pipelines.export.svg import size_of_svg, svg_of

QUALITIES = (95, 90, 80, 70, 60, 50, 40)  # of WebP, after lossless
MOVING_QUALITIES = (85, 65, 45)
COLOURS = (256, 64)  # of a PNG that would be too heavy
CRFS = (24, 36, 48)  # of VP9, from good to small
ICON_SIDES = (16, 32, 48)  # of one .ico file
SLOWEST = 8  # frames a second
Texts = dict[str, str]


def encoded(frames: Sequence[Image.Image], form: Form, texts: Texts | None = None, title: str = "") -> bytes:
    """The file of one picture, or of the frames of a moving one; `texts` are written into a PNG, the title into an SVG.

    As good as the form's bytes allow. BadInput when it is too heavy at the lowest quality.
    """
    if form.suffix == ".svg":
        return svg_of(frames[0], title)
    ways = _moving(frames, form) if form.moves else _still(frames[0], form, texts or {})
    data = b""
    for way in ways:
        data = way()
        if not form.most or len(data) <= form.most:
            return data
    raise BadInput("export.too_heavy", kilobytes=len(data) / 1000, most=form.most / 1000)


def _still(picture: Image.Image, form: Form, texts: Texts) -> Iterator[Callable[[], bytes]]:
    """The ways to write a picture that stands still, the best first."""
    if form.suffix == ".ico":
        sides = [(side, side) for side in ICON_SIDES]
        yield lambda: _saved(picture, "ICO", sizes=sides)
    elif form.suffix == ".webp":
        yield lambda: _saved(picture, "WEBP", lossless=True, method=4)
        for quality in QUALITIES:
            yield lambda quality=quality: _saved(picture, "WEBP", quality=quality, method=4)
    else:
        written = PngImagePlugin.PngInfo()
        for name, text in texts.items():
            written.add_text(name, text)
        yield lambda: _saved(picture, "PNG", optimize=True, pnginfo=written)
        for count in COLOURS:
            few = lambda count=count: picture.quantize(count, Image.Quantize.FASTOCTREE)  # noqa: E731
            yield lambda few=few: _saved(few(), "PNG", optimize=True, pnginfo=written)


def _moving(frames: Sequence[Image.Image], form: Form) -> Iterator[Callable[[], bytes]]:
    """The ways to write an animation, the best first; the last ones have half and a quarter of the frames."""
    for step in (1, 2, 4):
        kept, rate = paced(frames, form, step)
        if form.suffix == ".webm":
            for crf in CRFS:
                yield lambda kept=kept, rate=rate, crf=crf: _webm(kept, rate, crf)
            continue
        rest: dict[str, Any] = {"save_all": True, "duration": round(1000 / rate), "loop": 0}
        if form.suffix == ".webp":
            for quality in MOVING_QUALITIES:
                yield lambda kept=kept, rest=rest, quality=quality: _saved(
                    kept[0], "WEBP", append_images=kept[1:], quality=quality, method=3, **rest
                )
        else:
            yield lambda kept=kept, rest=rest: _saved(
                kept[0], "PNG", append_images=kept[1:], disposal=1, **rest
            )


def paced(frames: Sequence[Image.Image], form: Form, step: int = 1) -> tuple[list[Image.Image], int]:
    """Every `step`-th frame, or fewer where they would take too long, and how many of them go by in a second."""
    most = int(form.seconds * form.rate)
    step = max(step, -(-len(frames) // most))
    kept = list(frames[::step])
    slowest = -(-len(kept) // form.seconds)  # so that the end comes in time
    return kept, int(min(form.rate, max(SLOWEST, slowest, round(len(kept) / min(2.0, form.seconds)))))


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _webm(frames: Sequence[Image.Image], rate: int, crf: int) -> bytes:
    """RGBA frames as WebM: VP9 with an opacity of its own."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as film:
        container = cast("Any", film)  # PyAV leaves parts of its types open
        options = {"crf": str(crf), "b": "0", "auto-alt-ref": "0", "cpu-used": "4"}
        stream: Any = container.add_stream("libvpx-vp9", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuva420p"
        stream.thread_count = 1  # what several threads make may differ from run to run
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.asarray(_opaque_colours(picture)), format="rgba")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _opaque_colours(picture: Image.Image) -> Image.Image:
    """An RGBA picture of which clear places have no colour, so that none of it bleeds into the edges of a film."""
    return Image.alpha_composite(Image.new("RGBA", picture.size), picture)


# ---------------------------------------------------------------------------------------------------------- checking


def check(data: bytes, form: Form, clear: bool = True) -> tuple[int, int]:
    """Read a file back and compare it with its form. Returns width and height. BadInput, with what is wrong.

    `clear` says whether some of the picture was clear; it is then clear in the file, unless the form has a ground.
    """
    if form.most and len(data) > form.most:
        raise BadInput("export.too_heavy", kilobytes=len(data) / 1000, most=form.most / 1000)
    if form.suffix == ".svg":
        return size_of_svg(data)
    size, found = _film_facts(data) if form.suffix == ".webm" else _picture_facts(data)
    expected: dict[str, Any] = {"kind": {".webm": "vp9"}.get(form.suffix, form.suffix[1:])}
    if form.side and not form.together and (max(size) != form.side or (form.square and size[0] != size[1])):
        raise BadInput("export.wrong_size", size=f"{size[0]} x {size[1]}", wanted=form.side)
    expected["clear"] = clear and not form.ground
    if form.moves:
        expected["moves"] = True
        if found["seconds"] > form.seconds + 1e-3 or found["rate"] > form.rate + 1e-3:
            raise BadInput("export.too_long", seconds=found["seconds"], most=form.seconds)
    for name, value in expected.items():
        if found[name] != value:
            raise BadInput("export.reads_otherwise", fact=name, found=found[name], wanted=value)
    return size


def has_clear(picture: Image.Image) -> bool:
    """Whether some of an RGBA picture is not fully opaque."""
    return cast("tuple[int, int]", picture.getchannel("A").getextrema())[0] < 255


def _picture_facts(data: bytes) -> tuple[tuple[int, int], dict[str, Any]]:
    file = io.BytesIO(data)
    icon = data.startswith(b"\0\0\1\0")  # which a studio's Pillow does not open (`restrict_pillow`)
    with IcoImageFile(file) if icon else Image.open(file, formats=["PNG", "WEBP"]) as picture:
        frames = getattr(picture, "n_frames", 1)
        milliseconds = 0.0
        for number in range(frames if frames > 1 else 0):
            picture.seek(number)
            picture.load()
            milliseconds += float(picture.info.get("duration", 0))
        clear = has_clear(picture.convert("RGBA"))
        found = {"kind": str(picture.format).lower(), "clear": clear, "moves": frames > 1}
        rate = 1000 * frames / milliseconds if milliseconds else 0.0
        return picture.size, found | {"seconds": milliseconds / 1000, "rate": rate}


def _film_facts(data: bytes) -> tuple[tuple[int, int], dict[str, Any]]:
    import av

    with av.open(io.BytesIO(data), "r", format="webm") as film:
        stream: Any = film.streams.video[0]
        found = {"kind": str(stream.codec_context.name).removeprefix("lib").removeprefix("vpx-")}
        # its opacity is a stream of its own, which is not decoded here
        found |= {"clear": stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"}
        size = (stream.width, stream.height)
        count = sum(1 for packet in film.demux(stream) if packet.size)
        rate = float(stream.average_rate)
    return size, {**found, "moves": count > 1, "seconds": count / rate, "rate": rate}
