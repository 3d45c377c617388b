"""Every place that writes files, in one list; each is tried on a full disk. New places are found by reading the code.

A place is a function that itself opens, makes, copies or renames files. What only calls `write_atomically` is none: what
holds for that holds for it. Places of tools that only developers run (training, measuring) end with an error of
the system, which names the file; they are listed so that it is known of each which kind it is.
"""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.core.explain import explain
from pipelines.errors import CodedError

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("pipelines/**/*.py"), ROOT / "launch.py"])
Trial = Callable[[Path], object]

# ----------------------------------------------------------------------------------------------------- what is tried


def whole_file(folder: Path) -> None:
    from pipelines.io.files import write_atomically

    write_atomically(folder / "a.bin", b"0" * 100_000)


def trial_of_a_folder(folder: Path) -> None:
    from pipelines.io.files import check_writable

    check_writable(folder / "new" / "a.png")


def fork(folder: Path) -> None:
    from pipelines.core.journal import Journal

    old = folder / "old"
    Journal(old).fork(folder / "fork", 10)


def film(folder: Path) -> None:
    from pipelines.io.video import Frame, write_film

    pictures = [Image.effect_noise((64, 64), 90).convert("RGB") for _ in range(4)]
    write_film(folder / "film.webp", [Frame(picture) for picture in pictures], 4)


def checkpoint(folder: Path) -> None:
    from pipelines.weights.convert import _write_parts

    _write_parts(folder / "new" / "a.safetensors", b"{}" * 50, iter([torch.zeros(100_000)]), [])


def download(folder: Path) -> None:
    from pipelines.weights.download import _Part

    part = object.__new__(_Part)
    part.path, part.file, part.note = (folder / name for name in ("a", "a.part", "a.json"))
    part.url = "https://example.org/a"
    answer = SimpleNamespace(read=lambda *_: b"0" * 1000, read1=lambda *_: b"0" * 1000)
    list(part._write(answer, {"total": 10_000}, 10_000))


def finished_download(folder: Path) -> None:
    from pipelines.weights.download import _fetch_from, _Part

    data = b"0" * 1000  # all of it came before, and only its name changes
    (folder / "a.part").write_bytes(b"")
    part = _Part("https://example.org/a", folder / "a", ["https://example.org/a"])
    part.receive = lambda *_: iter(())  # type: ignore[method-assign]
    with pytest.raises(StopIteration):
        next(_fetch_from(part, None, len(data), None))  # type: ignore[arg-type]
    assert (folder / "a").is_file()


def model_folder(folder: Path) -> None:
    from pipelines.weights.checkpoint import Checkpoint, File
    from pipelines.weights.install import _place

    (folder / "downloads").mkdir()
    entry = Checkpoint(
        "a", "taesd", "l", "o", "a", file=str(folder / "a"), files=(File("https://e.org/a.json"),)
    )
    _place(entry, folder / "downloads")
    assert (folder / "a").is_dir()


def job_list(folder: Path) -> None:
    from app.jobs.store import JobStore
    from tests.support.fakes import FAKES

    JobStore(folder / "outputs", FAKES)


def picture_index(folder: Path) -> None:
    from app.library import Library

    with closing(Library(folder)) as library:
        assert library.count() == 0  # it goes on in memory


def library_marks(folder: Path) -> None:
    from app.library.marks import MarksFile

    MarksFile(folder / "new" / "marks.jsonl").star(["00"], True)


def library_thumbnail(folder: Path) -> None:
    from app.library.thumbnails import write_thumbnail

    write_thumbnail(folder / "new" / "a.webp", b"0" * 1000)


def library_zip(folder: Path) -> None:
    from app.library.sheet import write_zip

    write_zip(folder / "new" / "a.zip", [])


def library_vectors(folder: Path) -> None:
    from app.library.vectors import Vectors

    vectors = Vectors(folder / "new" / "a.f16", 4)
    vectors.write(0, np.eye(4))
    assert vectors.count() == 4  # it goes on in memory


