"""Damaged pictures: what is left alone stays, what is damaged changes, and the same chance gives the same picture."""

from __future__ import annotations

import torch

from pipelines.training.data.damage import BLOCKS, damaged, damages, exchanges, redrawn
from tests.support.tiny import tiny_vqgan


def pictures(count: int, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_no_damage_is_no_change_and_a_share_of_one_changes_every_picture() -> None:
    images = pictures(12)
    none = damages(tuple(images.shape), torch.Generator().manual_seed(0), share=0.0)
    assert torch.allclose(damaged(images.clone(), none), images, atol=1e-5)
    every = damages(tuple(images.shape), torch.Generator().manual_seed(0), share=1.0)
    changed = damaged(images.clone(), every)
    assert (changed - images).abs().amax((1, 2, 3)).min() > 0.01 and changed.abs().max() <= 1
    again = damages(tuple(images.shape), torch.Generator().manual_seed(0), share=1.0)
    assert torch.equal(changed, damaged(images.clone(), again))


def test_a_picture_is_damaged_by_its_own_row_alone() -> None:
    images = pictures(6)
    damage = damages(tuple(images.shape), torch.Generator().manual_seed(3), share=1.0)
    whole = damaged(images.clone(), damage)
    third = damaged(images[2:3].clone(), {name: value[2:3] for name, value in damage.items()})
    assert torch.allclose(whole[2:3], third, atol=1e-6)


def test_blocks_change_place() -> None:
    images = pictures(1)
    damage = damages(tuple(images.shape), torch.Generator().manual_seed(0), share=0.0)
    damage["blocks"][0, 0] = BLOCKS**2 - 1  # the first block shows what the last one showed
    changed = damaged(images.clone(), damage)
    size = images.shape[-1] // BLOCKS
    assert torch.allclose(changed[..., :size, :size], images[..., -size:, -size:], atol=1e-5)
    assert torch.allclose(changed[..., size:], images[..., size:], atol=1e-5)


def test_only_the_chosen_pictures_go_through_the_codec() -> None:
    codec = tiny_vqgan()
    side = codec.config.image_size
    images = pictures(4, side)
    exchange = exchanges(4, codec.config.grid**2, torch.Generator().manual_seed(0), share=1.0, most=0.0)
    exchange["redrawn"] = torch.tensor([True, False, False, True])
    again = redrawn(codec, images, exchange)
    assert torch.equal(again[1:3], images[1:3])
    own = codec.decode_tokens(codec.encode_tokens(images)).clamp(-1, 1)
    assert torch.allclose(again[[0, 3]], own[[0, 3]], atol=1e-5)
    mixed = exchanges(4, codec.config.grid**2, torch.Generator().manual_seed(0), share=1.0, most=1.0)
    assert not torch.allclose(redrawn(codec, images, mixed), own, atol=1e-3)
