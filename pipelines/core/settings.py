"""Settings: what a run depends on besides the models, as a frozen dataclass whose fields carry their ranges."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import (
    Any,
    ClassVar,
    Generic,
    Protocol,
    Self,
    TypeVar,
    get_args,
    get_type_hints,
    runtime_checkable,
)

from pipelines.core.axes import BETWEEN, USE, WORDS, Axis, parse_axis
from pipelines.core.prompt_notes import Grammar, notes_on_several
from pipelines.core.prompts import FULL_WIDTH, parse_scenes, parse_targets
from pipelines.errors import BadInput, Message
from pipelines.io.images import picture_notes
from pipelines.io.visible import visible


def knob(
    default: Any,
    lo: float | None = None,
    hi: float | None = None,
    *,
    help: str,
    label: tuple[str, str] = ("", ""),
    help_zh: str = "",
    advanced: bool = False,
    choices: Sequence[str] | Mapping[str, tuple[str, str] | None] | None = None,
    kind: str | None = None,
    flag: str | None = None,
) -> Any:
    """A field of Settings that carries its range and its words for the page, the command line, the API and the record.

    Args:
        default: The default value. None means that the model's own value is used.
        lo: The least value, included.
        hi: The largest value, included.
        help: What the setting does, in English.
        label: Its name on the page, in English and in Chinese.
        help_zh: What the setting does, in Chinese.
        advanced: Whether the page shows it among the advanced settings.
        choices: The allowed values. A mapping gives each its words on the page, in English and in Chinese; None for a
            name, which is shown as it is.
        kind: "prompt" (free text), "picture" (a path or a data URI of a picture), "seed", a pipeline's own word for a
            text with a grammar, or None for what the type says.
        flag: Its name on the command line, where that is not the field's name.

    Returns:
        A dataclass field.
    """
    facts = {"lo": lo, "hi": hi, "label": label, "help": help, "help_zh": help_zh}
    said = {value: words for value, words in choices.items() if words} if isinstance(choices, Mapping) else {}
    facts |= {"advanced": advanced, "choices": None if choices is None else tuple(choices), "said": said}
    facts |= {"kind": kind, "flag": flag}
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Knob:
    """One field of Settings with what `knob` was given, as `Settings.knobs` returns it."""

    name: str
    type: type
    optional: bool  # None is allowed, and means what the model likes
    default: Any
    lo: float | None
    hi: float | None
    label: tuple[str, str]
    help: str
    help_zh: str
    advanced: bool
    choices: tuple[str, ...] | None
    said: Mapping[str, tuple[str, str]]  # words of choices on the page, in English and in Chinese
    kind: str | None
    flag: str | None

    def words_of(self, value: str) -> tuple[str, str]:
        """A choice as the page shows it, in English and in Chinese; a name is shown as it is."""
        return self.said.get(value, (value, value))

    def range_text(self) -> str:
        """The range and the default in brackets, as " (1 to 9; default: 4)". Empty when it has neither."""
        parts: list[str] = []
        if self.choices:
            parts.append("one of " + ", ".join(self.choices))
        elif self.lo is not None and self.hi is not None:
            parts.append(f"{self.lo:g} to {self.hi:g}" if self.hi < 1e6 else f"{self.lo} to {self.hi}")
        elif self.lo is not None:
            parts.append(f"at least {self.lo:g}")
        if self.name != "prompt" and self.default != "":
            shown = ("yes" if self.default else "no") if self.type is bool else self.default
            shown = "what the model likes" if self.optional and self.default is None else shown
            parts.append(f"default: {shown}")
        return f" ({'; '.join(parts)})" if parts else ""


AUTO = ("auto", "自动")  # the words of a choice that the model or the pack makes
PROMPT_LIMIT = 2000  # characters; a prompt is a sentence, not a book
WHITE = "\t\n\v\f\r\x85"  # control characters that are white space: slides paste line breaks as \v


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a run depends on besides the models. Equal settings give equal pictures.

    Subclasses add fields made by `knob`. Values are checked on construction: BadInput names the field, the value and
    what would be accepted. `subject` is the field that the command line takes without a flag. `aliases` maps former names
    of fields, which records, journals, jobs and links may hold, to their present names. `file_flag` is the command line's
    flag for a settings file of another program, which `read_file` reads; "" for none. `grammar` is
    what the prompt may hold: "words" alone, weighted "terms", or "scenes" of them.
    """

    subject: ClassVar[str] = "prompt"
    grammar: ClassVar[Grammar] = "words"
    file_flag: ClassVar[str] = ""
    aliases: ClassVar[dict[str, str]] = {}

    prompt: str = knob(
        "a red heart",
        label=("prompt", "提示词"),
        help="what to draw, in English or Chinese",
        help_zh="要画什么，中文英文都可以",
        kind="prompt",
    )
    seed: int = knob(
        0,
        0,
        2**64 - 1,
        label=("seed", "随机种子"),
        help="same seed, same picture; -1 rolls one",
        help_zh="种子相同，画面相同；-1 为随机",
        kind="seed",
    )
    x: str = knob(
        "",
        label=("sheet: columns", "对照表：各列"),
        help='one column a value, as guidance=1,3,5 or seed=1..4 or words=cat,dog: "cat" of the prompt exchanged',
        help_zh="每个值一列，如 guidance=1,3,5、seed=1..4，或 words=cat,dog（换掉提示词里的 cat）",
        advanced=True,
        kind="axis",
    )
    y: str = knob(
        "",
        label=("sheet: rows", "对照表：各行"),
        help="the same for rows; at most 8 x 8 pictures, each with its own record, and the sheet of all",
        help_zh="同上，用于各行；最多 8 x 8 张，每张有自己的记录，另有一张总表",
        advanced=True,
        kind="axis",
    )

    def __post_init__(self) -> None:
        for knob in self.knobs():
            value = getattr(self, knob.name)
            if not (value is None and knob.optional):
                object.__setattr__(self, knob.name, _checked(knob, value, self.may_lack_prompt))
        if self.x or self.y:
            self.cells()

    @property
    def may_lack_prompt(self) -> bool:
        """Whether the prompt may be empty."""
        return False

    def axes(self) -> tuple[Axis | None, Axis | None]:
        """The axes of the sheet that is asked for, of columns and of rows. BadInput for a text of another form."""
        return parse_axis(self.x), parse_axis(self.y)

    def cells(self) -> list[Cell[Self]]:
        """The runs of the sheet, row by row. BadInput when an axis, or settings at a place, cannot be."""
        columns, rows = self.axes()
        if columns and rows and columns.name == rows.name:
            raise BadInput("core.axes_alike", axis=columns.name[:40])
        plain = dataclasses.replace(self, x="", y="")
        cells = [Cell(plain, {})]
        for axis in (rows, columns):
            if axis is not None:
                cells = [cell.moved(axis, value) for cell in cells for value in axis.values]
        return cells

    @classmethod
    def knobs(cls) -> list[Knob]:
        """The fields in order of definition, with their ranges and words."""
        knobs: list[Knob] = []
        types = get_type_hints(cls)
        for f in dataclasses.fields(cls):
            kinds = get_args(types[f.name])  # of `int | None` both
            optional = NoneType in kinds
            kind = next(kind for kind in kinds if kind is not NoneType) if optional else types[f.name]
            knobs.append(Knob(name=f.name, type=kind, optional=optional, default=f.default, **f.metadata))
        return knobs

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings from plain values by present or former name, as a record or a form holds them.

        Earlier versions wrote 0 for the model's own value, so 0 is read as None where the range begins above 0. BadInput
        for unknown names and for values out of range.
        """
        values = cls.current_names(values)
        known = {knob.name: knob for knob in cls.knobs()}
        for name in values:
            if name not in known:
                raise BadInput("settings.unknown", setting=name, known=", ".join(sorted(known)))
        return cls(**{name: _without_old_zero(known[name], value) for name, value in values.items()})

    @classmethod
    def current_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values with every former name of a field replaced by the present one, in the same order.

        Nothing else is checked. BadInput when a field is given by two of its names.
        """
        names: dict[str, str] = {}  # present name -> the name that was given
        for name in values:
            present = cls.aliases.get(name, name)
            if present in names:
                raise BadInput("settings.given_twice", setting=present, first=names[present], second=name)
            names[present] = name
        return {present: values[name] for present, name in names.items()}

    @classmethod
    def read_file(cls, text: str, beside: Mapping[str, Any]) -> tuple[dict[str, Any], list[Message]]:
        """What the text of another program's settings means, and what is told of it.

        `beside` are values by present names that are given beside the file and win over it. The values have present
        names and are not checked. BadInput when the text is none. Only for those with a `file_flag`.
        """
        raise NotImplementedError

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """The settings of a record by present names, not checked yet.

        Subclasses add what earlier versions kept in its `picture`.
        """
        return cls.current_names(values)

    def to_dict(self) -> dict[str, Any]:
        """The values by name, as JSON can hold them."""
        return dataclasses.asdict(self)

    def notes(self) -> list[Message]:
        """What to tell before a run: what the prompt holds without effect, and which pictures are made smaller."""
        pictures = [note for source in self.files() for note in picture_notes(source)]
        return [*self.notes_on_prompt(), *pictures]

    def notes_on_prompt(self) -> list[Message]:
        """What the prompt, and other texts to draw, hold that is read as words, or is without effect."""
        return notes_on_several([self.prompt, *filter(None, self.other_texts())], self.grammar)

    def other_texts(self) -> list[str]:
        """The settings beside the prompt that say what to draw, in the same grammar; "" for those that are empty."""
        return []

    def files(self) -> list[str]:
        """The pictures in the settings, each a path or a data URI."""
        sources: list[str] = []
        self.map_pictures(lambda source: sources.append(source) or source)
        return sources

    def map_pictures(self, change: Callable[[str], str]) -> Self:
        """The settings with `change` applied to every picture in them, each a path or a data URI."""
        pictures = {
            setting.name: getattr(self, setting.name) for setting in self.knobs() if setting.kind == "picture"
        }
        return dataclasses.replace(
            self, **{name: change(source) for name, source in pictures.items() if source}
        )


