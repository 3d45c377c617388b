"""Where pictures go, and what is asked of them there: one table, looked up in LOOKED_UP.

Of platforms that say KB and not whether they mean 1,000 or 1,024 bytes the smaller is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.errors import BadInput

LOOKED_UP = "2026-11"
KB = 1_000
WHITE = "#ffffff"


@dataclass(frozen=True)
class Form:
    """One file that is made of a picture. Lengths are in pixels."""

    suffix: str
    side: int  # of the longer side; 0 for the picture's own, of forms of the whole
    most: int = 0  # bytes; 0 for no limit
    square: bool = True  # whether both sides are as long
    margin: int = 0  # that stays empty on each side
    ground: str = ""  # a colour; transparent unless given
    ending: str = ""  # of the file's name, before the suffix
    whole: bool = False  # the picture as it is, of which nothing is cut off
    together: bool = False  # all pictures of a set in one, each in a cell of `side`, with an outline
    seconds: float = 0.0  # a moving one lasts at most; 0 for one that stands still
    rate: int = 0  # frames a second of a moving one, at most

    @property
    def moves(self) -> bool:
        """Whether it is an animation."""
        return self.seconds > 0


@dataclass(frozen=True)
class Preset:
    """One place: what a picture becomes there, what a moving one becomes, and what a whole set gets once."""

    name: str  # on the command line
    label: tuple[str, str]  # in English and Chinese
    note: tuple[str, str]  # what is made, in a few words
    still: tuple[Form, ...]
    moving: tuple[Form, ...] = ()
    once: tuple[Form, ...] = ()  # of the first picture, or of all together
    fewest: int = 1
    most: int = 0  # pictures of a set; 0 for any number
    joint: str = "-"  # between the words of a file's name
    keeps_record: bool = False

    def check(self, count: int, moving: bool) -> None:
        """BadInput when so many pictures are no set for this place, or when nothing moves there."""
        if moving and not self.moving:
            raise BadInput("export.nothing_moves", place=self.name, known=", ".join(moving_places()))
        if count < self.fewest:
            raise BadInput("export.too_few", place=self.name, count=count, least=self.fewest)
        if self.most and count > self.most:
            raise BadInput("export.too_many", place=self.name, count=count, most=self.most)


SVG_BYTES = 60 * KB
TABLE = (
    Preset(
        "png",
        ("Transparent PNG", "透明 PNG"),
        ("as large as the picture, with its record", "与原图同大，含记录"),
        (Form(".png", 0, square=False, whole=True),),
        keeps_record=True,
    ),
    Preset(
        "png-256",
        ("PNG, 256 px", "PNG，256 像素"),
        ("transparent, crisp edges, with its record", "透明，边缘清晰，含记录"),
        (Form(".png", 256, square=False, whole=True),),
        keeps_record=True,
    ),
    Preset(
        "png-512",
        ("PNG, 512 px", "PNG，512 像素"),
        ("transparent, crisp edges, with its record", "透明，边缘清晰，含记录"),
        (Form(".png", 512, square=False, whole=True),),
        keeps_record=True,
    ),
    Preset(
        "svg",
        ("SVG", "SVG 矢量图"),
        ("traced, 60 KB", "描摹而成，不超过 60 KB"),
        (Form(".svg", 0, SVG_BYTES, square=False, whole=True),),
    ),
    Preset(
        "slack",
        ("Slack emoji", "Slack 表情"),
        ("128 px, PNG, 128 KB", "128 像素 PNG，不超过 128 KB"),
        (Form(".png", 128, 128 * KB),),
    ),
    Preset(
        "discord-emoji",
        ("Discord emoji", "Discord 表情"),
        ("128 px, PNG, 256 KB", "128 像素 PNG，不超过 256 KB"),
        (Form(".png", 128, 256 * KB),),
        joint="_",
    ),
    Preset(
        "discord-sticker",
        ("Discord sticker", "Discord 贴纸"),
        ("320 px, PNG or APNG, 512 KB", "320 像素 PNG 或 APNG，不超过 512 KB"),
        (Form(".png", 320, 512 * KB),),
        (Form(".png", 320, 512 * KB, seconds=5.0, rate=30),),
    ),
    Preset(
        "telegram",
        ("Telegram stickers", "Telegram 贴纸"),
        ("one side 512 px, WebP or WebM, 512 or 256 KB", "一边 512 像素，WebP 或 WebM，不超过 512 或 256 KB"),
        (Form(".webp", 512, 512 * KB, square=False),),
        (Form(".webm", 512, 256 * KB, seconds=3.0, rate=30),),
        most=120,
    ),
    Preset(
        "whatsapp",
        ("WhatsApp stickers", "WhatsApp 贴纸"),
        (
            "512 px, WebP, 100 or 500 KB, 3 to 30 a pack",
            "512 像素 WebP，不超过 100 或 500 KB，每包 3 至 30 个",
        ),
        (Form(".webp", 512, 100 * KB, margin=16),),
        (Form(".webp", 512, 500 * KB, margin=16, seconds=10.0, rate=25),),
        once=(Form(".png", 96, 50 * KB, ending="tray"),),
        fewest=3,
        most=30,
    ),
    Preset(
        "web",
        ("Web icons", "网站图标"),
        ("favicon.ico, 180, 192, 512 px, maskable", "favicon.ico，180、192、512 像素，可遮罩"),
        (
            Form(".ico", 48, ending="favicon"),
            Form(".png", 180, margin=12, ground=WHITE, ending="apple-touch-icon"),
            Form(".png", 192, ending="icon-192"),
            Form(".png", 512, ending="icon-512"),
            Form(".png", 512, margin=74, ground=WHITE, ending="maskable-512"),  # inside a circle of 80 %
        ),
    ),
    Preset(
        "sheet",
        ("Sticker sheet", "贴纸版"),
        ("all in one PNG, each with a white outline", "合成一张 PNG，各带白边"),
        (),
        once=(Form(".png", 256, ending="sticker-sheet", together=True),),
        fewest=2,
        most=60,
    ),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in TABLE}


def preset_of(name: str) -> Preset:
    """A row of the table. BadInput, with the names there are, for another name."""
    if name not in PRESETS:
        raise BadInput("export.place_unknown", place=name[:40], known=", ".join(PRESETS))
    return PRESETS[name]


def moving_places() -> list[str]:
    """The names of places for pictures that move."""
    return [preset.name for preset in TABLE if preset.moving]
