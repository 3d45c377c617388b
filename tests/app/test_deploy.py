"""deploy: what git tracks, in one commit, and nothing else; against a Hub of our own."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from app import deploy
from app.cli.main import WRONG, main
from tests.support.fake_hub import TOKEN, FakeHub
from tests.support.pictures import size_of

ROOT = Path(__file__).parents[2]
BINARY = b"\x00\x01\xff" * 1000
README = "---\ntitle: Tiny\nsdk: gradio\nthumbnail: assets/card.jpg\n---\nthumbnail: assets/card.jpg\n"


def git(*arguments: str) -> str:
    person = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    return subprocess.run(
        ["git", *person, *arguments], cwd=deploy.ROOT, check=True, capture_output=True, encoding="utf-8"
    ).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project with a past, in the place of this one."""
    folder = tmp_path / "project"
    (folder / "assets").mkdir(parents=True)
    monkeypatch.setattr(deploy, "ROOT", folder)
    files = {"README.md": README, "requirements.txt": "torch==2.13.0\n", ".gitignore": "/outputs/\n"}
    files |= {"launch.py": "print(1)\n", "old.py": "password = 'from the past'\n", "empty.py": ""}
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "assets" / "哭脸.bin").write_bytes(BINARY)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    git("rm", "--quiet", "old.py")
    git("commit", "--quiet", "-m", "second")
    (folder / "outputs").mkdir()
    (folder / "outputs" / "mine.png").write_bytes(b"ignored")
    (folder / "notes.txt").write_text("not tracked")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """The Hub, and somebody who is signed in to it."""
    hub = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    yield hub
    hub.close()


def files_of(hub: FakeHub, name: str = "ann/atelier") -> dict[str, bytes]:
    return {path: data for path, data in hub.spaces[name]["files"].items() if path != ".gitattributes"}


@pytest.mark.usefixtures("project")
def test_a_new_space_gets_what_git_tracks_in_one_commit(
    hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "ann/atelier", "--hardware", "zero-a10g", "--private", "--yes"]) == 0
    space = hub.spaces["ann/atelier"]
    tracked = [one for one in git("ls-files", "-z").split("\0") if one]
    assert sorted(files_of(hub)) == sorted(tracked)
    assert len(space["commits"]) == 1 and git("rev-parse", "--short", "HEAD").strip() in space["commits"][0]
    assert (space["hardware"], space["private"]) == ("zero-a10g", True)
    assert files_of(hub)["assets/哭脸.bin"] == BINARY
    assert files_of(hub)["requirements.txt"] == b"torch==2.13.0\n"  # the build for GPUs
    sent = b"".join([*files_of(hub).values(), *hub.stored.values()])
    assert b"from the past" not in sent and b"not tracked" not in sent and b"ignored" not in sent
    told = capsys.readouterr()
    assert told.out.strip() == f"{hub.address}/spaces/ann/atelier"
    assert "6 files, 0.0 MB, to the private Space ann/atelier on zero-a10g" in told.err
    assert "the largest: assets/哭脸.bin" in told.err


@pytest.mark.usefixtures("project")
def test_the_readme_names_the_thumbnails_address(hub: FakeHub) -> None:
    assert main(["deploy", "ann/atelier", "--yes"]) == 0
    address = "https://huggingface.co/spaces/ann/atelier/resolve/main/assets/card.jpg"
    readme = files_of(hub)["README.md"].decode()
    assert readme == README.replace("assets/card.jpg", address, 1)  # only in the front matter
    assert (deploy.ROOT / "README.md").read_text("utf-8") == README


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("hardware", "cpu"), [("cpu-basic", True), ("cpu-upgrade", True), ("t4-small", False)]
)
def test_torch_follows_the_hardware(hub: FakeHub, hardware: str, cpu: bool) -> None:
    assert main(["deploy", "ann/atelier", "--hardware", hardware, "--yes"]) == 0
    first, *rest = files_of(hub)["requirements.txt"].decode().splitlines()
    assert (first == deploy.CPU_TORCH) == cpu
    assert (rest if cpu else [first]) == ["torch==2.13.0"]
    assert hub.spaces["ann/atelier"]["hardware"] == hardware


