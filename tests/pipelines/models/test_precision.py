"""Precision: what "auto" is, what the record keeps of it, and what stays in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from app.cli.main import main
from app.jobs.queue import JobQueue
from app.ui.i18n import both_sentence
from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Picture, Result
from pipelines.core.record import read_record, record_of, write_png
from pipelines.errors import BadInput
from pipelines.models import device
from pipelines.models.device import precision_on
from pipelines.optimize.pipeline import Optimize
from pipelines.optimize.run import OptimizeRun
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import PIPELINES
from tests.app.jobs.test_queue import until
from tests.support.tiny import TinyStudio, tiny_optimize

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"steps": 12, "cutouts": 3}


@pytest.fixture(params=["float32", "bfloat16"])
def auto(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What "auto" is on this machine, both in turn."""
    be_a_machine(monkeypatch, request.param)
    return request.param


def be_a_machine(monkeypatch: pytest.MonkeyPatch, auto: str) -> None:
    monkeypatch.setattr(device, "USUAL_PRECISION", auto)


def other(precision: str) -> str:
    return "float32" if precision == "bfloat16" else "bfloat16"


def finished(settings: OptimizeSettings, journal: Journal | None = None) -> Result:
    *_, result = run(tiny_optimize(), settings, journal)
    assert isinstance(result, Result)
    return result


def pixels(result: Result) -> list[bytes]:
    return [picture.image.tobytes() for picture in result.pictures]


def gradient(pipeline: Optimize, precision: str) -> Tensor:
    optimize_run = OptimizeRun(
        pipeline.vqgan, pipeline.clip, pipeline.critic, OptimizeSettings(precision=precision, start="white")
    )
    with torch.no_grad():
        optimize_run.begin()
    return optimize_run._gradient(optimize_run.current, torch.Generator().manual_seed(0))[1].flatten()


def test_auto_is_decided_before_the_run_and_kept_in_its_settings(auto: str) -> None:
    result = finished(OptimizeSettings(**SHORT))
    assert isinstance(result.settings, OptimizeSettings) and result.settings.precision == auto
    assert pixels(result) == pixels(finished(OptimizeSettings(**SHORT, precision=auto)))
    assert pixels(result) != pixels(finished(OptimizeSettings(**SHORT, precision=other(auto))))


