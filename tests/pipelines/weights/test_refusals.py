"""What the readers refuse: strangers' pickles, damage, bombs."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.weights import unpickle
from pipelines.weights.convert import convert_file
from pipelines.weights.readers import read_original
from tests.support.forms import (
    SAVERS,
    Saver,
    each_pickled_form,
    flax_file,
    save_script,
)


class Call:
    """Pickled, it becomes a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def canaries(mark: Path) -> dict[str, Any]:
    """Objects that leave a file called `mark` when they are unpickled by anyone careless."""
    from torch._tensor import _rebuild_from_type_v2
    from torch._utils import _rebuild_parameter_with_state

    code = f"open({str(mark)!r}, 'w')"
    return {
        "system": Call(os.system, f"touch {mark}"),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "open": Call(open, str(mark), "w"),
        "popen": Call(subprocess.Popen, ["touch", str(mark)]),
        "inside a list of arguments": Call(
            _rebuild_from_type_v2, os.system, Tensor, (f"touch {mark}",), None
        ),
        "as a parameter's state": Call(
            _rebuild_parameter_with_state, torch.ones(1), True, {}, Call(eval, code)
        ),
        "as a key": {Call(open, str(mark), "w"): 1},
    }


def test_the_canaries_sing_where_pickles_are_trusted(tmp_path: Path) -> None:
    """Otherwise the next tests would prove nothing."""
    program = "import contextlib, pathlib, pickle, sys, time\nmark = pathlib.Path(sys.argv[1])\n"
    program += "for one in pickle.load(sys.stdin.buffer):\n"
    program += (
        "    with contextlib.suppress(AttributeError): pickle.loads(one)\n"  # what it rebuilds is no tensor
    )
    program += "    while not mark.exists(): time.sleep(0.01)\n    mark.unlink()\n"
    songs = pickle.dumps([pickle.dumps(one) for one in canaries(tmp_path / "mark").values()])
    subprocess.run([sys.executable, "-c", program, tmp_path / "mark"], input=songs, check=True, timeout=60)


