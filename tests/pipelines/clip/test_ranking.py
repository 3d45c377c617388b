"""CLIP: both towers, the contrastive loss, the judge."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from pipelines.clip.ranking import ensemble, rank
from pipelines.training.clip.augment import augment
from pipelines.training.clip.loss import ContrastiveLoss
from pipelines.training.clip.trainer import pooled_by_length
from tests.support.tiny import TEXTS, tiny_clip


def test_vectors_have_unit_length_and_do_not_depend_on_company() -> None:
    clip = tiny_clip()
    together = clip.encode_text(TEXTS)
    clip.forget_texts()
    alone = torch.cat([clip.encode_text([text]) for text in TEXTS])  # no padding at all
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together.norm(dim=1), torch.ones(len(TEXTS)))


def test_prompts_are_remembered() -> None:
    clip = tiny_clip()
    first = clip.encode_text(["a red heart"])
    clip.text.project.weight += 1  # the tower changes, the memory does not
    assert torch.equal(first, clip.encode_text(["a red heart"]))


def test_long_prompts_are_cut() -> None:
    clip = tiny_clip()
    assert clip.tokenize(["heart " * 100]).shape == (1, 12)


def test_any_size_goes_in_and_gradients_come_out() -> None:
    clip = tiny_clip()
    for size in ((16, 16), (32, 32), (24, 40), (8, 8)):
        images = torch.rand(2, 3, *size).mul(2).sub(1).requires_grad_()
        vectors = clip.encode_image(images)
        assert vectors.shape == (2, 16)
        vectors[:, 0].sum().backward()
        assert images.grad is not None
        assert images.grad.abs().sum() > 0


def test_pooling_by_length_changes_nothing() -> None:
    clip = tiny_clip()
    assert torch.allclose(pooled_by_length(clip, TEXTS), clip.text.pooled(clip.tokenize(TEXTS)), atol=1e-6)


def test_contrastive_loss_is_cross_entropy_when_all_things_differ() -> None:
    image, text = (
        F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(k)), dim=1) for k in (1, 2)
    )
    loss = ContrastiveLoss(Accelerator(cpu=True))(image, text, torch.arange(5), torch.tensor(10.0))
    logits = 10 * image @ text.T
    expected = (F.cross_entropy(logits, torch.arange(5)) + F.cross_entropy(logits.T, torch.arange(5))) / 2
    assert torch.allclose(loss, expected)


def test_pictures_of_one_thing_are_all_positives() -> None:
    """Two pictures of one thing, one of another: worked out by hand."""
    image = text = torch.eye(3)
    things = torch.tensor([4, 4, -1])
    loss = ContrastiveLoss(Accelerator(cpu=True))(image, text, things, torch.tensor(1.0))
    e = torch.tensor(1.0).exp()
    row = -(0.5 * (e / (e + 2)).log() + 0.5 * (1 / (e + 2)).log())
    expected = (2 * row - (e / (e + 2)).log()) / 3
    assert torch.allclose(loss, expected)
    lonely = ContrastiveLoss(Accelerator(cpu=True))(
        image, text, torch.tensor([-1, -1, -1]), torch.tensor(1.0)
    )
    assert torch.allclose(lonely, -(e / (e + 2)).log())


def test_ranking_marks_the_worse_of_two_alike() -> None:
    clip = tiny_clip()
    wordings = clip.encode_text(ensemble("a red heart"))
    best = F.normalize(wordings.mean(0), dim=0)
    other = F.normalize(torch.randn(16, generator=torch.Generator().manual_seed(0)), dim=0)
    near = F.normalize(best + 0.05 * other, dim=0)
    ranking = rank(clip, "a red heart", torch.stack([other, near, best]))
    assert ranking.order == [2, 1, 0]
    assert ranking.duplicate_of == [None, 2, None]
    assert ranking.noise > 0
    assert 1 <= ranking.tied <= 3


def test_chinese_prompts_have_chinese_wordings() -> None:
    assert ensemble("红心")[1] == "立体的红心"
    assert ensemble("heart")[1] == "a heart"


def test_augmentation_stays_in_range_and_repeats() -> None:
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    one = augment(images, torch.Generator().manual_seed(3))
    assert torch.equal(one, augment(images, torch.Generator().manual_seed(3)))
    assert one.min() >= -1
    assert one.max() <= 1
    assert not torch.equal(one, images)