S_co = TypeVar("S_co", bound=Settings, covariant=True)


@dataclass(frozen=True)
class Cell(Generic[S_co]):
    """One run of a sheet: its settings, and the models that have parts of the pack in it."""

    settings: S_co
    use: dict[str, str]

    def moved(self, axis: Axis, value: str) -> Cell[S_co]:
        """This run at a value of an axis. BadInput when its settings have no such value."""
        settings = self.settings
        if axis.part:
            return Cell(settings, {**self.use, axis.part: value})
        if axis.name in (WORDS, BETWEEN):
            return Cell(dataclasses.replace(settings, prompt=_worded(settings, axis, value)), self.use)
        knobs = {knob.name: knob for knob in settings.knobs() if knob.kind not in ("axis", "picture")}
        name = settings.aliases.get(axis.name, axis.name)
        if name not in knobs:
            known = ", ".join([*sorted(knobs), WORDS, BETWEEN, f"{USE}PART"])
            raise BadInput("core.axis_unknown", axis=axis.name[:40], known=known)
        return Cell(dataclasses.replace(settings, **{name: spelled(knobs[name], value)}), self.use)


@runtime_checkable
class Changeable(Protocol):
    """Settings of a Resumable pipeline whose runs may go on from a snapshot with other settings."""

    def changed(self, step: int, **fields: Any) -> Settings:
        """These settings with fields changed from `step` on. BadInput for fields that cannot change there."""
        ...


