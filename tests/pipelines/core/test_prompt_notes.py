"""What is told about a prompt before a run."""

from __future__ import annotations

import pytest

from pipelines.core.prompt_notes import notes_on_several, prompt_notes
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.edit.settings import EditSettings
from pipelines.generate.settings import GenerateSettings
from pipelines.io.visible import symbols, visible
from pipelines.optimize.settings import OptimizeSettings


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a (cat:1.2) sits", "core.foreign_emphasis"),
        ("((cat))", "core.foreign_emphasis"),
        ("cat++ dog", "core.foreign_emphasis"),
        ("cat^1.2", "core.foreign_emphasis"),
        ("[a:b:0.5]", "core.foreign_schedule"),
        ("[a::0.5] x", "core.foreign_schedule"),
        ("[cat|dog]", "core.foreign_alternation"),
        ("<lora:x:1> cat", "core.foreign_network"),
        ("a::2", "core.foreign_parts"),
        ("a cat AND a dog", "core.foreign_parts"),
        ("a cat --ar 16:9", "core.foreign_flags"),
        ("a cat, Negative prompt: dog", "core.foreign_negative"),
        ("a __color__ cat", "core.foreign_wildcard"),
        ("fog:50%", "core.foreign_percent"),
        ("（猫：1.2）", "core.foreign_emphasis"),
        ("[cat]", "core.foreign_emphasis"),
        ("cat*1.2", "core.foreign_emphasis"),
        ("［a：b：0.5］", "core.foreign_schedule"),
        ("＜lora：x：1＞", "core.foreign_network"),
        ("cat.swap(dog)", "core.foreign_parts"),
        ("a cat —ar 16:9", "core.foreign_flags"),
        ("fog:½", "core.foreign_percent"),
        ("fog:1/2 | b", "core.foreign_percent"),
        ("fog:٠٫٥", "core.foreign_percent"),
        ("cat:1.2, dog:0.8", "core.weight_inside"),
        ("城堡丨雾", "core.mark_alike"),
        ("cat∶0.5", "core.mark_alike"),
        ('"cat | dog', "core.quote_open"),
        ("fog:100", "core.weight_too_large"),
        ("a ^ b", "core.no_scenes_here"),
        ("a:1:0.7", "core.no_stops_here"),
        ("ca\u200bt", "core.unseen_characters"),
        ("[cat|[dog|frog]]", "core.foreign_alternation"),
        ("<random:cat, dog>", "core.foreign_wildcard"),
        ("<wildcard:animal>", "core.foreign_wildcard"),
        ("a face <segment:face>", "core.foreign_flags"),
        ("{2$$red|blue} heart", "core.foreign_wildcard"),
        ("a ${x} cat", "core.foreign_wildcard"),
        ("a cat --tile", "core.foreign_flags"),
        ("a cat --raw --sref 123", "core.foreign_flags"),
        ("a cat -s50 -W 512", "core.foreign_flags"),
        ("--prompt cat", "core.foreign_flags"),
        ("a cat, BREAK, a dog", "core.foreign_parts"),
        ("BREAK", "core.foreign_parts"),
        ("猫 AND 狗", "core.foreign_parts"),
        ("cat AND DOG", "core.foreign_parts"),
        (":0.5", "core.weight_alone"),
        ("a castle | :0.5", "core.weight_alone"),
        ("a castle:0.5.", "core.foreign_percent"),
        ("城堡：0.5。", "core.foreign_percent"),
        ("fog:--1 | b", "core.foreign_percent"),
        ("fog:05", "core.foreign_percent"),
        ("fog:1.2.3", "core.foreign_percent"),
        ("(red|blue heart", "core.bracket_open"),
        ("(red|blue) heart", "core.bracket_open"),
        ("{red|blue heart", "core.bracket_open"),
        ("(cat:1.2", "core.bracket_open"),
        ("（猫：1.2", "core.bracket_open"),
        ("城堡⏐雾", "core.mark_alike"),
        ("(fire:-1.1) crystal", "core.foreign_emphasis"),
        ("a photo of a dog:10 wearing a hat", "core.weight_inside"),
        ("mountain:1 man:1", "core.weight_inside"),
        ("bacon:`cos(2*3.14*t/20)` eggs", "core.foreign_percent"),
        ("hello world:2:15", "core.weight_too_large"),
        ("fog:0.5f", "core.foreign_percent"),
        ("fog:(0.5) | b", "core.foreign_percent"),
        ("fog:=0.5", "core.foreign_percent"),
        ("fog:- 0.5", "core.foreign_percent"),
        ("fog:0. 5", "core.foreign_percent"),
        ("a:1.1)", "core.foreign_percent"),
        ("〔城堡|雾〕", "core.bracket_open"),
        ("/imagine prompt: a cat", "core.foreign_flags"),
        ("Prompt: a cat", "core.foreign_flags"),
        ("正向提示词：猫", "core.foreign_flags"),
        ("反向提示词：狗", "core.foreign_negative"),
        ("a cat ––ar 16:9", "core.foreign_flags"),
        ("a cat AND_SALT dog", "core.foreign_parts"),
        ("cat AREA(0 0.5, 0 1)", "core.foreign_flags"),
        ('{"prompt": "a cat | dog"}', "core.foreign_code"),
        ('["a cat", "a dog"]', "core.foreign_code"),
        ("a cat // comment", "core.foreign_code"),
        ("<!-- x --> cat", "core.foreign_code"),
        ("cat &amp; dog", "core.foreign_code"),
        ("<b>cat</b>", "core.foreign_code"),
        ("<|endoftext|> cat", "core.foreign_code"),
    ],
)
def test_what_other_programs_mean_is_told_in_both_languages(text: str, code: str) -> None:
    (note,) = prompt_notes(text, "terms")
    assert note.code == code
    assert note.text() != note.text("zh") != code