def library_bin(folder: Path) -> None:
    from app.library.bin import Bin
    from app.library.files import places_of

    (folder / "given.png").touch()
    assert len(Bin(places_of(folder)).put(["given.png"])) == 1  # renaming needs no room
    (folder / "library" / "bin").rename(folder / "kept")
    next((folder / "kept").rglob("*.png")).unlink()


def uploads(folder: Path) -> None:
    from app.ui import uploads as module

    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "tmp")
    try:
        module.upload_folder.__wrapped__()
        module.trim(folder / "cleaned away", 0.0)
    finally:
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def picture_folder(folder: Path) -> None:
    from app.cli.run import picture_folder as asked

    asked(str(folder / "new"))


def stop_mark(folder: Path) -> None:
    from app.space import _stop_file

    _stop_file(folder).touch()


def training_log(folder: Path) -> None:
    import sys

    from app.trainings.manager import Trainings
    from app.trainings.order import Order

    trainings = Trainings(folder, lambda: False, (sys.executable, "-c", "print('what is said is lost')"))
    trainings.id = "a"
    (trainings.folder / "a").mkdir(parents=True)
    trainings._run(Order("unet", "", "mine", "mine"))
    assert trainings._process is not None
    trainings._process.wait(60)
    trainings.close(0)


def training_lines(folder: Path) -> None:
    from pipelines.core.pipeline import Step
    from pipelines.training.control import Control

    control = Control(folder)
    control.tell(Step("train", 1, 1))  # a line is no reason to end a training
    control.lease(True)  # an empty file
    assert control.progress.read_bytes() == b""


DEVELOPERS = "a tool of developers"
SANDBOX = (
    "a process of its own with limits of its own; tests/pipelines/weights/test_refusals.py tells how it ends"
)
MEMORY_ALONE = "it writes into a buffer; what comes of it is written by write_atomically, or sent"
SITES: dict[str, Trial | str] = {
    "app/cli/bench.py": DEVELOPERS,
    "app/cli/plan.py": DEVELOPERS,
    "app/cli/reference.py": DEVELOPERS,
    "app/cli/run.py picture_folder": picture_folder,
    "app/cli/soak.py": DEVELOPERS,
    "app/jobs/store.py JobStore._open": job_list,
    "app/jobs/store.py claim": job_list,
    "app/soak.py": DEVELOPERS,
    "app/library/bin.py Bin._move": library_bin,
    "app/library/bin.py _rename": library_bin,
    "app/library/facts.py FactsIndex._another": picture_index,
    "app/library/facts.py _open": picture_index,
    "app/library/marks.py MarksFile._append": library_marks,
    "app/library/near.py NearIndex.add": "an extra; what cannot be saved stays in memory and is made again",
    "app/library/sheet.py write_zip": library_zip,
    "app/library/thumbnails.py write_thumbnail": library_thumbnail,
    "app/library/vectors.py Vectors._write": library_vectors,
    "app/library/vectors.py Vectors.rows": library_vectors,
    "app/space.py ZeroGpu._follow": stop_mark,
    "app/trainings/manager.py Trainings._run": training_log,
    "app/ui/exporting.py packed": MEMORY_ALONE,
    "app/ui/uploads.py trim": uploads,
    "app/ui/uploads.py upload_folder": uploads,
    "launch.py": "before there is anything: it says in a sentence what could not be made",
    "pipelines/benchmarks/": DEVELOPERS,
    "pipelines/core/journal.py Journal.fork": fork,
    "pipelines/evaluation/": DEVELOPERS,
    "pipelines/export/files.py _webm": MEMORY_ALONE,
    "pipelines/io/files.py check_writable": trial_of_a_folder,
    "pipelines/io/files.py write_atomically": whole_file,
    "pipelines/io/video.py _encode": film,
    "pipelines/io/video.py write_film": film,
    "pipelines/training/": DEVELOPERS,
    "pipelines/training/control.py Control._add": training_lines,
    "pipelines/training/control.py Control.lease": training_lines,
    "pipelines/weights/convert.py _make_folder": checkpoint,
    "pipelines/weights/convert.py _write_parts": checkpoint,
    "pipelines/weights/download.py _Part._write": download,
    "pipelines/weights/download.py _fetch_from": finished_download,
    "pipelines/weights/install.py _place": model_folder,
    "pipelines/weights/readers.py _read_pickle": SANDBOX,
    "pipelines/weights/sandbox.py": SANDBOX,
}