@runtime_checkable
class HasTimeline(Protocol):
    """Settings that hold what was changed during the run."""

    def timeline(self) -> list[tuple[int, Settings]]:
        """Pairs of a step and the settings in force from it on, in order, the first at step 0."""
        ...


def _worded(settings: Settings, axis: Axis, value: str) -> str:
    """The prompt of settings at a value of the axis WORDS or BETWEEN. BadInput when it lacks the axis's first words."""
    prompt, first = settings.prompt, (axis.ends or axis.values)[0]
    if first not in prompt:
        raise BadInput("core.axis_words", axis=axis.name, words=first[:40], prompt=prompt[:60])
    if not axis.ends:
        return prompt.replace(first, value)
    if settings.grammar == "words" or len(parse_scenes(prompt)) > 1 or len(parse_targets(prompt)) > 1:
        raise BadInput("core.axis_between_here", prompt=prompt[:60])
    weight, other = float(value), prompt.replace(first, axis.ends[1])
    return (
        prompt if weight == 0 else other if weight == 1 else f"{prompt}:{1 - weight:g} | {other}:{weight:g}"
    )


def spelled(knob: Knob, text: str) -> Any:
    """A value from the text that spells it. A text that spells none is returned, for `_checked` to refuse."""
    if knob.type is bool:
        truths = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
        return truths.get(text.lower(), text)
    text = text.translate(FULL_WIDTH) if knob.type in (int, float) else text
    if knob.type in (int, float) and re.fullmatch(r"-?\d{1,20}(\.\d*)?|-?\.\d+", text):
        return float(text) if "." in text else int(text)
    return text