def test_both_precisions_give_nearly_the_same_gradient() -> None:
    exact, rounded = (gradient(tiny_optimize(), one) for one in ("float32", "bfloat16"))
    assert not torch.equal(exact, rounded)
    assert F.cosine_similarity(exact, rounded, dim=0) > 0.97
    assert rounded.norm().item() == pytest.approx(exact.norm().item(), rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_only_the_decoder_computes_in_bfloat16(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_optimize()
    seen: dict[str, set[tuple[bool, torch.dtype]]] = {"decoder": set(), "CLIP": set(), "critic": set()}

    def watch(name: str, module: Any, method: str) -> None:
        work = getattr(module, method)

        def watched(x: Tensor) -> Tensor:
            seen[name].add((torch.is_autocast_enabled("cpu"), x.dtype))
            return work(x)

        monkeypatch.setattr(module, method, watched)

    watch("decoder", pipeline.vqgan, "decode")
    watch("CLIP", pipeline.clip, "encode_image")
    watch("critic", pipeline.critic, "encode_image")
    *_, _ = run(pipeline, OptimizeSettings(**SHORT, precision=precision))
    exact = (False, torch.float32)
    halved = (precision == "bfloat16", torch.float32)
    assert seen == {"decoder": {halved}, "CLIP": {exact}, "critic": {exact}}


def test_all_processors_draw_the_same_unless_asked() -> None:
    assert precision_on(CPU) == "float32"
    assert finished(OptimizeSettings(steps=1, cutouts=1)).settings.to_dict()["precision"] == "float32"


def test_where_bfloat16_cannot_be_computed_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision_on(CPU, "bfloat16") == "bfloat16"  # a CPU can, if slowly

    def refuse(*_: object) -> Tensor:
        raise TypeError("BFloat16 is not supported on MPS")

    monkeypatch.setattr(Tensor, "to", refuse)
    with pytest.raises(BadInput) as refused:
        precision_on(torch.device("mps"), "bfloat16")
    assert str(refused.value) == "precision bfloat16 does not work on this device (mps); try float32"
    assert "（mps）" in both_sentence(refused.value) and "请用 float32" in both_sentence(refused.value)
    assert precision_on(torch.device("mps")) == precision_on(torch.device("mps"), "float32") == "float32"


def test_float16_is_no_choice_and_a_run_does_not_change_its_precision() -> None:
    with pytest.raises(BadInput, match="not one of auto, float32, bfloat16"):
        OptimizeSettings(precision="float16")
    with pytest.raises(BadInput, match="cannot change 'precision'"):
        OptimizeSettings().changed(5, precision="bfloat16").timeline()


# --------------------------------------------------------------------------------------- on a machine of another kind


def test_a_replay_elsewhere_asks_for_the_same(
    auto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.studio.Studio", TinyStudio)
    flags = ["--steps", "12", "--cutouts", "3", "--out", str(tmp_path), "--json"]
    assert main(["optimize", "a red heart", *flags]) == 0
    path = json.loads(capsys.readouterr().out)["pictures"][0]["path"]
    assert read_record(path, PIPELINES).settings["precision"] == auto
    be_a_machine(monkeypatch, other(auto))
    assert main(["replay", path]) == 0
    assert "identical" in capsys.readouterr().out
    assert main(["optimize", "a red heart", "--precision", auto, *flags]) == 0
    again = json.loads(capsys.readouterr().out)["pictures"][0]["path"]
    assert read_record(again, PIPELINES).settings == read_record(path, PIPELINES).settings


def test_a_record_from_before_there_was_a_choice_keeps_what_it_told(auto: str, tmp_path: Path) -> None:
    def read(told: dict[str, Any], **settings: Any) -> dict[str, Any]:
        made = finished(OptimizeSettings(steps=1, cutouts=1)).pictures[0]
        record = record_of(
            pipeline="optimize",
            pack="tiny",
            device="cpu",
            models={},
            settings=OptimizeSettings(),
            picture=Picture(made.image, 0, 0.1, told),
            rank=1,
        )
        del record.settings["precision"]
        record.settings.update(settings)
        write_png(tmp_path / "a.png", made.image, record)
        return read_record(tmp_path / "a.png", PIPELINES).settings

    assert read({"precision": "float32"})["precision"] == "float32"
    assert read({"precision": "bf16"})["precision"] == "bfloat16"
    assert read({"precision": "bf16"}, precision="float32")["precision"] == "float32"
    for nothing in ({}, {"precision": "float64"}, {"precision": ["bf16"]}):
        assert "precision" not in read(nothing)


def test_a_journal_from_before_there_was_a_choice_can_be_resumed(auto: str, tmp_path: Path) -> None:
    settings = OptimizeSettings(**SHORT)
    whole = finished(settings, Journal(tmp_path / "run"))
    path = tmp_path / "run" / "run.json"
    identity = json.loads(path.read_text())
    del identity["settings"]["precision"]
    path.write_text(json.dumps(identity))
    assert pixels(finished(settings, Journal(tmp_path / "run"))) == pixels(whole)
    with pytest.raises(BadInput, match="belongs to another run"):
        finished(OptimizeSettings(**{**SHORT, "cutouts": 4}), Journal(tmp_path / "run"))


def test_a_job_goes_on_in_the_precision_that_it_began_with(
    auto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def queue() -> JobQueue:
        return JobQueue(TinyStudio(), tmp_path, {"optimize": Optimize})

    first = queue()
    job = first.submit("optimize", {"steps": 60, "cutouts": 2}, "ann")
    until(lambda: first.job(job).done > 12)
    first.close()
    be_a_machine(monkeypatch, other(auto))
    second = queue()
    assert second.job(job).state == "interrupted"
    second.resume(job)
    until(lambda: second.job(job).is_over, 120)
    done = second.job(job)
    second.close()
    assert (done.state, done.error) == ("done", "")
    assert read_record(done.pictures[0]["path"], PIPELINES).settings["precision"] == auto