@pytest.mark.usefixtures("project")
def test_a_space_that_is_there_keeps_its_hardware_and_loses_what_git_forgot(
    hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.make("ann/atelier", "cpu-upgrade", **{"app.py": b"old", "sub/gone.py": b"old", "launch.py": b"old"})
    assert main(["deploy", "ann/atelier", "--yes"]) == 0
    assert set(files_of(hub)) == set(deploy.tracked())
    assert ".gitattributes" in hub.spaces["ann/atelier"]["files"]
    assert len(hub.spaces["ann/atelier"]["commits"]) == 1
    assert files_of(hub)["requirements.txt"].decode().startswith(deploy.CPU_TORCH)
    assert "2 deleted there, as git does not track them: app.py, sub/gone.py" in capsys.readouterr().err
    assert "POST /api/repos/create" not in hub.calls
    assert main(["deploy", "ann/atelier", "--hardware", "t4-small", "--yes"]) == 0
    assert hub.spaces["ann/atelier"]["hardware"] == "t4-small"


def test_changes_that_are_not_committed_are_sent_and_told(
    project: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "launch.py").write_text("print(2)\n")
    assert main(["deploy", "ann/atelier", "--yes"]) == 0
    assert files_of(hub)["launch.py"] == b"print(2)\n"
    assert (
        "1 sent as they are here, with changes that are not committed: launch.py" in capsys.readouterr().err
    )
    assert hub.spaces["ann/atelier"]["commits"][0].endswith(" and changes")


@pytest.mark.usefixtures("project")
def test_a_dry_run_is_gits_list_and_calls_nobody(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert main(["deploy", "ann/atelier", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert told.out == git("ls-files")
    assert "6 files" in told.err and deploy.USUAL in told.err
    assert hub.calls == [] and hub.spaces == {}


def test_this_projects_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    assert main(["deploy", "ann/atelier", "--dry-run", "--hardware", "cpu-basic"]) == 0
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    ).stdout
    assert capsys.readouterr().out == listed


@pytest.mark.usefixtures("project")
def test_nothing_is_sent_without_a_yes(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["deploy", "ann/atelier"]) == WRONG
    assert "run it again with --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert main(["deploy", "ann/atelier"]) == WRONG
    assert "nothing was sent" in capsys.readouterr().err
    assert hub.spaces == {}
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert main(["deploy", "ann/atelier"]) == 0
    assert "ann/atelier" in hub.spaces


@pytest.mark.usefixtures("project")
def test_who_is_not_signed_in_is_told_how(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert main(["deploy", "ann/atelier", "--yes"]) == WRONG
    assert "run: hf auth login, or set HF_TOKEN" in capsys.readouterr().err
    assert hub.calls == []


@pytest.mark.usefixtures("project")
def test_what_the_hub_refuses_is_one_sentence(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refuse = (402, "Payment required")
    assert main(["deploy", "ann/atelier", "--hardware", "cpu-basic", "--yes"]) == WRONG
    told = capsys.readouterr().err
    assert "the Hub refused with 402 (Payment required); cpu-basic needs a subscription" in told
    assert "Traceback" not in told and hub.spaces == {}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["deploy", "ann/atelier", "--yes"]) == WRONG
    assert "the Hub refused with 401" in capsys.readouterr().err
    hub.close()
    assert main(["deploy", "ann/atelier", "--yes"]) == WRONG
    assert "the Hub cannot be reached" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_a_public_space_is_not_taken_for_a_private_one(
    hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.make("ann/atelier")
    assert main(["deploy", "ann/atelier", "--private", "--yes"]) == WRONG
    assert "is public already" in capsys.readouterr().err
    assert hub.spaces["ann/atelier"]["commits"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["atelier"], "'atelier' is not OWNER/NAME; try yourname/atelier"),
        (["ann/ate/lier"], "is not OWNER/NAME"),
        (["ann/atelier", "--hardware", "abacus"], "the hardware 'abacus' is not known; there are cpu-basic,"),
        ([], "required: OWNER/NAME"),
    ],
)
def test_wrong_words(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", *arguments]) == WRONG
    assert words in capsys.readouterr().err


def test_a_tracked_file_that_is_gone_and_a_folder_without_git(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "launch.py").unlink()
    assert main(["deploy", "ann/atelier", "--dry-run"]) == WRONG
    assert "git tracks launch.py and it is no file here" in capsys.readouterr().err
    bare = project.parent / "bare"
    bare.mkdir()
    monkeypatch.setattr(deploy, "ROOT", bare)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    assert main(["deploy", "ann/atelier", "--dry-run"]) == WRONG
    assert "deploy from a clone of it" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------- the project's own


def front_matter() -> dict[str, Any]:
    block = re.match(r"---\n(.*?)\n---\n", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert block
    return yaml.safe_load(block[1])


def test_the_front_matter_says_what_is_so() -> None:
    from pipelines.weights.known_files import HUB
    from pipelines.weights.open_weights import OPEN_WEIGHTS

    values = front_matter()
    assert (values["sdk"], values["app_file"]) == ("gradio", "launch.py")
    pins = dict(re.findall(r"(?m)^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text("utf-8")))
    assert values["sdk_version"] == pins["gradio"]
    assert values["python_version"] == "3.12"
    assert values["suggested_hardware"] in ("cpu-basic", "cpu-upgrade")
    assert (values["header"], values["fullWidth"]) == ("mini", True)
    assert re.fullmatch(r"\d+m", str(values["startup_duration_timeout"]))
    assert len(str(values["short_description"])) <= 60  # the Hub's limit
    assert size_of(ROOT / str(values["thumbnail"])) == (1200, 630)
    addresses = {file.url for one in OPEN_WEIGHTS.values() for file in one.files}
    for model in values["models"]:
        assert any(address.startswith(f"{HUB}/{model}/") for address in addresses), model
    assert b"/resolve/main/assets/" in deploy.fitted("ann/atelier", "zero-a10g")["README.md"].split(b"---")[1]


def test_the_small_requirements_of_deploy_do_not_load_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from app.cli.main import main; main(['deploy', 'ann/atelier', '--dry-run']); "
        "sys.exit('torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0
