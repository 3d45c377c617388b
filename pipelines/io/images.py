"""Pictures: Pillow's images to tensors in [-1, 1] and back, and opening pictures from untrusted sources.

Three formats are opened: PNG, JPEG and WebP. The first bytes tell the format and the header tells the size. Pixels are
decoded only after both have been checked.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, PngImagePlugin
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from pipelines.errors import BadInput, Message, one_line, reason_of
from pipelines.io.containers import (
    GREY,
    TURNS,
    jpeg_without_metadata,
    orientation,
    png_colours_are_read,
    png_facts,
    png_without_metadata,
)
from pipelines.io.formats import FORMATS, picture_format
from pipelines.io.profiles import to_srgb

MAX_PIXELS = 16_000_000  # 4000 x 4000: larger than any picture made here, and 64 MB once decoded
LARGEST = {  # pixels of larger pictures, which are made smaller; a JPEG is decoded at a half, a quarter or an eighth
    "JPEG": 256_000_000,
    "PNG": 4 * MAX_PIXELS,
    "WEBP": 4 * MAX_PIXELS,
}
KINDS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImageFile,
}
MAX_BYTES = 32_000_000
URI_HEAD = "data:image/"
PLAIN_BASE64 = str.maketrans("-_", "+/")  # the alphabet of addresses -> the usual one
MAX_TEXT_BYTES = 64_000_000  # of its texts and profiles, unpacked, where Pillow reads them
# what Pillow raises for a damaged file
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)
SPACES_OF_PROFILES = ("RGB", "RGBA", "L", "LA", "CMYK")  # modes whose colours a profile may say
MODES_OF_PNG = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")

_large = threading.Lock()  # one large PNG or WebP at a time, because it is decoded whole


def to_pil(pictures: Tensor) -> list[Image.Image]:
    """(n, 3, h, w) in [-1, 1] -> n RGB images of 8 bits. Values outside the range are clamped."""
    levels = pictures.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return [Image.fromarray(pixels) for pixels in levels.permute(0, 2, 3, 1).cpu().numpy()]


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """n images of one size -> (n, 3, h, w) float32 in [-1, 1]. Transparency is dropped; see `on_white`."""
    levels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])  # (n, h, w, 3) uint8
    return torch.as_tensor(levels).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def round_to_uint8(picture: Tensor) -> Tensor:
    """A picture in [-1, 1] rounded to the 256 levels of an 8-bit picture; any shape."""
    return (((picture.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1).contiguous()


def open_picture(
    source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """Open a picture from an untrusted source.

    Args:
        source: A path, a `data:image/...;base64,` URI, or the file's bytes.
        max_pixels: The largest width times height that is decoded.
        max_bytes: The largest file that is read.

    Returns:
        The picture turned upright as its EXIF says, its colours in sRGB, RGBA when it has transparency and RGB
        otherwise. One of more than MAX_PIXELS, and at most LARGEST, is a half, a quarter or an eighth as large on each
        side, where `max_pixels` is not smaller; `picture_notes` says so.

    Raises:
        BadInput: When it is not one whole still PNG, JPEG or WebP picture within the limits.
    """
    opened, profile, turn = _decoded(source, max_pixels, max_bytes)
    transparent = "A" in opened.getbands() or "transparency" in opened.info
    picture = _eight_bits(opened)
    if profile and picture.mode not in SPACES_OF_PROFILES:
        picture = picture.convert("RGBA" if transparent else "RGB")
    picture = to_srgb(picture, profile) if profile else picture
    picture = picture.convert("RGBA" if transparent else "RGB")
    return picture if turn is None else picture.transpose(turn)


def open_untouched(source: str | Path | bytes) -> Image.Image:
    """A picture with its own pixels, mode and colour profile, upright, from an untrusted source.

    A mode that PNG has none of, such as CMYK, becomes that of `open_picture`. What Pillow reads with fewer bits than the
    file has, as colours of 16 bits, has those. BadInput as `open_picture` raises it.
    """
    opened, profile, turn = _decoded(source, MAX_PIXELS, MAX_BYTES)
    if opened.mode not in MODES_OF_PNG:
        return open_picture(source)
    picture = opened.copy() if turn is None else opened.transpose(turn)
    clear = opened.info.get("transparency")
    picture.info = {} if clear is None else {"transparency": clear}
    if profile:
        picture.info["icc_profile"] = profile
    return picture


def as_seen(picture: Image.Image) -> Image.Image:
    """A picture of any mode and profile as it is shown: its colours in sRGB, RGBA or RGB."""
    plain = picture.mode == "RGB" and not {"icc_profile", "transparency"} & set(picture.info)
    return picture if plain else open_picture(picture_bytes(picture))


def _decoded(
    source: str | Path | bytes, max_pixels: int, max_bytes: int
) -> tuple[Image.Image, bytes, Image.Transpose | None]:
    """A picture's pixels as its file has them, its profile, and the turn that makes it upright. BadInput as ever."""
    data = read_bytes(source, max_bytes=max_bytes)
    kind = picture_format(data)
    exif = profile = b""
    if kind == "JPEG":
        data, exif, profile = jpeg_without_metadata(data)
    elif kind == "PNG":
        data, exif, profile = png_without_metadata(data)
    try:
        opened = KINDS[kind](io.BytesIO(data))
        most = LARGEST[kind] if max_pixels >= MAX_PIXELS else max_pixels
        check_size(*opened.size, most)
        if (frames := getattr(opened, "n_frames", 1)) > 1:
            raise BadInput("io.picture_frames", frames=frames)
        part = _part(*opened.size) if max_pixels >= MAX_PIXELS else 1
        if part > 1 and kind == "JPEG":
            opened.draft(None, (-(-opened.width // part), -(-opened.height // part)))
            part = 1
        with _large if part > 1 else nullcontext():
            opened.load()
            _mend_transparency(opened, data if kind == "PNG" else b"")
            picture = opened if part == 1 else _reduced(opened, part)
    except BadInput:
        raise
    except DAMAGED as error:
        plain = isinstance(error, (OSError, ValueError))  # the others say something of Pillow's
        reason = one_line(error) if plain else "its beginning is not whole"
        raise BadInput("io.picture_damaged", format=kind, reason=reason) from None
    turn = TURNS.get(orientation(exif or opened.info.get("exif", b"")))
    return picture, profile or opened.info.get("icc_profile", b""), turn


def _reduced(picture: Image.Image, part: int) -> Image.Image:
    """A picture with each side divided by `part`, by area, in a mode that can hold the means."""
    picture = _eight_bits(picture)
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif picture.mode in ("P", "1"):
        picture = picture.convert({"P": "RGB", "1": "L"}[picture.mode])
    return picture.reduce(part)


def _mend_transparency(picture: Image.Image, png: bytes) -> None:
    """Bring the one clear colour of a PNG to the levels that Pillow gives the pixels: 8 bits a colour or of grey."""
    bits, _ = png_facts(png)
    clear: tuple[int, ...] | int | bytes | None = picture.info.get("transparency")
    if isinstance(clear, tuple) and bits == 16:
        picture.info["transparency"] = tuple(level >> 8 for level in clear)
    elif isinstance(clear, int) and picture.mode == "L" and bits in (2, 4):
        picture.info["transparency"] = min(clear * 255 // (2**bits - 1), 255)


def picture_notes(source: str | Path | bytes) -> list[Message]:
    """What to tell of a picture before it is used: that it will be made smaller, and which colours it loses.

    [] where opening it would fail.
    """
    try:
        data = bare = read_bytes(source)
        kind = picture_format(data)
        if kind != "WEBP":
            bare, *_ = jpeg_without_metadata(data) if kind == "JPEG" else png_without_metadata(data)
        with KINDS[kind](io.BytesIO(bare)) as opened:
            width, height = opened.size
    except (BadInput, *DAMAGED):
        return []
    notes: list[Message] = []
    if width * height <= LARGEST[kind] and (part := _part(width, height)) > 1:
        small = -(-width // part), -(-height // part)
        notes.append(
            Message(
                "io.picture_reduced",
                {"width": width, "height": height, "smaller_width": small[0], "smaller_height": small[1]},
            )
        )
    bits, colour = png_facts(data) if kind == "PNG" else (0, 0)
    if bits == 16 and colour != GREY:
        notes.append(Message("io.sixteen_bits"))
    if kind == "PNG" and not png_colours_are_read(data):
        notes.append(Message("io.colours_by_number"))
    return notes


def _part(width: int, height: int) -> int:
    """1, or 2, 4 or 8: the part of each side at which a picture of this size has at most MAX_PIXELS."""
    return next((part for part in (1, 2, 4, 8) if -(-width // part) * -(-height // part) <= MAX_PIXELS), 8)


def read_bytes(source: str | Path | bytes, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file by its path, of a data URI, or `source` itself when it is bytes.

    A path may be written as file managers copy it: in double quotes, or as a file:// address. BadInput when there is no
    such file, when it cannot be read, when the URI is not valid base64, or when there are more than `max_bytes` bytes.
    """
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str) and source.lstrip()[: len(URI_HEAD)].lower() == URI_HEAD:
        data = _bytes_of_uri(source.strip(), max_bytes)
    else:
        if not str(source).strip():
            raise BadInput("io.picture_not_given")
        try:
            path = _path(source)
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
                size = path.stat().st_size
        except (OSError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(
                "io.picture_unreadable", picture=one_line(source), reason=reason_of(error)
            ) from None
        if size > max_bytes:
            raise _too_heavy(size, max_bytes)
    if len(data) > max_bytes:
        raise _too_heavy(len(data), max_bytes)
    return data


def _bytes_of_uri(uri: str, max_bytes: int) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise BadInput("io.uri_not_base64")
    if len(body) > max_bytes * 3 // 2:  # lines of 76 characters are a little more than 4 / 3
        raise _too_heavy(len(body) * 3 // 4, max_bytes)
    try:
        return base64.b64decode("".join(body.split()).translate(PLAIN_BASE64), validate=True)
    except (binascii.Error, ValueError):
        raise BadInput("io.uri_damaged") from None


def _path(source: str | Path) -> Path:
    """The file that is meant. BadInput when there is none."""
    text = str(source).strip()
    if text.lower().startswith(("http://", "https://")):
        raise BadInput("io.picture_address", picture=one_line(source))
    meant = [Path(source), Path(text.strip('"'))]
    if text.lower().startswith("file://"):
        meant.append(Path(url2pathname(urlsplit(text).path)))
    for path in meant:
        if path.is_file():
            return path
    raise BadInput("io.picture_missing", picture=one_line(source))


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """BadInput when a picture of `width` x `height` pixels is empty or has more than `max_pixels`."""
    if width < 1 or height < 1:
        raise BadInput("io.picture_has_no_size", width=width, height=height)
    if width * height > max_pixels:
        raise BadInput(
            "io.picture_too_many_pixels", width=width, height=height, pixels=width * height, most=max_pixels
        )


def on_white(image: Image.Image) -> Image.Image:
    """The picture as RGB, composited on white where it is transparent."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square of the picture, resized to size x size pixels."""
    return fit_size(image, size, size)


def fit_size(image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest centred part of the picture of this shape, resized to width x height pixels."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of pictures (Wang et al. 2004), with a Gaussian window of 11 pixels.

    (n, c, h, w) in [0, 1] twice -> (n,) in [-1, 1], 1 for equal pictures.
    """
    ramp = torch.arange(11, device=a.device, dtype=a.dtype) - 5
    gauss = torch.exp(-ramp.square() / (2 * 1.5**2))
    across = (gauss / gauss.sum()).expand(a.shape[1], 1, 1, 11)
    down = across.transpose(2, 3)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, across, groups=x.shape[1]), down, groups=x.shape[1])

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    score = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
    return (score / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))).mean((1, 2, 3))


def picture_to_uri(image: Image.Image) -> str:
    """The picture as a `data:image/png;base64,` URI. `open_picture` reads back the same pixels."""
    return "data:image/png;base64," + base64.b64encode(picture_bytes(image)).decode("ascii")


def picture_bytes(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG, with its profile."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def restrict_pillow() -> None:
    """Restrict Pillow in this process to PNG, JPEG and WebP, and to pictures of at most MAX_PIXELS.

    A server calls it once when it starts. It also restricts pictures that other libraries open with Pillow; for those
    Pillow's limit of a megabyte for texts and profiles of a PNG is raised to what a file may have.
    """
    Image.init()
    for name in [kind for kind in Image.OPEN if kind not in FORMATS]:
        del Image.OPEN[name]
    Image.ID[:] = [kind for kind in Image.ID if kind in FORMATS]
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above this and refuses above twice this


def _eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit grey image converted to 8 bits by scaling, where Pillow would clip. Other images are unchanged.

    A grey level that is transparent becomes an opacity, because it has no equal in 8 bits.
    """
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image).astype(np.int64)
    grey = Image.fromarray((levels >> 8).clip(0, 255).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    return grey


def _too_heavy(size: int, most: int) -> BadInput:
    return BadInput("io.picture_too_heavy", megabytes=size / 1e6, most=most / 1e6)
