"""Writing and reading films.

A film is written as MP4 (H.264) or as animated WebP, frame by frame, so that memory does not grow with its length. A strip
below the picture shows progress: a line that grows with time, and a tick where each scene begins. Films and folders of
pictures from untrusted sources are read frame by frame. PyAV is imported only when a film is written or read.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from pipelines.errors import BadInput, one_line, reason_of
from pipelines.io.files import cannot_save, write_atomically
from pipelines.io.folders import open_one_of, picture_files
from pipelines.io.images import on_white

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer

SLOWEST, FASTEST = 10, 30  # frames a second
MAX_SECONDS = 600
SMALL, GOOD = 384, 512  # pixels: a longer side is enlarged to SMALL at least, and up to GOOD if a factor fits
STRIP = 8  # pixels of height; all parts of the strip are even, because colour has half the resolution
PAPER, VERMILION, INK = (0xFA, 0xF8, 0xF4), (0xD9, 0x43, 0x2F), (0x1E, 0x1B, 0x16)
# Suffix -> codec, its pixels, its options, the container's options. x264's mbtree reads memory that nobody wrote, so that
# now and then equal frames make other bytes (seen with x264 165 and MALLOC_PERTURB_); without it they never do.
ENCODERS = {
    ".mp4": ("libx264", "yuv420p", {"crf": "20", "mbtree": "0"}, {"movflags": "+faststart"}),
    ".webp": ("libwebp_anim", "bgra", {"quality": "90"}, {"loop": "0"}),
}
MAX_TITLE = 255  # bytes, of a chapter in MP4

DECODERS = ("h264", "hevc", "mpeg4", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d")
MAX_BYTES = 200_000_000
MAX_SIDE = 4096


@dataclass(frozen=True)
class Frame:
    """One picture of a film, and the number of its scene, which is the prompt being followed."""

    image: Image.Image  # RGB
    scene: int = 0


@dataclass(frozen=True)
class Timelapse:
    """The frames of a film, their number, and the text of each scene."""

    frames: Iterator[Frame]
    count: int
    scenes: list[str]


@dataclass(frozen=True)
class Mark:
    """Where a scene begins: `frame` counts the film's frames from 0, `part` is a share of the strip's width, 0 to 1."""

    scene: int
    frame: int
    part: float


def check_suffix(path: str | Path) -> str:
    """The suffix of a film's path in lower case, ".mp4" or ".webp". BadInput for others."""
    suffix = Path(path).suffix.lower()
    if suffix not in ENCODERS:
        raise BadInput("io.film_suffix", file=one_line(Path(path).name))
    return suffix


def write_film(
    path: str | Path, frames: Iterable[Frame], count: int, *, seconds: float = 8.0, scenes: Sequence[str] = ()
) -> None:
    """Save frames as a film. Equal frames make equal bytes.

    The rate is 10 to 30 frames a second, so few frames make a shorter film. Of too many frames some are skipped evenly,
    but never the first, the last or the first of a scene. The last frame stays for one second. The file is written
    atomically: when anything fails, also when `frames` raises, an older file is unchanged and no partial file remains.

    Args:
        path: The file to write, ending in .mp4 or .webp.
        frames: The frames, all of one size, taken one at a time.
        count: The number of frames.
        seconds: The length of the film, about, more than 0 and at most MAX_SECONDS.
        scenes: The text of each scene by its number. In an MP4 the first is the title; several become chapters.

    Raises:
        BadInput: For another suffix, a length out of range, frames of unequal size, or more or fewer than `count`.
        CannotSave: When the file cannot be written.
    """
    suffix = check_suffix(path)
    path = Path(path)
    if count < 1:
        raise BadInput("io.film_without_frames")
    if not 0 < seconds <= MAX_SECONDS:
        raise BadInput("io.film_seconds", most=MAX_SECONDS, seconds=seconds)
    from av.error import FFmpegError

    rate = min(FASTEST, max(SLOWEST, round(count / seconds)))
    marks: list[Mark] = []  # grows while the pictures are drawn
    pictures = _drawn(frames, count, most=round(FASTEST * seconds), hold=rate - 1, marks=marks)
    try:
        with tempfile.TemporaryDirectory(prefix="film-") as folder:
            # a real file: elsewhere an MP4's index cannot move to the front
            draft = Path(folder, f"film{suffix}")
            _encode(draft, pictures, rate, marks, scenes)
            data = draft.read_bytes()
    except FFmpegError as error:
        if isinstance(error, OSError):
            raise cannot_save(path, error) from error
        raise
    write_atomically(path, data)