# ----------------------------------------------------------------------------------------------- finding the places

WRITERS = {
    *(
        "write_text",
        "write_bytes",
        "mkdir",
        "makedirs",
        "touch",
        "symlink_to",
        "hardlink_to",
        "fdopen",
        "tofile",
    ),
    *("copyfile", "copy2", "copytree", "copyfileobj", "extractall", "save_file", "savez", "savez_compressed"),
    *(
        "mkstemp",
        "mkdtemp",
        "NamedTemporaryFile",
        "TemporaryDirectory",
        "TemporaryFile",
        "SpooledTemporaryFile",
    ),
}
OF_MODULES = {
    "os": ("replace", "rename", "renames", "link", "symlink", "truncate", "mkfifo", "mknod"),
    "shutil": ("move", "copy", "make_archive", "unpack_archive"),
    "np": ("save", "savetxt", "memmap"),
    "numpy": ("save", "savetxt", "memmap"),
}
OPENERS = ("open", "ZipFile", "TarFile", "GzipFile", "LZMAFile", "BZ2File", "FileIO")  # with a mode
ALWAYS = ("FileHandler", "RotatingFileHandler", "hardlink_to")
MODE = re.compile(r"[rwaxbtU+]{1,4}([:|]\w*)?")
MEMORY = ("buffer", "file")  # what the code calls a picture's bytes in memory


