"""The verb `deploy`: what git tracks here becomes a Hugging Face Space, in one commit and without the history.

The files are sent as they lie in this folder, changes that are not committed included; two of them are fitted to the
Space: requirements.txt to its hardware, and README.md's thumbnail to its address.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.torch_build import CPU_INDEX
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput, Message

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ROOT = Path(__file__).resolve().parent.parent
USUAL = "zero-a10g"  # ZeroGPU, the one kind that a free account can make
CPU_TORCH = f"--extra-index-url {CPU_INDEX}"  # pip prefers its builds of the same version
HUBS_OWN = (".gitattributes",)  # files that the Hub keeps in a Space by itself
LISTED = 5


@dataclass(frozen=True)
class Plan:
    """What is sent: the tracked files, of which `fitted` are changed for the Space, and what git does not have there."""

    repository: str
    hardware: str
    private: bool
    files: list[str]  # as in `git ls-files`
    fitted: dict[str, bytes]
    uncommitted: list[str]
    gone: list[str]  # in the Space, and not tracked any more

    def size(self, name: str) -> int:
        return len(self.fitted[name]) if name in self.fitted else (ROOT / name).stat().st_size

    def told(self) -> list[str]:
        """The plan in lines."""
        total = sum(self.size(file) for file in self.files)
        largest = sorted(self.files, key=self.size, reverse=True)[:LISTED]
        kind = "private" if self.private else "public"
        build = "the build for processors" if self.hardware.startswith("cpu") else "the build for GPUs"
        lines = [
            f"{len(self.files)} files, {total / 1e6:.1f} MB, to the {kind} Space {self.repository} on {self.hardware}, "
            f"with torch in {build}",
            "the largest: " + ", ".join(f"{file} {self.size(file) / 1e6:.1f} MB" for file in largest),
        ]
        for names, what in (
            (self.gone, "deleted there, as git does not track them"),
            (self.uncommitted, "sent as they are here, with changes that are not committed"),
        ):
            if names:
                more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
                lines.append(f"{len(names)} {what}: {', '.join(names[:LISTED])}{more}")
        return lines


def main(arguments: Sequence[str]) -> int:
    """`deploy OWNER/NAME`. Returns the exit code; BadInput for wrong input and for what the Hub refuses."""
    options = _parser().parse_args(list(arguments))
    _check(options.space, options.hardware)
    names, uncommitted = tracked(), _changed()
    if options.dry_run:
        hardware = options.hardware or USUAL
        plan = Plan(
            options.space, hardware, options.private, names, fitted(options.space, hardware), uncommitted, []
        )
        _tell(plan)
        print(_git("ls-files"), end="")
        return 0
    from httpx2 import HTTPError

    try:
        return _deploy(_hub(), options, names, uncommitted)
    except (HTTPError, OSError) as problem:
        raise _refused(problem) from None


def _deploy(api: HfApi, options: Any, names: list[str], uncommitted: list[str]) -> int:
    """Tell, ask, send, and look whether all is there."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, SpaceHardware

    there = _there(api, options.space)
    if there is not None and options.private and not there.private:
        raise BadInput("deploy.space_public", space=options.space)
    present = [sibling.rfilename for sibling in there.siblings or []] if there else []
    now = there.runtime.requested_hardware or there.runtime.hardware if there and there.runtime else None
    hardware = options.hardware or now or USUAL
    gone = sorted(set(present) - set(names) - set(HUBS_OWN))
    private = bool(there.private) if there else options.private
    plan = Plan(options.space, hardware, private, names, fitted(options.space, hardware), uncommitted, gone)
    _tell(plan)
    _agree(options.yes)
    if there is None:
        api.create_repo(
            options.space,
            repo_type="space",
            space_sdk="gradio",
            space_hardware=SpaceHardware(hardware),
            private=private,
        )
    elif hardware != now:
        api.request_space_hardware(options.space, SpaceHardware(hardware))
    operations: list[Any] = [CommitOperationAdd(name, plan.fitted.get(name) or ROOT / name) for name in names]
    operations += [CommitOperationDelete(name) for name in gone]
    commit = _git("rev-parse", "--short", "HEAD").strip()
    done = api.create_commit(
        options.space,
        operations,
        repo_type="space",
        commit_message=f"Atelier at {commit}" + (" and changes" if uncommitted else ""),
    )
    now_there = set(api.list_repo_files(options.space, repo_type="space", revision=done.oid)) - set(HUBS_OWN)
    if wrong := sorted(now_there ^ set(names)):
        raise BadInput("deploy.other_files", files=", ".join(wrong[:LISTED]))
    print(f"{api.endpoint}/spaces/{options.space}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="launch.py deploy",
        description="Send what git tracks, as it lies in this folder, to a Hugging Face Space: one commit, no history.",
    )
    parser.add_argument("space", metavar="OWNER/NAME", help="the Space; it is made when it is not there")
    parser.add_argument("--private", action="store_true", help="make it private")
    parser.add_argument(
        "--hardware",
        metavar="NAME",
        help=f"such as cpu-basic, zero-a10g, t4-small (default: what it has; a new one's is {USUAL})",
    )
    parser.add_argument("--yes", action="store_true", help="send without asking")
    parser.add_argument("--dry-run", action="store_true", help="list what would be sent, and call nobody")
    return parser


