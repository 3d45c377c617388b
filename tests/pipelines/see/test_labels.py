"""Labels and templates as they are typed, and probabilities by the CLIP's own scale."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipelines.errors import BadInput
from pipelines.see.classify import accuracy, classify, probabilities
from pipelines.see.labels import ART, PHOTO, PLAIN, Templates, label_vectors, read_labels, read_templates
from pipelines.see.names import known_names, names_for, names_in
from tests.support.painter import PainterClip
from tests.support.tiny import tiny_clip


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("elephant, fridge, ant", ["elephant", "fridge", "ant"]),
        ("大象，冰箱、蚂蚁；大象", ["大象", "冰箱", "蚂蚁"]),
        (" a  red heart \n\n|two cats|", ["a red heart", "two cats"]),
        (["a, b", "c"], ["a, b", "c"]),  # a list is labels already
    ],
)
def test_labels_are_read_in_both_languages(text: str | list[str], labels: list[str]) -> None:
    assert read_labels(text) == labels


@pytest.mark.parametrize(
    ("text", "code"),
    [(" ,，\n", "no_labels"), (",".join(map(str, range(4001))), "too_many_labels")],
)
def test_wrong_labels_are_refused(text: str, code: str) -> None:
    with pytest.raises(BadInput) as raised:
        read_labels(text)
    assert raised.value.code == f"see.{code}" and "{" not in str(raised.value)


def test_templates_are_for_their_language() -> None:
    templates = read_templates("a photo of a {label}\n\n这是一张有关{label}的照片\n{label}")
    assert templates.of("cat") == ["a photo of a cat", "cat"]
    assert templates.of("猫") == ["这是一张有关猫的照片", "猫"]
    assert read_templates("a {label}").of("猫") == ["猫"]  # no Chinese wording: plain
    assert read_templates("") is ART and read_templates(ART.text) == ART
    with pytest.raises(BadInput, match=r"'a photo' must hold \{label\} once; try a photo of a \{label\}"):
        read_templates("a photo")
    with pytest.raises(BadInput, match="101 templates"):
        read_templates([f"{k} {{label}}" for k in range(101)])


def test_a_label_is_the_mean_of_its_wordings() -> None:
    clip = tiny_clip()
    templates = Templates(("{label}", "a 3d {label}"))
    expected = F.normalize(clip.encode_text(["dog", "a 3d dog"]).mean(0), dim=0)
    found = label_vectors(clip, ["dog", "红心"], templates)
    assert torch.allclose(found[0], expected) and torch.allclose(found[1], clip.encode_text(["红心"])[0])
    photo = label_vectors(clip, ["红心"], PHOTO)
    assert torch.allclose(photo, F.normalize(clip.encode_text(PHOTO.of("红心")).mean(0), dim=0)[None])


def test_probabilities_are_by_the_learned_scale() -> None:
    clip = tiny_clip()
    scale = clip.log_scale.exp().item()
    cosines = torch.tensor([[0.3, 0.1, -0.2]])
    assert torch.allclose(probabilities(clip, cosines), (cosines * scale).softmax(1))
    assert clip.logit_bias is None and clip.logit_scale == pytest.approx(scale)


def test_a_sigmoid_gives_each_label_its_own_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = PainterClip()
    red = clip.encode_image(torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8))
    found = classify(clip, red, ["red", "green", "blue"], PLAIN)
    assert found.first() == ["red"] and found.probabilities.sum().item() == pytest.approx(1)
    assert not found.independent
    assert found.best(0, 2)[0][0] == "red" and len(found.best(0, 2)) == 2
    monkeypatch.setattr(PainterClip, "logit_bias", -16.0)
    alone = classify(clip, red, ["green", "blue"], PLAIN)
    assert alone.independent and alone.probabilities.max() < 0.1  # nothing fits, and that is said
    expected = (alone.cosines * clip.logit_scale - 16).sigmoid()
    assert torch.allclose(alone.probabilities, expected)


def test_accuracy_is_the_share_of_right_labels() -> None:
    scores = torch.tensor([[0.1, 0.2], [0.3, 0.2], [0.0, 1.0], [1.0, 0.0]])
    assert accuracy(scores, torch.tensor([1, 0, 1, 1])) == 0.75


def test_the_pack_knows_names_in_both_languages() -> None:
    pairs = known_names()
    assert len(pairs) > 1500 and ("elephant", "大象") in pairs
    assert "elephant" in names_for("a dog") and names_for("一只狗") == names_in("zh")
    assert "大象" in names_in("zh") and len(names_in()) > 1500