def writes(call: ast.Call) -> bool:
    """Whether a call writes to the disk, by its name and its arguments."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    module = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg in ("mode", "format"))]
    texts = [
        value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)
    ]
    if name in OPENERS:
        return any(MODE.fullmatch(text) and set(text.split(":")[0]) & set("wax+") for text in texts) or (
            module == "os" and "O_CREAT" in ast.unparse(call)
        )
    if name in ("replace", "rename") and module != "os":  # a path's has one argument, a text's two
        return len(call.args) == 1 and not call.keywords and bool(module)
    if name == "connect":
        return module == "sqlite3"
    if name == "save":  # a picture to a file, tensors by torch or numpy
        pictures = {"PNG", "JPEG", "WEBP"} & set(texts)
        in_memory = bool(call.args) and ast.unparse(call.args[0]) in MEMORY
        return module in ("torch", "np", "numpy") or bool(pictures and not in_memory) or _is_path(call.args)
    return name in WRITERS or name in ALWAYS or name in OF_MODULES.get(module, ())


def _is_path(values: list[ast.expr]) -> bool:
    """Whether the only argument is a path, by its name or because it is put together from one."""
    if len(values) != 1:
        return False
    divided = isinstance(values[0], ast.BinOp) and isinstance(values[0].op, ast.Div)
    return divided or ast.unparse(values[0]).endswith("path")


def places(file: Path) -> Iterator[str]:
    """The functions of a file that write."""
    name = file.relative_to(ROOT).as_posix()

    def walk(node: ast.AST, where: tuple[str, ...]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and writes(child):
                yield " ".join(filter(None, (name, ".".join(where[:2]))))
            named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            yield from walk(child, (*where, child.name) if named else where)  # type: ignore[attr-defined]

    yield from walk(ast.parse(file.read_text("utf-8")), ())


def listed(place: str) -> str | None:
    """The line of SITES that a place belongs to: its own, its file's or its folder's."""
    ways = (
        place,
        place.split(" ")[0],
        *(line for line in SITES if line.endswith("/") and place.startswith(line)),
    )
    return next((line for line in ways if line in SITES), None)


def test_every_place_that_writes_is_listed_and_no_other() -> None:
    found = {place for file in FILES for place in places(file)}
    assert not [place for place in sorted(found) if listed(place) is None], "list it, and say how it is tried"
    assert not set(SITES) - {listed(place) for place in found}, "these write no more"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f(p):\n p.write_text('a')", True),
        ("def f(p):\n with p.open('ab') as file: pass", True),
        ("def f(p):\n open(p, mode='x')", True),
        ("def f(p):\n os.replace(p, p)", True),
        ("def f(p):\n image.save(p, format='PNG')", True),
        ("def f(p):\n sqlite3.connect(p)", True),
        ("def f(p):\n p.rename(p)", True),
        ("def f(p):\n p.with_name('a').replace(p)", True),
        ("def f(p):\n zipfile.ZipFile(p, 'w')", True),
        ("def f(p):\n tarfile.open(p, 'w:gz')", True),
        ("def f(p):\n gzip.open(p, 'wt')", True),
        ("def f(p):\n os.open(p, os.O_WRONLY | os.O_CREAT)", True),
        ("def f(p):\n np.savetxt(p, [1])", True),
        ("def f(p):\n shutil.make_archive(p, 'zip')", True),
        ("def f(p):\n image.save(p / 'a.png')", True),
        ("def f(path):\n image.save(path)", True),
        ("def f(p):\n logging.FileHandler(p)", True),
        ("class A:\n def f(self, p):\n  def g(): p.mkdir()", "new.py A.f"),
        ("async def f(p):\n p.touch()", True),
        ("def f(p):\n zipfile.ZipFile(p)", False),
        ("def f(p):\n replace(p, a=1)", False),
        ("def f(p):\n dataclasses.replace(p, a=1)", False),
        ("def f(p):\n journal.save(p)", False),
        ("def f(p):\n open(p, 'rb').read()", False),
        ("def f(p):\n image.save(buffer, 'PNG')", False),
        ("def f(p):\n p.replace('a', 'b')", False),
    ],
)
def test_new_places_would_be_found(
    code: str, found: bool | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_write_sites.ROOT", tmp_path)
    (tmp_path / "new.py").write_text(code)
    expected = [found if isinstance(found, str) else "new.py f"] if found else []
    assert list(places(tmp_path / "new.py")) == expected


# ------------------------------------------------------------------------------------------------------- a full disk


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow: the system refuses every byte, whoever writes it, in Python or in C."""
    resource = pytest.importorskip("resource", reason="the system has no such limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


TRIALS = {trial.__name__: trial for trial in SITES.values() if not isinstance(trial, str)}
NOTHING_WRITTEN = {
    *("trial_of_a_folder", "picture_index", "uploads", "picture_folder", "stop_mark"),
    *("library_vectors", "library_bin", "training_log", "training_lines"),
    *("finished_download", "model_folder"),  # which only change names
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the trials read."""
    from pipelines.core.journal import Journal, Snapshot

    Journal(tmp_path / "old").save(Snapshot(10, {"z": torch.zeros(1000)}, {}))
    return tmp_path


def test_the_disk_of_the_trials_is_full(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OSError, match="too large") as problem:
        (tmp_path / "a").write_bytes(b"1")
    assert problem.value.errno == errno.EFBIG


@pytest.mark.parametrize("name", TRIALS)
def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing_half(name: str, folder: Path) -> None:
    problem: Any = None
    with full_disk():
        try:
            TRIALS[name](folder)
        except Exception as error:
            problem = error
    assert (problem is None) == (name in NOTHING_WRITTEN), problem
    if problem is not None:
        assert isinstance(problem, CodedError) or explain(problem).code.startswith("io."), repr(problem)
        assert "\n" not in str(explain(problem))
    left = [
        path.name for path in folder.rglob("*") if path.is_file() and path.suffix in (".part", ".png", ".mp4")
    ]
    assert [name for name in left if not name.startswith("a.")] == []