def _encode(
    draft: Path, pictures: Iterator[np.ndarray], rate: int, marks: list[Mark], scenes: Sequence[str]
) -> None:
    """Encode `pictures`, (height, width, 3) uint8 each, into the file `draft`.

    `marks` are read after the last picture, because taking pictures adds to them.
    """
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

    codec, pixels, options, container_options = ENCODERS[draft.suffix]
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    beat = Fraction(1, rate)
    first = next(pictures)
    with av.open(str(draft), "w", format=draft.suffix[1:], container_options=container_options) as film:
        if scenes:
            film.metadata["title"] = _title(scenes, 0)
        container = cast("Any", film)  # PyAV leaves parts of its types open
        stream = cast("VideoStream", container.add_stream(codec, rate=rate, options=options))
        encoder = cast("Any", stream)
        stream.height, stream.width, stream.pix_fmt = *first.shape[:2], pixels
        stream.thread_count = 1  # what several threads make may differ from run to run
        if pixels == "yuv420p":  # say how RGB became YUV: players guess otherwise
            stream.colorspace, stream.color_range = Colorspace.ITU709, ColorRange.MPEG
            stream.color_primaries, stream.color_trc = ColorPrimaries.BT709, ColorTrc.IEC61966_2_1
        number = 0
        for number, picture in enumerate(itertools.chain([first], pictures), start=1):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if pixels == "yuv420p":
                frame = frame.reformat(
                    format=pixels,
                    dst_colorspace=Colorspace.ITU709,
                    dst_color_range=ColorRange.MPEG,
                    interpolation=exact,
                    threads=1,
                )
            frame.pts, frame.time_base = number - 1, beat
            container.mux(encoder.encode(frame))
        container.mux(encoder.encode())
        if scenes and len(marks) > 1:
            named = [(mark.frame, {"title": _title(scenes, mark.scene)}) for mark in marks]
            ends = [*[mark.frame for mark in marks[1:]], number]
            film.set_chapters(
                [
                    {"id": place, "start": start, "end": end, "time_base": beat, "metadata": title}
                    for place, ((start, title), end) in enumerate(zip(named, ends, strict=True))
                ]
            )


