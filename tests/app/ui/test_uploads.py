"""Uploads: a folder of our own, with our rights only, within limits of size and age."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.serving import LOCAL
from app.ui import uploads
from app.ui.uploads import UploadLimits, trim

FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a process that starts now, under a folder that everybody may write."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(shared))
    monkeypatch.setattr(uploads, "upload_folder", uploads.upload_folder.__wrapped__)
    return shared


def test_the_folder_is_ours_alone(fresh: Path) -> None:
    (fresh / "gradio").mkdir()  # of another user, in the usual place
    folder = uploads.upload_folder()
    assert folder.parent == fresh and os.environ["GRADIO_TEMP_DIR"] == str(folder)
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.getuid()


def test_what_killed_processes_left_is_deleted(fresh: Path) -> None:
    left, living = fresh / f"{uploads.PREFIX}left", fresh / f"{uploads.PREFIX}living"
    for folder in (left, living):
        folder.mkdir()
        (folder / "a.png").write_bytes(b"1")
    old = time.time() - uploads.LEFT_SECONDS - 10
    os.utime(left, (old, old))
    (fresh / f"{uploads.PREFIX}link").symlink_to(fresh)
    uploads.upload_folder()
    assert not left.exists() and living.exists()


def put(folder: Path, name: str, size: int, age: float) -> Path:
    path = folder / name / "picture.png"
    path.parent.mkdir()
    path.write_bytes(b"0" * size)
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def test_the_oldest_go_first_and_fresh_ones_stay(tmp_path: Path) -> None:
    files = [put(tmp_path, f"file-{age}", 100, age) for age in (10, 100, 200, 300, uploads.MOST_SECONDS + 1)]
    assert trim(tmp_path, 1_000_000) == 400  # too old
    assert not files[4].parent.exists()
    assert trim(tmp_path, 1_000_000, 250) == 200
    assert [file.exists() for file in files] == [True, True, False, False, False]
    assert trim(tmp_path, 1_000_000, 0) == 100  # somebody is about to use it
    assert trim(tmp_path, 900_000, 0) == 0  # the clock was put back by a day


def test_a_folder_that_was_cleaned_away_is_ours_alone_again(tmp_path: Path) -> None:
    assert trim(tmp_path / "gone", 1_000_000) == 0
    assert os.name != "posix" or stat.S_IMODE((tmp_path / "gone").stat().st_mode) == 0o700


def test_sixty_uploads_stay_within_the_limit(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = uploads.upload_folder()
    monkeypatch.setattr(uploads, "upload_folder", lambda: folder)
    monkeypatch.setattr(uploads, "MOST_BYTES", 1000)
    now = [1_000_000.0]

    async def receive(request: Any) -> PlainTextResponse:
        put(folder, f"file-{now[0]}", len(await request.body()), 1_000_000 - now[0])
        return PlainTextResponse("kept")

    app = Starlette(routes=[Route("/gradio_api/upload", receive, methods=["POST"])])
    client = TestClient(UploadLimits(app, LOCAL, lambda: now[0]), headers=FORM)
    for _ in range(60):
        now[0] += 100
        assert client.post("/gradio_api/upload", content=b"0" * 90).status_code == 200
        assert sum(file.stat().st_size for file in folder.glob("*/*")) <= 1000
    answers = []
    for _ in range(20):  # all at once
        now[0] += 0.1
        answers.append(client.post("/gradio_api/upload", content=b"0" * 90))
    assert {answer.status_code for answer in answers} == {200, 507}
    assert "Too many files" in answers[-1].json()["error"] and "100 MB" not in answers[0].text
    assert sum(file.stat().st_size for file in folder.glob("*/*")) <= 1000
    now[0] += 100
    assert client.post("/gradio_api/upload", content=b"0" * 90).status_code == 200
    assert client.post("/gradio_api/upload", content=b"0" * 1001).status_code == 507


def test_what_comes_is_counted_whatever_its_length_was_said_to_be(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = uploads.upload_folder()
    monkeypatch.setattr(uploads, "upload_folder", lambda: folder)
    monkeypatch.setattr(uploads, "MOST_BYTES", 1000)
    came: list[int] = []
    limits: list[UploadLimits] = []

    class Watched(UploadLimits):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            limits.append(self)

    async def receive(request: Any) -> PlainTextResponse:
        async for part in request.stream():
            came.append(len(part))
            if request.url.path == "/again" and sum(came) > 450:  # a second one begins while this one comes
                (folder / "other").mkdir()
                (folder / "other" / "a.png").write_bytes(b"0" * 600)
                limits[0]._kept += 600
        return PlainTextResponse("kept")

    routes = [Route("/{path:path}", receive, methods=["POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(Watched, serving=LOCAL)])  # type: ignore[arg-type]
    client = TestClient(app, headers=FORM)
    for path, most in (("/gradio_api/component_server", 1000), ("/again", 500)):
        came.clear()
        answer = client.post(path, content=(b"0" * 100 for _ in range(40)))  # its length is not said
        assert answer.status_code == 507 and sum(came) <= most
    assert client.post("/gradio_api/process_recording/", content=b"0").status_code == 404


def test_gradio_deletes_what_came_of_an_upload_without_end(
    studio: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    monkeypatch.setattr(uploads, "MOST_BYTES", 300_000)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%d.png"\r\n\r\n'

    def parts() -> Any:
        for number in range(20):
            yield head % number + b"0" * 50_000 + b"\r\n"

    before = set(uploads.upload_folder().rglob("*.*"))
    answer = httpx.post(f"{studio[0]}gradio_api/upload", content=parts(), headers=FORM)
    assert answer.status_code in (400, 507) and "Too many files" in answer.text
    assert set(uploads.upload_folder().rglob("*.*")) <= before


def test_gradio_keeps_uploads_there(studio: tuple[str, Any], tmp_path: Path) -> None:
    import httpx

    answer = httpx.post(f"{studio[0]}gradio_api/upload", files={"files": ("a.png", b"\x89PNG")})
    assert answer.status_code == 200
    path = Path(answer.json()[0])
    assert path.is_relative_to(uploads.upload_folder()) and path.name == "a.png"
    assert uploads.PREFIX in str(path)