def _without_old_zero(knob: Knob, value: Any) -> Any:
    """None for a 0 where the range begins above 0, which means the model's own value. Other values are unchanged."""
    is_zero = isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0
    return None if is_zero and knob.optional and (knob.lo or 0) > 0 else value


def _checked(setting: Knob, value: Any, may_be_empty: bool = False) -> Any:
    """The value in the knob's type. BadInput when it is of another type, out of range or not among the choices.

    `may_be_empty` is for prompts.
    """
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if setting.type is bool:
        if not isinstance(value, bool):
            raise BadInput("settings.not_boolean", setting=setting.name, value=shown)
    elif setting.type in (int, float):
        if setting.kind == "seed":
            value = _seed(value)
        number: Any = value
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        good = good and abs(number) <= 2**64  # neither nan nor infinite, and float(value) cannot overflow
        if not good or (setting.type is int and int(value) != value):
            example = setting.lo if setting.default is None else setting.default
            raise BadInput(
                "settings.not_whole" if setting.type is int else "settings.not_a_number",
                setting=setting.name,
                value=shown,
                example=example,
            )
        value = setting.type(value)
        if setting.lo is not None and value < setting.lo:
            raise BadInput("settings.too_small", setting=setting.name, value=shown, least=setting.lo)
        if setting.hi is not None and value > setting.hi:
            raise BadInput("settings.too_large", setting=setting.name, value=shown, most=setting.hi)
    elif not isinstance(value, str):
        raise BadInput("settings.not_text", setting=setting.name, value=shown)
    elif setting.kind == "prompt":
        value = clean_prompt(value, may_be_empty)
    if setting.choices is not None and value not in setting.choices:
        raise BadInput(
            "settings.not_a_choice", setting=setting.name, value=shown, choices=", ".join(setting.choices)
        )
    return value


def _seed(value: Any) -> Any:
    """A seed as a number from what the page and the field write. Any other value is returned.

    The page sends digits as text, because numbers of JavaScript are exact up to 2^53 only. -1 and "random" are a chance
    seed below 2^32, rolled here once, so that whatever holds the settings holds the number.
    """
    text = str(value).strip().lower() if isinstance(value, (int, str)) else ""
    if text in ("-1", "random"):
        return secrets.randbits(32)
    text = text.translate(FULL_WIDTH).removeprefix("+")
    return int(text) if isinstance(value, str) and re.fullmatch("[0-9]{1,20}", text) else value


def clean_prompt(text: str, may_be_empty: bool = False) -> str:
    """The prompt without characters that cannot be seen, runs of white space made one space each, and none at its ends.

    BadInput when it is empty and may not be, longer than PROMPT_LIMIT characters, or holds control characters or lone
    surrogates.
    """
    for character in text:
        if (ord(character) < 32 or 127 <= ord(character) < 160) and character not in WHITE:
            raise BadInput("settings.control_character", number=ord(character))
        if 0xD800 <= ord(character) < 0xE000:
            raise BadInput("settings.half_a_pair")
    text = " ".join(visible(text).split())
    if not text and not may_be_empty:
        raise BadInput("settings.prompt_empty")
    if len(text) > PROMPT_LIMIT:
        raise BadInput("settings.prompt_too_long", count=len(text), most=PROMPT_LIMIT)
    return text