def _drawn(
    frames: Iterable[Frame], count: int, *, most: int, hold: int, marks: list[Mark]
) -> Iterator[np.ndarray]:
    """The pictures of the film with the strip, each (height, width, 3) uint8. The last one is repeated `hold` times.

    About `most` of `count` frames are kept. The beginning of each scene is appended to `marks`. BadInput for frames of
    unequal size, or more or fewer than `count`.
    """
    kept = min(count, max(2, most))
    even = {place * (count - 1) // max(1, kept - 1) for place in range(kept)}
    number, shown, size, picture = 0, 0, None, None
    for number, frame in enumerate(frames, start=1):
        if number > count:
            raise BadInput("io.film_too_many_frames", count=count)
        if frame.image.size != (size := size or frame.image.size):
            raise BadInput("io.film_frame_size", number=number, size=_by(frame.image.size), first=_by(size))
        if not marks or marks[-1].scene != frame.scene:
            marks.append(Mark(frame.scene, shown, (number - 1) / count))
        elif number - 1 not in even:
            continue
        picture = _with_strip(_enlarged(on_white(frame.image)), number / count, marks)
        shown += 1
        yield picture
    if number < count or picture is None:
        if not number:
            raise BadInput("io.film_no_frames_came", count=count)
        raise BadInput("io.film_too_few_frames", count=count, number=number)
    yield from itertools.repeat(picture, hold)


def _enlarged(image: Image.Image) -> np.ndarray:
    """The picture as (height, width, 3) uint8, enlarged by a whole factor if it is small.

    Sides are made even by repeating the last row or column.
    """
    factor = max(GOOD // max(image.size), -(-SMALL // max(image.size)))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    return np.pad(np.asarray(image), ((0, image.height % 2), (0, image.width % 2), (0, 0)), mode="edge")


def _with_strip(picture: np.ndarray, done: float, marks: list[Mark]) -> np.ndarray:
    """The picture (height, width, 3) with the strip below it: a line of length `done`, 0 to 1, and a tick at each mark."""
    width = picture.shape[1]
    strip = np.empty((STRIP, width, 3), np.uint8)
    strip[:] = PAPER
    strip[2:6, : 2 * round(width * done / 2)] = VERMILION
    for mark in marks if len(marks) > 1 else ():
        at = min(2 * int(width * mark.part / 2), width - 2)
        strip[:, at : at + 2] = INK
    return np.concatenate([picture, strip])


def _title(scenes: Sequence[str], scene: int) -> str:
    """A scene's text in one line of at most MAX_TITLE bytes. Its number, from 1, when it has no text."""
    text = " ".join(scenes[scene].replace("\0", " ").split()) if 0 <= scene < len(scenes) else ""
    return (text or str(scene + 1)).encode("utf-8", "replace")[:MAX_TITLE].decode("utf-8", "ignore")


def read_frames(source: str | Path, *, limit: int = 600, longest: int = 512) -> Iterator[Image.Image]:
    """Read the frames of a film (MP4, MOV, WebM) or of a folder of pictures from an untrusted source.

    Of a folder its PNG, JPEG and WebP pictures are read, by name, 2 before 10. The file's header and the first frame are
    checked in this call, the rest while frames are taken. A WebM that was cut off gives the frames before the cut.

    Args:
        source: The path of a film or of a folder.
        limit: The largest number of frames.
        longest: The longest side of a frame in pixels; larger frames are reduced to it.

    Returns:
        An iterator of upright RGB images.

    Raises:
        BadInput: When it is missing, damaged, no film, or longer than `limit`. The iterator raises it too.
    """
    path = Path(source)
    if not os.path.exists(source):  # path.exists() would raise for some names, and take "" for this folder
        raise BadInput("io.film_missing", path=one_line(source))
    frames = _of_folder(path, limit, longest) if path.is_dir() else _of_film(path, limit, longest)
    first = next(frames, None)
    if first is None:
        raise BadInput("io.film_without_readable_frame", file=one_line(path.name))
    return itertools.chain([first], frames)


def _of_folder(folder: Path, limit: int, longest: int) -> Iterator[Image.Image]:
    """The pictures of a folder, in the natural order of their names. Hidden files are skipped."""
    try:
        paths = picture_files(folder)
    except OSError as error:
        raise _unreadable(folder, error) from None
    if not paths:
        raise BadInput("io.folder_without_pictures", folder=one_line(folder.name))
    if len(paths) > limit:
        raise BadInput("io.folder_too_many_pictures", count=len(paths), most=limit)
    for path in paths:
        yield _reduced(on_white(open_one_of(path)), longest)


def _of_film(path: Path, limit: int, longest: int) -> Iterator[Image.Image]:
    """The frames of a film. Its first bytes, its size and its header are checked before any frame is decoded."""
    import av
    from av.error import FFmpegError

    # this file, these decoders, no more
    rules = {"protocol_whitelist": "none", "codec_whitelist": ",".join(DECODERS)}
    try:
        with path.open("rb") as file:
            kind = _film_format(file.read(12))
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if size > MAX_BYTES:
                raise BadInput("io.film_too_heavy", megabytes=size / 1e6, most=MAX_BYTES / 1e6)
            with av.open(file, "r", kind, container_options=rules, metadata_errors="replace") as film:
                stream = _film_stream(film, size, limit)
                taken = 0
                for packet in film.demux(stream):
                    for frame in packet.decode():
                        if packet.is_corrupt or frame.is_corrupt:
                            raise BadInput("io.film_damaged_after", frame=taken)
                        _check_side(frame.width, frame.height)
                        taken += 1
                        if taken > limit:
                            raise BadInput("io.film_longer_than", most=limit)
                        image = _reduced(cast("Any", frame).to_image(), longest)
                        yield image.rotate(frame.rotation, expand=True) if frame.rotation else image
    except BadInput:
        raise
    except FFmpegError as error:
        raise BadInput("io.film_damaged", reason=one_line(reason_of(error))) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _film_stream(film: InputContainer, size: int, limit: int) -> VideoStream:
    """The video stream of an opened film of `size` bytes. BadInput when its header says that it cannot be read here."""
    if not film.streams.video:
        raise BadInput("io.film_without_pictures")
    stream = film.streams.video[0]
    if not stream.codec_context:
        raise BadInput("io.film_codec_unknown")
    if (codec := stream.codec_context.name) not in DECODERS:
        raise BadInput("io.film_codec", codec=codec)
    if stream.frames > limit:  # WebM does not tell
        raise BadInput("io.film_too_long", count=stream.frames, most=limit)
    if any(entry.pos + entry.size > size for entry in stream.index_entries):
        raise BadInput("io.film_cut_off")
    _check_side(stream.width, stream.height)
    stream.codec_context.options = {"max_pixels": str(MAX_SIDE**2)}  # a film may grow on its way
    return stream


def _film_format(head: bytes) -> str:
    """The container format of a film by its first bytes, "mp4" or "webm". BadInput for others."""
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "webm"
    raise BadInput("io.not_a_film")


def _check_side(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise BadInput("io.film_too_large", size=_by((width, height)), most=MAX_SIDE)


def _reduced(image: Image.Image, longest: int) -> Image.Image:
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return image


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput("io.film_unreadable", file=one_line(path.name), reason=reason_of(error))


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