@each_pickled_form
def test_a_malicious_pickle_does_nothing(save: Saver, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "hostile.pt"
    save({"state_dict": {"w": torch.ones(2)}, **canaries(tmp_path / "mark")}, path)
    assert torch.equal(read_original(path).tensors["state_dict.w"], torch.ones(2))
    save(Call(os.system, f"touch {tmp_path / 'mark'}"), path)
    with pytest.raises(BadInput, match=r"^hostile\.pt holds no tensors"):
        read_original(path)
    assert list(tmp_path.iterdir()) == [tmp_path / "files"]
    assert list((tmp_path / "files").iterdir()) == [path]


def test_a_malicious_torchscript_archive_does_nothing(tmp_path: Path) -> None:
    save_script(tmp_path / "good.pt")
    hostile = {**canaries(tmp_path / "mark"), "w": np.ones(2)}
    with zipfile.ZipFile(tmp_path / "good.pt") as old, zipfile.ZipFile(tmp_path / "bad.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle.dumps(hostile) if name.endswith("/data.pkl") else old.read(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        original = read_original(Path("bad.pt"))
    assert set(original.tensors) == {"w", "as a parameter's state"}  # which holds a tensor, too
    assert {path.name for path in tmp_path.iterdir()} == {"good.pt", "bad.pt"}


@pytest.mark.parametrize(
    "deed",
    [
        "open('mark', 'w')",
        "open('/etc/hostname')",
        "os.open('mark', os.O_CREAT)",
        "os.remove('victim')",
        "os.system('touch mark')",
        "os.execv('/bin/touch', ['touch', 'mark'])",
        "os.fork()",
        "os.posix_spawn('/bin/touch', ['touch', 'mark'], {})",
        "os.kill(os.getppid(), 15)",
        "import this",
        "eval('1')",
        "socket.socket()",
        "socket.getaddrinfo('localhost', 80)",
        "subprocess.Popen(['touch', 'mark'])",
        "ctypes.CDLL(None)",
    ],
)
def test_the_sandbox_holds_even_if_the_unpickler_had_a_hole(deed: str, tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    program = (
        "import ctypes, os, socket, subprocess\n"
        "from pipelines.weights.sandbox import Refused, lock\n"
        "lock(2**32, 60)\n"
        f"try:\n    {deed}\nexcept Refused as problem:\n    print(problem, flush=True); os._exit(0)\n"
        "os._exit(9)\n"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "tried to do something that no checkpoint does" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


def test_the_words_that_call_something_are_these_and_no_others() -> None:
    """A new word deserves a second look: what can be called by a pickle is listed here once more."""
    called = {value for value in unpickle.WORDS.values() if callable(value)}
    ours = {value for value in called if value.__module__ == unpickle.__name__}
    assert called - ours == {collections.OrderedDict, set}
    assert {one.__name__ for one in ours} == {
        *("tensor", "tensor_with_dtype", "first", "of_type", "latin"),
        *("NumpyType", "Array", "numpy_scalar", "numpy_buffer"),
    }


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One good file of each form."""
    folder = tmp_path_factory.mktemp("whole")
    net = {"weight": torch.arange(600.0), "more": {"bias": torch.ones(3)}}
    for name, save in SAVERS.items():
        save(net, folder / name)
    save_file({"weight": torch.arange(600.0)}, folder / "safetensors")
    (folder / "flax").write_bytes(flax_file())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["zip", "legacy", "plain", "safetensors", "flax"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.97, 1.0])
def test_a_file_that_is_cut_off_is_refused_in_one_sentence(
    form: str, share: float, whole_files: dict[str, bytes], tmp_path: Path
) -> None:
    data = whole_files[form]
    (tmp_path / "cut.pt").write_bytes(data[: min(int(len(data) * share), len(data) - 1)])
    with pytest.raises(BadInput, match=r"^cut\.pt ") as caught:
        read_original(tmp_path / "cut.pt")
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 420 and "Traceback" not in sentence


def test_changed_bytes_in_an_archive_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.full((64,), 1.25)}, path)
    data = path.read_bytes()
    place = data.index(struct.pack("<f", 1.25) * 8)
    path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    with pytest.raises(BadInput, match=r"a\.pt is damaged"):
        read_original(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (bytes(4096), "is no checkpoint by its first bytes"),
        (b"\x1f\x8b" + bytes(100), "is a packed archive"),
        (b"name" + bytes(253) + b"ustar" + bytes(300), "is a packed archive"),
        (b"<!DOCTYPE html><html>", "is a text, perhaps the page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a text, perhaps the page or the pointer"),
        (b"cos\nsystem\n(S'touch mark'\ntR.", "is no checkpoint by its first bytes"),
        ((10**9).to_bytes(8, "little") + b'{"a":', "is no checkpoint by its first bytes"),
        (pickle.dumps({"steps": 3}), "holds no tensors"),
        (pickle.dumps(Call(OverflowError, 1)), "holds no tensors"),
    ],
)
def test_strangers_are_told_what_they_look_like(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match=rf"^x\.safetensors {words}.*; expected weights as safetensors"):
        read_original(tmp_path / "x.safetensors")


def test_a_tensor_cannot_take_the_place_of_the_metadata(tmp_path: Path) -> None:
    torch.save({"__metadata__": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=r"a\.pt holds two tensors named '__metadata__'"):
        read_original(tmp_path / "a.pt")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.pt cannot be opened \(no such file"):
        read_original(tmp_path / "none.pt")
    with pytest.raises(BadInput, match="cannot be opened"):
        read_original(tmp_path)


def archive(pickled: bytes, *members: tuple[str, bytes]) -> bytes:
    """A zip archive in torch's form, by hand."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, data in (("archive/data.pkl", pickled), *members):
            out.writestr(name, data)
    return file.getvalue()


def one_tensor(shape: Any, strides: Any, offset: Any = 0) -> bytes:
    """A zip archive with one float32 tensor, described as is said, over a storage of four numbers."""

    class Writer(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if value == "STORAGE" else None

    file = io.BytesIO()
    Writer(file, 2).dump(
        {"w": Call(torch._utils._rebuild_tensor_v2, "STORAGE", offset, shape, strides, False, {})}
    )
    return archive(file.getvalue(), ("archive/data/0", np.arange(4, dtype="<f4").tobytes()))


def test_a_tensor_described_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(one_tensor((2, 2), (1, 2)))
    assert read_original(tmp_path / "a.pt").tensors["w"].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((5,), (1,), 0),
        ((4,), (1,), 1),
        ((2, 2), (4, 1), 0),
        ((2,), (-1,), 1),
        ((-2,), (1,), 0),
        ((2,), (1, 1), 0),
        ((2**40, 2**40), (0, 0), 0),
        ((2**33,), (0,), 0),
        ((2.0,), (1,), 0),
        ((1,) * 100, (1,) * 100, 0),
        ("ab", "ab", 0),
    ],
)
def test_tensors_that_reach_beyond_their_storage_or_all_memory_are_refused(
    shape: Any, strides: Any, offset: int, tmp_path: Path
) -> None:
    (tmp_path / "a.pt").write_bytes(one_tensor(shape, strides, offset))
    with pytest.raises(BadInput, match=r"^a\.pt (holds|is damaged)"):
        read_original(tmp_path / "a.pt")


def test_archives_that_lie_about_their_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    good = archive(pickle.dumps({"w": np.ones(3)}), ("archive/data/0", bytes(100)))
    end = good.rindex(b"PK\x01\x02")
    path.write_bytes(good[: end + 24] + struct.pack("<I", 0xFFFFFF00) + good[end + 28 :])
    with pytest.raises(BadInput, match=r"unpacks to more than 2\.1 GB"):
        read_original(path, memory=2**31)
    path.write_bytes(good[: end + 20] + struct.pack("<I", 10**6) + good[end + 24 :])
    with pytest.raises(BadInput, match="members that overlap"):
        read_original(path)
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = archive(pickle.dumps({"w": np.ones(3)}), ("archive/x", b"1"), ("archive/x", b"2"))
    path.write_bytes(twice)
    with pytest.raises(BadInput, match="two members of one name"):
        read_original(path)
    file = io.BytesIO()
    np.savez(file, w=np.ones(3))
    path.write_bytes(file.getvalue())
    with pytest.raises(BadInput, match=r"without data\.pkl"):
        read_original(path)


def test_an_endless_pickle_is_stopped_by_the_limits(tmp_path: Path) -> None:
    """Pairs of pairs sixty deep as a key of a dict: computing its hash would take longer than the sun has."""
    pickled = b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s."
    (tmp_path / "endless.pt").write_bytes(pickled)
    with pytest.raises(BadInput, match=r"endless\.pt (took more than|could not be read within) 1 s"):
        read_original(tmp_path / "endless.pt", seconds=1)
    assert [path.name for path in tmp_path.iterdir()] == ["endless.pt"]


def test_a_tree_of_trees_is_refused(tmp_path: Path) -> None:
    pickled = b"\x80\x02}X\x01\x00\x00\x00a" + b")" + b"q\x00h\x00\x86" * 60 + b"s."
    (tmp_path / "a.pt").write_bytes(pickled)
    with pytest.raises(BadInput, match="nests its objects too deeply"):
        read_original(tmp_path / "a.pt")


def test_a_memory_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.pt").write_bytes(
        b"\x80\x02K\x01r\xff\xff\xff\x7f."
    )  # wants a memo of two billion places
    with pytest.raises(BadInput, match=r"bomb\.pt needs more than 1\.1 GB of memory"):
        read_original(tmp_path / "bomb.pt", memory=2**30)


def test_a_file_larger_than_the_limit_is_not_opened(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=r"a\.pt has .* more than"):
        read_original(tmp_path / "a.pt", memory=1000)


def test_secrets_of_the_environment_do_not_reach_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def look(command: list[str], **words: Any) -> Any:
        seen.update(words, command=command)
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setattr(subprocess, "run", look)
    torch.save({"w": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(BadInput):
        read_original(tmp_path / "a.pt")
    assert "secret" not in json.dumps(seen["env"]) and "-I" in seen["command"]
    assert seen["stdin"] == subprocess.DEVNULL


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no such pipes")
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(BadInput, match="cannot be opened"):
        convert_file([tmp_path / "a.safetensors"], tmp_path / "out.safetensors")
