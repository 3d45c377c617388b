"""Everything the page says, in English and Simplified Chinese.

Gradio's own labels take `text(key)` and follow the browser at first; the page sends new ones when the artist switches.
What we write as HTML holds both languages side by side (`both`), and the style sheet shows one of them, so that a
running page switches at once and no watcher has to know who reads what.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import gradio as gr
from markupsafe import Markup

from app.ui.markup import html
from pipelines.core.settings import Knob
from pipelines.errors import LANGUAGES, CodedError, Message
from pipelines.studio import PIPELINES
from pipelines.weights.checkpoint import Checkpoint

STRINGS = Path(__file__).parents[2] / "assets" / "strings" / "page.json"
MODELS = STRINGS.with_name("models.json")


def _knob_words() -> dict[str, tuple[str, str, str]]:
    """Label, label in Chinese and help in Chinese of every setting, by PIPELINE_NAME.

    By NAME alone they are those of the first pipeline of the list that has such a setting.
    """
    words: dict[str, tuple[str, str, str]] = {}
    for pipeline, kind in PIPELINES.items():
        for knob in kind.Settings.knobs():
            entry = (*knob.label, knob_help(knob, "zh"))
            words.setdefault(knob.name, entry)
            words[f"{pipeline}_{knob.name}"] = entry
    return words


def knob_help(knob: Knob, language: str) -> str:
    """What a setting does, as the page says it; where it says nothing else, an empty field means what the model likes."""
    text, empty, rest = {
        "en": (knob.help, "empty", "; empty for what the model likes"),
        "zh": (knob.help_zh, "留空", "；留空则由模型决定"),
    }[language]
    return text + (rest if knob.optional and empty not in text else "")


KNOBS = _knob_words()

SETTING_LABELS = {name: chinese for name, (_, chinese, _) in KNOBS.items()}


@cache
def words() -> dict[str, tuple[str, str]]:
    """The page's own words by their keys, in English and Chinese, read once from assets/strings/page.json."""
    return {
        key: (english, chinese) for key, (english, chinese) in json.loads(STRINGS.read_text("utf-8")).items()
    }


def text(key: str) -> object:
    """A marker for Gradio's labels: the browser puts in the words of its own language."""
    return gr.I18n()(key)


def knob_words(name: str) -> tuple[str, str, str]:
    """A setting's label in both languages and its help in Chinese; one without words is called by its name."""
    plain = name.replace("_", " ")
    return KNOBS.get(name, (plain, plain, ""))


def value_words(pipeline: str, name: str, value: object) -> tuple[str, str]:
    """A value of a setting in both languages, as its field shows it; any other value as it is written."""
    if value is None:
        return words()["model_decides"]
    if isinstance(value, bool):
        return words()["yes" if value else "no"]
    kind = PIPELINES.get(pipeline)
    said = {knob.name: knob.said for knob in kind.Settings.knobs()}.get(name, {}) if kind else {}
    return said.get(str(value), (str(value), str(value)))


def say(key: str, language: str, helps: dict[str, str] | None = None) -> str:
    """Plain text in one language, for labels of Gradio's components. Keys are those that `text` takes."""
    index = LANGUAGES.index(language)
    if key.startswith("knob_"):
        return knob_words(key[5:])[index]
    if key.startswith("help_"):
        help_text = (helps or {}).get(key[5:], "")
        return (knob_words(key[5:])[2] or help_text) if index else help_text
    return words()[key][index]


def both(key: str, **facts: object) -> Markup:
    """HTML in both languages; the facts are escaped."""
    english, chinese = (Markup(sentence).format(**facts) for sentence in words()[key])
    return pair(english, chinese)


@cache
def _models() -> dict[str, str]:
    """What the catalog's models are, in Chinese, by their names."""
    return json.loads(MODELS.read_text("utf-8"))


def about(checkpoint: Checkpoint) -> Markup:
    """What a model is, in both languages; of the user's own what its file tells, as it is."""
    chinese = _models().get(checkpoint.name)
    return pair(checkpoint.about, chinese) if chinese else html("{}", checkpoint.about)


def both_aloud(key: str) -> str:
    """Plain text in both languages, for attributes that are read aloud: HTML has no room for two there."""
    return ", ".join(words()[key])


def spoken(english: str, chinese: str) -> Markup:
    """Attributes of an option or of a field, from which the script writes the words of the language that is spoken."""
    return html(' data-said-en="{}" data-said-zh="{}"', english, chinese)


def hint(key: str) -> Markup:
    """Attributes of a field: what stands in it while it is empty."""
    return html(' placeholder="{}"{}', words()[key][0], spoken(*words()[key]))


def pair(english: str, chinese: str) -> Markup:
    """HTML of which the style sheet shows one half."""
    return html(
        '<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>', english, chinese
    )


def both_sentence(problem: Message | Exception) -> Markup:
    """HTML in both languages of what went wrong. An error without a code says what it says in both."""
    if isinstance(problem, CodedError):
        problem = problem.message
    message = problem if isinstance(problem, Message) else Message.from_json(str(problem))
    english, chinese = message.text(), message.text("zh", SETTING_LABELS)
    shown = english[:1].upper() + english[1:] + ("" if english.endswith((".", "!", "?")) else ".")
    return pair(shown, chinese if chinese == english else chinese + "。")
