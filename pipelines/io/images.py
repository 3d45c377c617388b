"""Pictures: Pillow's images to tensors in [-1, 1] and back, and opening pictures from untrusted sources.

Three formats are opened: PNG, JPEG and WebP. The first bytes tell the format and the header tells the size. Pixels are
decoded only after both have been checked.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from pipelines.errors import BadInput, Message
from pipelines.io.formats import FORMATS, picture_format
from pipelines.io.profiles import JPEG_HEAD, profile_of_jpeg, profile_of_png, to_srgb

MAX_PIXELS = 16_000_000  # 4000 x 4000: larger than any picture made here, and 64 MB once decoded
MAX_JPEG_PIXELS = (
    256_000_000  # of a JPEG, which is decoded at a half, a quarter or an eighth of its size then
)
MAX_BYTES = 32_000_000
MAX_SCANS = 100  # of a progressive JPEG; cameras write about ten, and each one costs a pass over all pixels
URI_HEAD = "data:image/"
MAX_CHUNKS = 20_000  # of a PNG
MAX_TEXT_BYTES = 64_000_000  # of its texts and profiles, unpacked, where Pillow reads them
PNG_PIXELS = (  # the chunks that say how a PNG's pixels are read, or that it is an animation
    b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT",
)  # fmt: skip
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
)  # Pillow's
SPACES_OF_PROFILES = ("RGB", "RGBA", "L", "LA", "CMYK")  # modes whose colours a profile may say
MODES_OF_PNG = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
        otherwise. A JPEG of more than MAX_PIXELS is a half, a quarter or an eighth as large on each side, where
        `max_pixels` is not smaller; `picture_notes` says so.

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
) -> tuple[ImageFile, bytes, Image.Transpose | None]:
    """A picture's pixels as its file has them, its profile, and the turn that makes it upright. BadInput as ever."""
    data = read_bytes(source, max_bytes=max_bytes)
    kind = picture_format(data)
    exif = profile = b""
    if kind == "JPEG":
        data, exif, profile = _jpeg_without_metadata(data)
    elif kind == "PNG":
        data, exif, profile = _png_without_metadata(data)
    try:
        with warnings.catch_warnings():
            # Our own limit is the one that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = _opened(data, kind)
        if kind == "JPEG" and max_pixels >= MAX_PIXELS and (part := _jpeg_part(*opened.size)) > 1:
            opened.draft(None, (-(-opened.width // part), -(-opened.height // part)))
        check_size(*opened.size, max_pixels)
        if (frames := getattr(opened, "n_frames", 1)) > 1:
            raise BadInput("io.picture_frames", frames=frames)
        opened.load()
        turn = TURNS.get(_orientation(exif or opened.info.get("exif", b"")))
    except BadInput:
        raise
    except Image.DecompressionBombError:
        raise BadInput("io.picture_too_large", most=max_pixels) from None
    except UnidentifiedImageError:
        raise BadInput("io.picture_unknown", format=kind) from None
    except DAMAGED as error:
        raise BadInput("io.picture_damaged", format=kind, reason=_short(error)) from None
    return opened, profile or opened.info.get("icc_profile", b""), turn


def _opened(data: bytes, kind: str) -> ImageFile:
    """A picture whose header was read. A JPEG is not held to Pillow's limit of pixels: it may be decoded smaller."""
    if kind == "JPEG":
        return JpegImageFile(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=[kind])


def picture_notes(source: str | Path | bytes) -> list[Message]:
    """What to tell of a picture before it is used: that it will be made smaller. [] where opening it would fail."""
    try:
        data = read_bytes(source)
        if picture_format(data) != "JPEG":
            return []
        with JpegImageFile(io.BytesIO(_jpeg_without_metadata(data)[0])) as opened:
            width, height = opened.size
    except (BadInput, *DAMAGED):
        return []
    if (part := _jpeg_part(width, height)) == 1:
        return []
    small = width // part, height // part
    return [
        Message(
            "io.picture_reduced",
            {"width": width, "height": height, "smaller_width": small[0], "smaller_height": small[1]},
        )
    ]


def _jpeg_part(width: int, height: int) -> int:
    """1, or 2, 4 or 8: the part of each side at which a JPEG of this size has at most MAX_PIXELS, when it can have."""
    if width * height > MAX_JPEG_PIXELS:
        return 1
    return next((part for part in (1, 2, 4, 8) if -(-width // part) * -(-height // part) <= MAX_PIXELS), 1)


def read_bytes(source: str | Path | bytes, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file by its path, of a data URI, or `source` itself when it is bytes.

    BadInput when there is no such file, when it cannot be read, when the URI is not valid base64, or when there are more
    than `max_bytes` bytes.
    """
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str) and source[: len(URI_HEAD)].lower() == URI_HEAD:
        head, comma, body = source.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise BadInput("io.uri_not_base64")
        if len(body) > max_bytes * 4 // 3 + 4:
            raise _too_heavy(len(body) * 3 // 4, max_bytes)
        try:
            data = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            raise BadInput("io.uri_damaged") from None
    else:
        if not str(source).strip():
            raise BadInput("io.picture_not_given")
        try:
            path = Path(source)
            if not path.is_file():
                raise BadInput("io.picture_missing", picture=_short(source))
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
                size = path.stat().st_size
        except (OSError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("io.picture_unreadable", picture=_short(source), reason=_reason(error)) from None
        if size > max_bytes:
            raise _too_heavy(size, max_bytes)
    if len(data) > max_bytes:
        raise _too_heavy(len(data), max_bytes)
    return data


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


def _jpeg_without_metadata(data: bytes) -> tuple[bytes, bytes, bytes]:
    """A JPEG without its comments, colour profile and EXIF, and the EXIF and the profile by themselves.

    Crafted metadata can keep Pillow's readers of it busy for hours, so only the pixels are given to Pillow. BadInput
    when the file is damaged or has more than MAX_SCANS scans.
    """
    kept, exif, profiles, at = [data[:2]], b"", list[bytes](), 2
    if data.count(b"\xff\xda") > MAX_SCANS:  # inside a scan 0xFF is always followed by 0x00 or a restart mark
        raise BadInput("io.jpeg_scans", most=MAX_SCANS)
    while True:
        head = data[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF:
            raise BadInput("io.jpeg_damaged")
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xDA:  # the pixels begin
            return b"".join([*kept, data[at:]]), exif, profile_of_jpeg(profiles)
        segment = data[at : at + 2 + length]
        if length < 2 or len(segment) < 2 + length:
            raise BadInput("io.jpeg_damaged")
        if marker == 0xE1 and not exif and segment[4:10] == b"Exif\0\0":
            exif = segment[4:]
        if marker == 0xE2 and segment[4:].startswith(JPEG_HEAD):
            profiles.append(segment[4:])
        # Of the application segments only JFIF (0xE0) and Adobe's (0xEE) say how pixels are to be read.
        if not (0xE1 <= marker <= 0xEF or marker == 0xFE) or marker == 0xEE:
            kept.append(segment)
        at += 2 + length


def _png_without_metadata(data: bytes) -> tuple[bytes, bytes, bytes]:
    """A PNG without its texts, colour profile and EXIF, and the EXIF and the profile by themselves.

    Pillow unpacks texts and profiles, and calls the picture damaged when one has more than a megabyte. What follows a
    chunk that is cut off is kept, for Pillow to say what is wrong. BadInput for more than MAX_CHUNKS chunks.
    """
    kept, exif, profile, at = [data[:8]], b"", b"", 8
    for _ in range(MAX_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if len(kind) < 4 or end > len(data):
            return b"".join([*kept, data[at:]]), exif, profile
        if kind in PNG_PIXELS:
            kept.append(data[at:end])
        elif kind == b"eXIf" and not exif:
            exif = data[at + 8 : end - 4]
        elif kind == b"iCCP" and not profile:
            profile = profile_of_png(data[at + 8 : end - 4])
        if kind == b"IEND":
            return b"".join(kept), exif, profile
        at = end
    raise BadInput("io.png_chunks", most=MAX_CHUNKS)


def _orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in a block of EXIF. 1 when there is none or it cannot be read."""
    tiff = exif[6:] if exif[:6] == b"Exif\0\0" else exif
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for at in range(start + 2, start + 2 + 12 * min(count, 256), 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, at)
            if tag == 0x0112 and kind == 3 and value in TURNS:
                return value
    except struct.error:
        pass
    return 1


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


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