def _check(space: str, hardware: str | None) -> None:
    """BadInput unless these can be a Space and its hardware."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", space, re.ASCII):
        raise BadInput("deploy.space_form", space=space[:80])
    if hardware is None:
        return
    from huggingface_hub import SpaceHardware

    known = [member.value for member in SpaceHardware]
    if hardware not in known:
        raise BadInput("deploy.hardware_unknown", hardware=hardware[:40], known=", ".join(known))


def tracked() -> list[str]:
    """What git tracks here, in git's order. BadInput where there is no git, and when a file is not here."""
    names = [name for name in _git("ls-files", "-z").split("\0") if name]
    if not names:
        raise BadInput("deploy.nothing_tracked", folder=ROOT)
    if gone := [name for name in names if not (ROOT / name).is_file()]:
        raise BadInput("deploy.file_gone", file=gone[0])
    return names


def _changed() -> list[str]:
    """Tracked files whose content here is not committed."""
    return [name for name in _git("diff", "--name-only", "--relative", "-z", "HEAD").split("\0") if name]


def fitted(space: str, hardware: str) -> dict[str, bytes]:
    """The files that differ in a Space: where torch comes from follows its hardware, and the thumbnail is an address."""
    files: dict[str, bytes] = {}
    if hardware.startswith("cpu"):
        requirements = (ROOT / "requirements.txt").read_text("utf-8")
        files["requirements.txt"] = f"{CPU_TORCH}\n{requirements}".encode()
    readme = (ROOT / "README.md").read_text("utf-8")
    address = f"https://huggingface.co/spaces/{space}/resolve/main/"
    files["README.md"] = re.sub(
        r"(?m)\A(---\n(?:.*\n)*?thumbnail: )(?=\w+/)", rf"\g<1>{address}", readme
    ).encode()
    return files


def _git(*arguments: str) -> str:
    """What git says of this folder. BadInput when it cannot."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
        ).stdout
    except FileNotFoundError:
        raise BadInput("deploy.git_missing") from None
    except subprocess.CalledProcessError as error:
        if not (reason := error.stderr.strip()):
            raise BadInput("deploy.git_failed_silently") from None
        raise BadInput("deploy.git_failed", reason=reason.splitlines()[-1][:120]) from None


def _hub() -> HfApi:
    """The Hub, for whoever is signed in here. BadInput when nobody is."""
    os.environ.pop("HF_HUB_OFFLINE", None)  # set by the command line; this command is a wish to call the Hub
    from huggingface_hub import HfApi, constants, get_token

    constants.HF_HUB_OFFLINE = False
    token = get_token()
    if token is None:
        raise BadInput("deploy.not_signed_in")
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)


def _there(api: HfApi, space: str) -> Any:
    """The Space as it is now, None when it is not there."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.space_info(space)
    except RepositoryNotFoundError as problem:
        if problem.response.status_code == 404:
            return None
        raise


def _tell(plan: Plan) -> None:
    for line in plan.told():
        print(f"atelier: {line}", file=sys.stderr, flush=True)


def _agree(agreed: bool) -> None:
    """Ask for a yes. BadInput without one, or where nobody can be asked."""
    if agreed:
        return
    if not sys.stdin.isatty():
        raise BadInput("deploy.nobody_to_ask")
    print("Send this? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadInput("deploy.not_agreed")


def _refused(problem: Exception) -> BadInput:
    """What the Hub did not do, and why."""
    response = getattr(problem, "response", None)
    if response is None:
        return BadInput("deploy.hub_unreachable", reason=_line(str(problem)))
    status = response.status_code
    reason = response.headers.get("X-Error-Message") or str(getattr(problem, "server_message", None) or "")
    hints = {
        401: Message("deploy.sign_in"),
        402: Message("deploy.pay", {"free": USUAL}),
        403: Message("deploy.token_may_not_write"),
    }
    hint = hints.get(status, Message("deploy.nothing_half_sent"))
    if reason:
        return BadInput("deploy.hub_refused_because", status=status, reason=_line(reason), hint=hint)
    return BadInput("deploy.hub_refused", status=status, hint=hint)


def _line(text: str) -> str:
    return " ".join(text.split())[:160]
