"""Things of a prompt that Generate draws alone, refines, and lays in their places."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from pipelines.core.execute import run
from pipelines.core.pipeline import Result, Step
from pipelines.errors import BadInput
from pipelines.generate.pipeline import Generate
from pipelines.generate.settings import GenerateSettings
from pipelines.io.images import picture_to_uri, to_tensor
from tests.support.tiny import tiny_generate, tiny_refining_generate

ASKED = GenerateSettings(prompt="a cat and a dog", candidates=5, keep=5, seed=3, batch=4)


def finished(pipeline: Generate, settings: GenerateSettings) -> tuple[list[Step], Result]:
    *steps, result = run(pipeline, settings)
    assert isinstance(result, Result)
    return [step for step in steps if isinstance(step, Step)], result


def test_prepared_settings_say_what_lies_where() -> None:
    pipeline = tiny_refining_generate()
    picture = picture_to_uri(Image.new("RGB", (32, 32), "red"))
    assert pipeline.prepare(ASKED).regions == "a cat @ 1/2 | a dog @ 2/2"
    for whole in ({"regions": ""}, {"finish": "drawn"}, {"image": picture}, {"prompt": "a cat"}):
        assert pipeline.prepare(replace(ASKED, **whole)).regions == ""
    assert tiny_generate().prepare(ASKED).regions == ""  # it has nothing to refine with
    with pytest.raises(BadInput, match="leave out finish or regions"):
        pipeline.prepare(replace(ASKED, finish="drawn", regions="a cat @ left"))
    assert GenerateSettings.recorded({"prompt": "a cat and a dog"}, {})["regions"] == ""


@torch.no_grad()
def test_a_candidate_is_drawn_alone_as_beside_others() -> None:
    pipeline = tiny_refining_generate()
    steps, result = finished(pipeline, ASKED)
    assert len({picture.image.tobytes() for picture in result.pictures}) == 5
    assert {step.stage for step in steps} >= {"draw", "refine"}
    for picture in result.pictures:
        _, again = finished(
            pipeline, replace(pipeline.prepare(ASKED), candidates=1, keep=1, seed=picture.seed)
        )
        assert again.pictures[0].image.tobytes() == picture.image.tobytes()
        tokens = pipeline.vqgan.encode_tokens(to_tensor([picture.image])).flatten().tolist()
        assert tokens == picture.facts["tokens"]


@torch.no_grad()
def test_progress_never_falls() -> None:
    steps, _ = finished(tiny_refining_generate(), replace(ASKED, candidates=4))
    for stage in ("draw", "refine"):
        shares = [step.done / step.total for step in steps if step.stage == stage]
        assert shares == sorted(shares) and len(set(shares)) > 3 and shares[-1] == 1.0
