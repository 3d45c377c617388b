"""The grammar of prompts."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from pipelines.core.prompts import (
    Scene,
    Target,
    as_words,
    check_targets,
    map_regions,
    of_first_grammar,
    parse_list,
    parse_regions,
    parse_scenes,
    parse_story,
    parse_targets,
    parse_terms,
)
from pipelines.core.settings import clean_prompt
from pipelines.errors import BadInput
from pipelines.generate.settings import GenerateSettings
from pipelines.optimize.settings import OptimizeSettings


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a castle", Target("a castle")),
        ("fog:0.5", Target("fog", 0.5)),
        ("blur:-0.3", Target("blur", -0.3)),
        ("c:1:0.7", Target("c", 1.0, 0.7)),
        ("cat: a drawing", Target("cat: a drawing")),
        ("cat: a drawing:2", Target("cat: a drawing", 2.0)),
        ("at 10:30", Target("at 10:30")),
        ("at 10:05", Target("at 10:05")),
        ("at 10:30:1", Target("at 10:30", 1.0)),
        (" spaced : .5 ", Target("spaced", 0.5)),
        (":0.5", Target(":0.5")),
        ("nan:nan", Target("nan:nan")),
        ("data:image/png;base64,AAAA:0.5", Target("data:image/png;base64,AAAA", 0.5)),
    ],
)
def test_a_weight_is_read_from_the_right(text: str, target: Target) -> None:
    assert parse_targets(text) == [target]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("16:9", Target("16:9")),
        ("a photo 16:9", Target("a photo 16:9")),
        ("ratio 4 : 3", Target("ratio 4 : 3")),
        ("2.39:1", Target("2.39:1")),
        ("16:9:0.5", Target("16:9", 0.5)),
        ("route 66:0.5", Target("route 66", 0.5)),
        ('"route 66":2', Target("route 66", 2.0)),
        ("c:1:2", Target("c", 1.0, 2.0)),
        ("雾：０．５", Target("雾", 0.5)),
        ("雾：−0.4", Target("雾", -0.4)),
        ("fog:0,5", Target("fog", 0.5)),
        ('"a | b":0.5', Target("a | b", 0.5)),
        ('a sign "a | b":2', Target('a sign "a | b"', 2.0)),
        (r"a \| b\:0.5", Target("a | b:0.5")),
        ("(cat:1.2)", Target("(cat:1.2)")),
        ("[a:b:0.5]", Target("[a:b:0.5]")),
        ("[a|b] c", Target("[a|b] c")),
        ("<lora:x:1> cat", Target("<lora:x:1> cat")),
        ("a::2", Target("a::2")),
        ("a cat ^_^", Target("a cat ^_^")),
        ("{red|blue} heart:2", Target("{red|blue} heart", 2.0)),
        ("｛red｜blue｝ heart:2", Target("｛red｜blue｝ heart", 2.0)),
        ("［a｜b］ c", Target("［a｜b］ c")),
        ("（猫：1.2）, 狗：2", Target("（猫：1.2）, 狗", 2.0)),
        ("＜lora：x：1＞", Target("＜lora：x：1＞")),
        ("'a | b':2", Target("a | b", 2.0)),
        ("‘a | b’", Target("a | b")),
        ("「猫|狗」:0.5", Target("猫|狗", 0.5)),
        ("«a: b»", Target("a: b")),
        ("『猫』", Target("『猫』")),
        ("'red'", Target("'red'")),
        ("[a|[b|c]] d", Target("[a|[b|c]] d")),
        ("((cat | dog):1.2)", Target("((cat | dog):1.2)")),
        ("(a (b:1.1) | c:1.2)", Target("(a (b:1.1) | c:1.2)")),
        ("{a|{b|c}} d:2", Target("{a|{b|c}} d", 2.0)),
        ("<random[2]:a|b> cat", Target("<random[2]:a|b> cat")),
        ("（（猫｜狗）：1.2）", Target("（（猫｜狗）：1.2）")),
        ("(cat | dog:-1)", Target("(cat | dog:-1)")),
        ("<|endoftext|> cat", Target("<|endoftext|> cat")),
        ("fog:0·5", Target("fog", 0.5)),
        ("fog:﹣0.5", Target("fog", -0.5)),
    ],
)
def test_numbers_and_marks_that_are_words_stay_words(text: str, target: Target) -> None:
    (scene,) = parse_scenes(text)
    assert scene.targets == [target]


def test_brackets_without_a_meaning_elsewhere_keep_no_mark() -> None:
    assert [target.text for target in parse_targets("a cat (red) | [b] c | (d")] == [
        "a cat (red)",
        "[b] c",
        "(d",
    ]
    assert parse_targets("a cat (small):0.5") == [Target("a cat (small)", 0.5)]


@pytest.mark.parametrize(
    "text", ["(" * 2000, "[(" * 1000, "[a" * 1000, "{a|" * 600, "((a)" * 500, "(a:" * 600]
)
def test_brackets_that_never_close_take_no_time(text: str) -> None:
    begun = time.process_time()
    parse_scenes(text)
    assert time.process_time() - begun < 0.5


def test_a_bar_after_inches_is_a_bar() -> None:
    assert [target.text for target in parse_targets('12" ruler ｜ 5" nail')] == ['12" ruler', '5" nail']


def test_an_apostrophe_is_no_quote() -> None:
    for text in ("the cats' | the dogs' house", "'tis | 'twas", "rock 'n' roll | the cat's"):
        assert [target.text for target in parse_targets(text)] == [part.strip() for part in text.split("|")]


def test_a_record_keeps_how_its_prompt_was_read() -> None:
    for prompt, read in (("'a | b'", [["'a", 0.5], ["b'", 0.5]]), ("｛a｜b｝", [["｛a", 0.5], ["b｝", 0.5]])):
        values = GenerateSettings.recorded({"prompt": prompt}, {"read": read})
        assert [[text, share] for text, share in parse_terms(values["prompt"])] == read
    for read in ([["a", 0.5], ["b", 0.5]], None, [["a"]], "a"):
        assert GenerateSettings.recorded({"prompt": "a | b"}, {"read": read})["prompt"] == "a | b"


def test_lists_of_numbers_and_pictures_have_no_words() -> None:
    assert parse_list("7:3 | 8") == [Target("7", 3.0), Target("8")]
    assert parse_list("data:image/png;base64,AA9:2") == [Target("data:image/png;base64,AA9", 2.0)]


@pytest.mark.parametrize(
    "text", ["a | b:0.5 ^ c @5", '"hello"', "16:9", "❤\ufe0f heart", r"\u{41}", r"a\|b", "a [b | c"]
)
def test_words_alone_are_read_as_they_are(text: str) -> None:
    (scene,) = parse_scenes(clean_prompt(as_words(text)))
    assert (scene.step, scene.targets) == ("", [Target(text)])


@pytest.mark.parametrize(
    ("before", "targets"),
    [
        ("16:9 | cat:2", [Target("16", 9.0), Target("cat", 2.0)]),
        ("[a|b]:2", [Target("[a"), Target("b]", 2.0)]),
        ("写：1 ｜ b", [Target("写：1 ｜ b")]),
        ('say "a | b"', [Target('say "a'), Target('b"')]),
    ],
)
def test_prompts_of_the_first_grammar_keep_their_meaning(before: str, targets: list[Target]) -> None:
    (scene,) = parse_scenes(of_first_grammar(before))
    assert scene.targets == targets
    assert of_first_grammar("a castle | fog:0.5 ^ b @20") == "a castle | fog:0.5 ^ b @20"


def test_terms_are_shares_of_the_guidance() -> None:
    assert parse_terms("a castle:2") == [("a castle", 1.0)]
    shares = parse_terms("a castle | fog:0.5 | people:-0.3")
    assert [text for text, _ in shares] == ["a castle", "fog", "people"]
    assert [share for _, share in shares] == pytest.approx([2 / 3, 1 / 3, -0.2])
    for prompt, words in (
        ("fog:-1", "no positive weight"),
        ("| |", "is empty"),
        (" | ".join("abcdefghi"), "9 parts"),
    ):
        with pytest.raises(BadInput, match=words):
            parse_terms(prompt)


def test_targets_scenes_and_regions() -> None:
    assert [target.text for target in parse_targets("a | b:0.5 || c:0")] == ["a", "b"]
    assert parse_story("a ^ b ^ c", 90) == [(0, "a"), (30, "b"), (60, "c")]
    assert parse_story("a | x:2 ^ b @80", 90) == [(0, "a | x:2"), (80, "b")]
    (region,) = parse_regions("a sun:2 @ top")
    assert (region.target, region.where) == (Target("a sun", 2.0), "top")
    assert map_regions("a sun:2 @ top | b @ m.png", str.upper) == "a sun:2 @ top | b:1 @ M.PNG"


def test_scenes_are_told_as_they_were_written() -> None:
    assert parse_scenes("a:0 | at 10:30 | b:-0.3:0.7 ^ c @ 080") == [
        Scene(
            "a:0 | at 10:30 | b:-0.3:0.7", "", [Target("a", 0.0), Target("at 10:30"), Target("b", -0.3, 0.7)]
        ),
        Scene("c", "080", [Target("c")]),
    ]
    assert parse_scenes("a\nb @5") == [Scene("a\nb", "5", [Target("a\nb")])]


@pytest.mark.parametrize(
    ("text", "steps", "targets"),
    [
        ("", [""], [[]]),
        ("  ", [""], [[]]),
        ("|", [""], [[]]),
        ("a | ", [""], [["a"]]),
        ("a ^", ["", ""], [["a"], []]),
        ("^ ^", ["", "", ""], [[], [], []]),
        ("a @5 ^ b @", ["5", ""], [["a"], ["b @"]]),
        ("a ＾ b ＠２０", ["", "20"], [["a"], ["b"]]),
        ("@20", [""], [["@20"]]),
        ("a ^ b @9 ^ c @9", ["", "9", "9"], [["a"], ["b"], ["c"]]),
        ("a @1234567", [""], [["a @1234567"]]),
        (":", [""], [[":"]]),
        ("a:-", [""], [["a:-"]]),
        ("a:²", [""], [["a:²"]]),
        ("a:11", [""], [["a:11"]]),
        ("\ud800 ^", ["", ""], [["\ud800"], []]),
    ],
)
def test_scenes_are_told_while_someone_types(text: str, steps: list[str], targets: list[list[str]]) -> None:
    scenes = parse_scenes(text)
    assert [scene.step for scene in scenes] == steps
    assert [[target.text for target in scene.targets] for scene in scenes] == targets


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": "a:-1 | b:-0.5"}, "no positive weight"),
        ({"prompt": "a:1 | b:-1"}, "sum to zero"),
        ({"prompt": "|"}, "is empty"),
        ({"prompt": "a ^ ^ b"}, "scene of the story is empty"),
        ({"prompt": "a @5 ^ b"}, "must begin at 0"),
        ({"prompt": "a ^ b @9 ^ c @9"}, "not after the one before"),
        ({"regions": "a sun"}, "says no place"),
        ({"size": "100by50"}, "not WIDTHxHEIGHT"),
        ({"palette": "red"}, "not a colour"),
        ({"noise_prompts": "x:1"}, "not a whole number"),
        ({"tokens": "1, 2"}, "tokens are not whole numbers"),
        ({"changes": "[]"}, "not a JSON object"),
        ({"changes": '{"0": {}}'}, "where a step from 1 on should be"),
        ({"changes": '{"5": {"seed": 1}}'}, "cannot change 'seed'"),
        ({"changes": '{"5": {"steps": 0}}'}, "too small"),
        ({"changes": '{"5": {"prompt": "a:-1"}}'}, "no positive weight"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        OptimizeSettings(**settings)
    assert "\n" not in str(refused.value)


def test_check_targets_tells_what_to_do() -> None:
    with pytest.raises(BadInput, match="cat:1"):
        check_targets([Target("blur", -1.0)])


def test_changes_make_a_timeline() -> None:
    settings = (
        OptimizeSettings(prompt="a", steps=100).changed(40, prompt="b", cutouts=8).changed(60, steps=200)
    )
    assert [step for step, _ in settings.timeline()] == [0, 40, 60]
    assert [(one.prompt, one.cutouts, one.steps) for _, one in settings.timeline()] == [
        ("a", 16, 100),
        ("b", 8, 100),
        ("b", 8, 200),
    ]
    back = settings.changed(50, prompt="c")  # stepping back forgets what came later
    assert [(step, one.prompt, one.steps) for step, one in back.timeline()] == [
        (0, "a", 100),
        (40, "b", 100),
        (50, "c", 100),
    ]
    assert settings.changed(60) == settings
    assert OptimizeSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
