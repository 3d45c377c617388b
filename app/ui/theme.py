"""The look: colours as tokens for light and dark, Gradio's variables set from them, and the files of style and script."""

from __future__ import annotations

import os
import re
from html import escape
from pathlib import Path

import gradio as gr

ASSETS = Path(__file__).parents[2] / "assets"
INSIDE = ":is(html, .w.w.w)"  # any element of the page, with the weight of three classes (none is called "w")
OUTSIDE = re.compile(r"html|body|footer|\.gradio-container|\.api-docs|@|from\b|to\b|[\d.]+%")
SHEETS = ("style.css", "axes.css", "see.css", "comfort.css", "library.css", "train.css")
SCRIPTS = (
    "common.js",
    "connection.js",
    "brush.js",
    "page.js",
    "prompts.js",
    "optimize.js",
    "edit.js",
    "generate.js",
    "axes.js",
    "see.js",
    "comfort.js",
    "compare.js",
    "library.js",
    "library_large.js",
    "library_keys.js",
    "train.js",
)

# name -> light, dark. Texts keep a contrast of at least 4.5:1 with what they stand on.
TOKENS: dict[str, tuple[str, str]] = {
    "paper": ("#FAF8F4", "#16140F"),
    "card": ("#FFFEFB", "#1E1B15"),
    "well": ("#F3EFE7", "#110F0B"),
    "ink": ("#1E1B16", "#EFEAE0"),
    "quiet": ("#6F685C", "#A49B8B"),
    "line": ("#E6E0D6", "#2C2820"),
    "edge": ("#8F8778", "#7A7263"),  # borders of inputs: 3:1
    "accent": ("#D9432F", "#F0624D"),
    "accent-fill": ("#CF3D2A", "#F0624D"),
    "accent-hover": ("#B83322", "#F47A67"),
    "accent-text": ("#BE3725", "#F47A67"),
    "on-accent": ("#FFFFFF", "#16140F"),
    "focus": ("#2F6FD9", "#7FAAF0"),
    "good": ("#36683F", "#8CC79A"),
    "shadow": (
        "0 1px 2px rgb(30 27 22 / .05), 0 8px 24px rgb(30 27 22 / .07)",
        "0 8px 24px rgb(0 0 0 / .45)",
    ),
}


def studio_theme() -> gr.themes.Base:
    """Gradio's own variables, all of them said in tokens, so that light and dark follow by themselves."""
    tokens = {
        "body_background_fill": "paper",
        "body_text_color": "ink",
        "body_text_color_subdued": "quiet",
        "background_fill_primary": "card",
        "background_fill_secondary": "well",
        "border_color_primary": "line",
        "border_color_accent": "line",
        "color_accent_soft": "well",
        "block_label_text_color": "quiet",
        "block_title_text_color": "quiet",
        "block_info_text_color": "quiet",
        "input_background_fill": "card",
        "input_background_fill_focus": "card",
        "input_border_color": "edge",
        "input_border_color_focus": "focus",
        "input_placeholder_color": "quiet",
        "slider_color": "accent",
        "checkbox_background_color": "card",
        "checkbox_background_color_selected": "accent-fill",
        "checkbox_border_color": "edge",
        "checkbox_border_color_selected": "accent-fill",
        "checkbox_label_text_color": "ink",
        "button_primary_background_fill": "accent-fill",
        "button_primary_background_fill_hover": "accent-hover",
        "button_primary_border_color": "accent-fill",
        "button_primary_text_color": "on-accent",
        "button_secondary_background_fill": "card",
        "button_secondary_background_fill_hover": "well",
        "button_secondary_border_color": "line",
        "button_secondary_text_color": "ink",
        "link_text_color": "accent-text",
    }
    values = {f"{name}{dark}": f"var(--{token})" for name, token in tokens.items() for dark in ("", "_dark")}
    # the first paint, before any style sheet, wants real colours
    values |= dict(zip(("body_background_fill", "body_background_fill_dark"), TOKENS["paper"], strict=True))
    values |= dict(zip(("body_text_color", "body_text_color_dark"), TOKENS["ink"], strict=True))
    clear = ("block_background_fill", "block_label_background_fill", "block_title_background_fill")
    values |= {f"{name}{dark}": "transparent" for name in clear for dark in ("", "_dark")}
    none = ("block_border_width", "panel_border_width", "block_padding", "block_label_border_width")
    values |= dict.fromkeys(none, "0px")
    values |= {"block_shadow": "none", "checkbox_label_background_fill": "transparent"}
    values |= {"block_radius": "10px", "input_radius": "10px", "button_large_radius": "10px"}
    values |= {"button_medium_radius": "10px", "button_small_radius": "10px", "layout_gap": "16px"}
    return gr.themes.Base(font=["sans-serif"], font_mono=["monospace"]).set(**values)


def style() -> str:
    """The tokens as variables, then the style sheets, whose rules weigh more than Gradio's.

    Gradio does this to its setting `css` in the browser: twice it parses it and writes each rule a second time below
    three classes.
    """
    light, dark = ("".join(f"--{name}:{pair[index]};" for name, pair in TOKENS.items()) for index in (0, 1))
    sheet = "\n".join((ASSETS / name).read_text("utf-8") for name in SHEETS)
    sheet = re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL)
    sheet = re.sub(r"[^\s{}][^{}]*?(?=\s*\{)", lambda found: _weighted(found[0]), sheet)
    return f":root{{{light}color-scheme:light}}\n:root.dark,.dark{{{dark}color-scheme:dark}}\n{sheet}"


def _weighted(selectors: str) -> str:
    """A rule's selectors with the weight of Gradio's; what is OUTSIDE of its blocks as it is, and at-rules.

    As Gradio does, at each comma, so that also what is in brackets after one weighs more.
    """
    if OUTSIDE.match(selectors):
        return selectors
    return ", ".join(f"{INSIDE} {part.strip()}" for part in selectors.split(","))


def head(*, apart: bool = False) -> str:
    """The sheets and scripts, the address where the machine tells it (on a Space), and whether visitors are `apart`."""
    space = os.environ.get("SPACE_HOST", "")
    address = f'<meta name="atelier-address" content="https://{escape(space)}/">' if space else ""
    flag = "<script>document.documentElement.dataset.visitors = 'apart'</script>" if apart else ""
    scripts = (f"<script>{(ASSETS / name).read_text('utf-8')}</script>" for name in SCRIPTS)
    return f"{address}{flag}<style>{style()}</style>{''.join(scripts)}"
