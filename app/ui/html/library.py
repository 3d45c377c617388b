"""What stands around the wall of the Library: the search, the filters, the bar for what is chosen, and the dialogs.

HTML only. The script of the tab fills the wall and the dialogs with what the server answers; `data-do` is done by the
script, `data-act` by Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from markupsafe import Markup

from app.ui.i18n import both, both_aloud, both_sentence, pair, words
from app.ui.markup import html, joined
from pipelines.errors import BadInput
from pipelines.export.presets import LOOKED_UP, TABLE

DATES = ("today", "week", "month", "year")
KEYS = (
    (("←", "→", "↑", "↓"), "lib_key_move"),
    (("Space",), "lib_key_space"),
    (("Shift", "→"), "lib_key_shift"),
    (("Ctrl", "A"), "lib_key_all"),
    (("Enter",), "lib_key_enter"),
    (("S",), "lib_key_star"),
    (("Delete",), "lib_key_delete"),
    (("Ctrl", "Z"), "lib_key_undo"),
    (("E",), "lib_key_stack"),
    (("C",), "lib_key_compare"),
    (("M",), "lib_key_more"),
    (("/",), "lib_key_search"),
    (("Esc",), "lib_key_esc"),
)
GRAMMAR = (
    ("cat:1 night:0.5", "lib_grammar_weights"),
    ("heart -red", "lib_grammar_minus"),
    ('old town, "dark sky":0.5', "lib_grammar_comma"),
)
OTHER_TOOLS = {
    "a1111": "A1111",
    "comfyui": "ComfyUI",
    "invokeai": "InvokeAI",
    "fooocus": "Fooocus",
    "novelai": "NovelAI",
    "swarmui": "SwarmUI",
    "drawthings": "Draw Things",
    "easydiffusion": "Easy Diffusion",
    "tensorart": "Tensor.Art",
    "midjourney": "Midjourney",
    "mochi": "Mochi Diffusion",
    "openai": "OpenAI",
    "firefly": "Adobe Firefly",
    "microsoft": "Microsoft",
    "stability": "Stability AI",
    "google": "Google",
}


def tool_name(tool: str) -> Markup:
    """What a pipeline or another program is called on the page."""
    for key in (f"tab_{tool}", f"engine_{tool}", f"lib_tool_{tool}"):
        if key in words():
            return both(key)
    return html("{}", OTHER_TOOLS.get(tool, tool))


def frame(*, folders: bool) -> Markup:
    """The tab before the server was asked. With `folders`, those of this computer can be opened."""
    return html(
        '<section class="library" data-folder="">{}{}<div class="filling" hidden></div>'
        '<p class="found" role="status"></p>'
        '<div class="pictures" role="group" aria-label="{}"></div><div class="further" aria-hidden="true"></div>'
        '<div class="nothing" hidden></div>{}<div class="toast" role="status" hidden></div>{}{}</section>',
        _search(),
        _filters(folders),
        both_aloud("lib_wall"),
        _tray(),
        _dialogs(),
        _said(),
    )


def _said() -> Markup:
    """What the script says by itself, in templates; `#` is a number."""
    said = {
        "undo": does("lib_undo", "undo", classes="link"),
        "chosen": both("lib_chosen", count="#"),
        "zipping": both("lib_zipping", count="#"),
        "zipped": both("lib_zipped"),
        "exporting": both("export_running", count="#"),
        "unopened": both_sentence(BadInput("io.not_a_picture")),
        "trouble": both("lib_trouble"),
    }
    texts = joined(
        html('<template class="{}">{}</template>', name, words_of) for name, words_of in said.items()
    )
    tokens = joined(
        html(
            '<template class="{}" data-words="{}: {}"></template>',
            name,
            both_aloud(f"lib_{name}"),
            both_aloud("lib_forget"),
        )
        for name in ("liked", "unliked")
    )
    return texts + tokens


# ------------------------------------------------------------------------------------------------ search and filters


def _search() -> Markup:
    return html(
        '<form class="seek" role="search"><span class="likes"></span>'
        '<label class="typed"><input type="search" name="text" maxlength="500" placeholder=" " autocomplete="off" '
        'spellcheck="false" enterkeyhint="search" aria-label="{}"><span class="hint" aria-hidden="true">{}</span></label>'
        '<button type="button" class="bare" data-do="clear" aria-label="{}" hidden>×</button>'
        '<button type="button" class="quiet" data-do="picture">{}</button>'
        '<button type="submit" class="act">{}</button>'
        '<input type="file" accept="image/png,image/jpeg,image/webp" hidden></form>',
        both_aloud("lib_search"),
        both("lib_search_hint"),
        both_aloud("lib_clear"),
        both("lib_by_picture"),
        both("find"),
    )


def _filters(folders: bool) -> Markup:
    """The chips under the search. Those with many choices are menus, which the server fills."""
    dates = joined(
        html('<button type="button" data-preset="{}">{}</button>', name, both(f"lib_{name}"))
        for name in DATES
    )
    chips = [
        _folder_menu() if folders else "",
        toggle("starred", "lib_starred", mark="★"),
        menu("tool", "lib_tool"),
        menu(
            "date",
            "lib_date",
            html('<div class="choices">{}</div>{}', dates, _field("date", "lib_date_hint")),
        ),
        menu("seed", "lib_seed", _field("seed", "lib_seed", numeric=True)),
        menu("model", "lib_model"),
        menu("tag", "lib_tag"),
        menu("words", "lib_words", _field("words", "lib_words_hint")),
        toggle("stacked", "lib_stacked", on=True),
        toggle("binned", "lib_bin"),
        does("lib_empty_bin", "sure", classes="quiet chip danger"),
    ]
    orders = joined(
        html(
            '<label><input type="radio" name="library-sort" value="{}"{}><span>{}</span></label>',
            name,
            Markup(" checked") if name == "date" else "",
            both(f"lib_sort_{name}"),
        )
        for name in ("date", "score", "likeness")
    )
    return html(
        '<div class="filters"><div class="narrow">{}</div><div class="order">'
        '<div class="engines" role="radiogroup" aria-label="{}">{}</div>'
        '<input type="range" name="size" min="88" max="360" step="8" value="176" aria-label="{}">'
        '<button type="button" class="quiet" data-do="keys"><kbd aria-hidden="true">?</kbd> {}</button></div></div>',
        joined(chips),
        both_aloud("lib_sort"),
        orders,
        both_aloud("lib_size"),
        both("lib_help"),
    )


def toggle(name: str, key: str, *, on: bool = False, mark: str = "") -> Markup:
    """A filter that is on or off."""
    return html(
        '<button type="button" class="quiet chip" data-toggle="{}" aria-pressed="{}">{}{}</button>',
        name,
        "true" if on else "false",
        html('<i aria-hidden="true">{}</i>', mark) if mark else "",
        html('<span class="name">{}</span>', both(key)),
    )


def menu(name: str, key: str, inside: str = "") -> Markup:
    """A filter that opens; what is chosen stands on it."""
    return html(
        '<details class="menu" data-menu="{}"><summary class="quiet chip"><span class="name">{}</span>'
        '<b class="value"></b></summary><div class="list">{}</div></details>',
        name,
        both(key),
        inside,
    )


def _folder_menu() -> Markup:
    return html(
        '<details class="menu" data-menu="folder"><summary class="quiet chip"><span class="name">{}</span>'
        '<b class="value"></b></summary><div class="list"><div class="choices" data-fill="folder"></div>'
        '<p class="small">{}</p>{}</div></details>',
        both("lib_folder"),
        both("lib_folder_open"),
        _field("folder", "lib_folder_hint", go="lib_open"),
    )


def _field(name: str, hint: str, *, numeric: bool = False, go: str = "lib_set") -> Markup:
    """A text of a menu with its button. The hint is read out as its name."""
    return html(
        '<form class="line" data-set="{}"><label class="typed"><input type="text" name="{}" placeholder=" " '
        'autocomplete="off" spellcheck="false"{} aria-label="{}"><span class="hint" aria-hidden="true">{}</span></label>'
        '<button type="submit" class="quiet">{}</button></form>',
        name,
        name,
        Markup(' inputmode="numeric"') if numeric else "",
        both_aloud(hint),
        both(hint),
        both(go),
    )


def choices(name: str, counts: Mapping[str, int]) -> Markup:
    """What a menu offers: a button for each value with the number of its pictures, and one for all."""
    if not counts:
        return html('<p class="small">{}</p>', both("lib_none_yet"))
    buttons = joined(
        html(
            '<button type="button" data-choose="{}" data-value="{}"><span>{}</span><small>{:,}</small></button>',
            name,
            value,
            tool_name(value) if name == "tool" else value,
            count,
        )
        for value, count in counts.items()
    )
    any_of = html('<button type="button" data-choose="{}" data-value="">{}</button>', name, both("lib_any"))
    return html('<div class="choices">{}{}</div>', any_of, buttons)


def folder_choices(opened: Mapping[str, str]) -> Markup:
    """The pictures made here, and the folders that were opened beside them, by their keys."""
    here = html(
        '<button type="button" data-choose="folder" data-value="">{}</button>', both("lib_folder_here")
    )
    return here + joined(
        html(
            '<button type="button" data-choose="folder" data-value="{}" title="{}"><span>{}</span></button>',
            key,
            place,
            place.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] or place,
        )
        for key, place in opened.items()
    )


# ---------------------------------------------------------------------------------------------- what is chosen, dialogs


def does(key: str, do: str, *, classes: str = "quiet", **data: object) -> Markup:
    """A button whose work the script does."""
    facts = joined(html(' data-{}="{}"', name, value) for name, value in data.items())
    return html('<button type="button" class="{}" data-do="{}"{}>{}</button>', classes, do, facts, both(key))


def sending(name: str = "") -> Iterable[Markup]:
    """The buttons that send one picture to a tool; `name` is what the page calls a picture that was made here."""
    for key, act in (
        ("lib_vary", "generate"),
        ("optimize_this", "optimize"),
        ("edit_this", "edit"),
        ("why", "see"),
    ):
        yield does(key, "send", to=act, name=name)


def _tray() -> Markup:
    """The bar that appears when something is chosen."""
    tag = html('<div class="choices" data-fill="tags"></div>{}', _field("add-tag", "lib_tag_add"))
    note = html(
        '<form class="line" data-set="note"><textarea name="note" rows="3" maxlength="4000" aria-label="{}"></textarea>'
        '<button type="submit" class="quiet">{}</button></form>',
        both_aloud("lib_note"),
        both("lib_save_note"),
    )
    send = html(
        '<div class="choices">{}{}{}</div>',
        joined(sending()),
        does("reuse", "send", to="reuse"),
        does("remix", "send", to="remix"),
    )
    return html(
        '<div class="tray" role="toolbar" aria-label="{}" hidden><b class="count" aria-live="polite"></b>'
        '<div class="deeds">{}{}{}{}{}{}{}{}{}{}{}</div>'
        '<button type="button" class="bare" data-do="none" aria-label="{}">×</button></div>',
        both_aloud("lib_wall"),
        html(
            '<button type="button" class="quiet" data-do="star"><i aria-hidden="true">★</i>{}</button>',
            both("lib_star"),
        ),
        menu("tags", "lib_tag", tag),
        menu("note", "lib_note", note),
        does("lib_compare", "compare"),
        does("lib_like", "like"),
        does("lib_unlike", "unlike"),
        menu("send", "lib_send", send),
        does("lib_zip", "zip"),
        menu("export", "export", _exports()),
        does("lib_restore", "restore"),
        does("lib_delete", "bin"),
        both_aloud("lib_let_go"),
    )


def _exports() -> Markup:
    """A button for each place where the chosen pictures may go, and how they are dressed for it."""
    places = joined(
        html(
            '<button type="button" data-do="export" data-place="{}"{}><span>{}</span><small>{}</small></button>',
            preset.name,
            "" if preset.moving else Markup(' data-still=""'),
            pair(*preset.label),
            pair(*preset.note),
        )
        for preset in TABLE
    )
    boxes = joined(
        html('<label><input type="checkbox" name="{}"> {}</label>', name, both(f"export_{name}"))
        for name in ("outline", "moving")
    )
    note = html('<p class="small">{}</p>', both("export_note", date=LOOKED_UP))
    return html('<div class="dress">{}</div><div class="choices">{}</div>{}', boxes, places, note)


def closing() -> Markup:
    """The button that closes a dialog."""
    return html(
        '<button type="button" class="bare close" data-do="close" aria-label="{}">×</button>',
        both_aloud("lib_close"),
    )


def _dialogs() -> Markup:
    keys = joined(
        html(
            "<li><span>{}</span> {}</li>",
            joined(html("<kbd>{}</kbd>", key) for key in combination),
            both(word),
        )
        for combination, word in KEYS
    )
    grammar = joined(html("<li><code>{}</code> {}</li>", text, both(key)) for text, key in GRAMMAR)
    return html(
        '<dialog class="big" aria-label="{}"></dialog><dialog class="beside" aria-label="{}"></dialog>'
        '<dialog class="told-of" aria-label="{}"></dialog>'
        '<dialog class="keys-of" aria-label="{}"><header><h2>{}</h2>{}</header><ul class="keys-list">{}</ul>'
        '<p class="small">{}</p><h3>{}</h3><ul class="keys-list grammar">{}</ul><p class="small">{}</p></dialog>'
        '<dialog class="sure" aria-label="{}"><p></p><div class="acts">{}{}</div></dialog>',
        both_aloud("lib_this"),
        both_aloud("lib_compare"),
        both_aloud("lib_broken_which"),
        both_aloud("lib_help"),
        both("lib_keys_title"),
        closing(),
        keys,
        both("lib_key_drag"),
        both("lib_grammar_title"),
        grammar,
        both("lib_grammar_picture"),
        both_aloud("lib_empty_bin"),
        does("lib_cancel", "close"),
        does("lib_empty_yes", "empty", classes="quiet danger"),
    )