@pytest.mark.parametrize(
    "text",
    [
        "a castle | fog:0.5 | people:-0.4", "16:9", "at 10:30", "CATS AND DOGS", "C++ logo", "rock-n-roll",
        "a cat ^_^", "face with (round) eyes", "a well-known -- cat", "❤\ufe0f heart", "👩\u200d🚀",
        "1\ufe0f\u20e3 button", "what: a cat", "fog:0,5", "'a | b':2", "「猫|狗」", "a cat's | a dog's",
        'a 5" nail | b', "what time: 5 past", "ROCK AND ROLL poster", "a 3:2 photo.", "at 10:30.", "cat, dog AND_ASK",
        "http://localhost", "a smile :) | fog", "1) a cat | 2) a dog", "name \\(series\\) | b", "2 cats:2",
        "a -5 degree day",
        "fog : 0.5 | b :-1", "🏳️‍🌈 flag", "👩🏽‍🚀 | 👨‍👩‍👧:0.5", "قلعة", "a\tb",
        "fog: 0.5", "fog :0.5 | b", "fog:0·5", "fog:﹣0.5 | b", "I <3 you | x > 3", "https://a.b/c a cat",
        "《红楼梦：第一回》", "a smile:-) face", "Star Wars: Return of the Sith",
    ],
)  # fmt: skip
def test_nothing_is_told_of_plain_prompts(text: str) -> None:
    assert prompt_notes(text, "terms") == []


def test_what_lies_after_the_last_step_is_told() -> None:
    settings = OptimizeSettings(prompt="a ^ b @90", steps=90, changes='{"95": {"cutouts": 8}}')
    assert [note.code for note in settings.notes()] == ["core.scene_beyond", "core.change_beyond"]
    assert OptimizeSettings(prompt="a ^ b @89", steps=90).notes() == []


@pytest.mark.parametrize("step", ["50%", "1e2", "10 frames", "-5", "999999999"])
def test_what_is_like_a_step_and_is_none_is_told(step: str) -> None:
    assert [note.code for note in OptimizeSettings(prompt=f"a ^ b @{step}").notes()] == ["core.step_unread"]
    assert OptimizeSettings(prompt="a ^ cat@2x").notes() == OptimizeSettings(prompt="a @5%").notes() == []


@pytest.mark.parametrize("seen", ["a cat", "小猫", "نمی\u200cخواهم"])
def test_what_cannot_be_seen_changes_nothing(seen: str) -> None:
    unseen = "\u200b\ufeff\u00ad\u202e\U000e0041\u2060".join(seen)
    assert visible(unseen) == seen
    assert GenerateSettings(prompt=f"\u3164{unseen}\u2800").prompt == seen


def test_emoji_are_symbols_with_what_colours_them() -> None:
    assert symbols("a 🐱 and 👍🏽, 🐱 1\u20e3 – ok!") == ["🐱", "👍🏽", "1\u20e3"]
    assert symbols("🇫🇷🇯🇵 and 🇫") == ["🇫🇷", "🇯🇵", "🇫"]


def test_of_several_prompts_each_kind_is_told_once() -> None:
    notes = notes_on_several(["a cat", "BREAK", "(a:1.2) dog", "(b:1.3) frog"], "terms")
    assert [note.code for note in notes] == ["core.foreign_parts", "core.foreign_emphasis"]


def test_other_texts_that_say_what_to_draw_are_told_of_too() -> None:
    edit = EditSettings(source="a (face:1.2)", prompt="a cat | fog")
    assert [note.code for note in edit.notes()] == ["core.no_terms_here", "core.foreign_emphasis"]
    diffuse = DiffuseSettings(prompt="a cat", negative_prompt="(worst quality:1.4)")
    assert [note.code for note in diffuse.notes()] == ["core.foreign_emphasis"]


def test_several_prompts_are_for_generate() -> None:
    assert [note.code for note in prompt_notes("{red|blue} heart", "scenes")] == ["core.no_braces_here"]
    assert prompt_notes("{red|blue} heart", "terms") == []
