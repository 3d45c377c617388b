"""How the studio is served: where it listens, to which names it answers, who may come in, and whose pictures are seen."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from pipelines.errors import BadInput

HOST, PORT = "127.0.0.1", 7860
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # hosts that stand for all addresses of the machine
ANY = "*"  # stands for all names

Protection = Literal["none", "token", "password"]


@dataclass(frozen=True)
class Serving:
    """The facts of one served page. `serving_of` makes it from flags and environment."""

    host: str = HOST
    port: int | None = PORT  # None: any free one
    names: tuple[str, ...] = LOCAL_NAMES  # Host headers that are answered, without port; ANY for all
    root: str = ""  # the path that a proxy serves the page under, "/studio", or "https://example.org/studio"
    protection: Protection = "none"
    secret: str = field(default="", repr=False)  # the token or the password
    space: str = ""  # OWNER/NAME when this is a Space
    space_host: str = ""  # the name under which browsers find that Space
    shared_library: bool = False  # beyond this machine: one library for all visitors

    @property
    def beyond(self) -> bool:
        """Whether other machines can reach it: by its address, by a name of theirs, or through a proxy."""
        return bool(self.space or self.root or not all(map(is_local, (self.host, *self.names))))

    @property
    def apart(self) -> bool:
        """Whether each visitor sees only what is his own."""
        return self.beyond and not self.shared_library

    @property
    def proxied(self) -> bool:
        """Whether a proxy stands before it, whose X-Forwarded headers tell the truth."""
        return bool(self.root or self.space)

    @property
    def path(self) -> str:
        """The path under which browsers find the page, without a slash at its end."""
        return (urlsplit(self.root).path if "://" in self.root else self.root).rstrip("/")

    @property
    def may_change_models(self) -> bool:
        """Whether visitors may fetch models and change the pack: not where everybody may come in."""
        return not self.beyond or self.protection != "none"

    def answers(self, host: str) -> bool:
        """Whether a Host header is one of ours.

        Where all addresses are served, any address as such is: what must be kept out is a stranger's name that leads here.
        """
        name = host_name(host)
        if ANY in self.names or name in self.names:
            return True
        return self.host in EVERYWHERE and _is_address(name)

    def address(self, port: int) -> str:
        """What to open in a browser, the token included."""
        if self.space_host:
            base = f"https://{self.space_host}"
        elif "://" in self.root:
            base = self.root.rstrip("/")
        else:
            name = self.host
            if self.host in EVERYWHERE or is_local(self.host):
                asked = [host for host in self.names if host != ANY and not is_local(host)]
                name = asked[0] if asked else own_address() if self.host in EVERYWHERE else self.host
            base = f"http://{f'[{name}]' if ':' in name else name}:{port}{self.path}"
        return f"{base}/" + (f"?token={self.secret}" if self.protection == "token" else "")


LOCAL = Serving()


def serving_of(
    *,
    host: str | None = None,
    port: str | None = None,
    allow_host: list[str] | None = None,
    password: str | None = None,
    open_to_all: bool = False,
    root_path: str | None = None,
    shared_library: bool = False,
    environment: Mapping[str, str],
) -> Serving:
    """The flags of `ui`, each None or empty when it was not given, and what the environment says in their place.

    BadInput when one cannot be or when two do not go together.
    """
    space = environment.get("SPACE_ID", "") or ""
    host = host or environment.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if space else HOST)
    host = host.strip("[]").lower()
    if not re.fullmatch(r"[\w.:%-]{1,253}", host):
        raise BadInput("app.host_form", host=host[:60])
    root = _root(root_path or environment.get("GRADIO_ROOT_PATH") or "")
    asked = [_name(entry) for entry in allow_host or []]
    if "://" in root:
        asked.append(host_name(urlsplit(root).netloc))
    if host not in EVERYWHERE:
        asked.append(host)
    names = tuple(dict.fromkeys((*LOCAL_NAMES, *asked)))
    beyond = Serving(host=host, names=names, root=root, space=space).beyond
    if open_to_all and password:
        raise BadInput("app.open_and_password")
    if open_to_all and not beyond:
        raise BadInput("app.open_needs_host")
    if space or (open_to_all and not allow_host):
        names = (ANY,)
    protection: Protection = "password" if password else "token"
    if not password and (space or open_to_all or not beyond):
        protection = "none"
    return Serving(
        host=host,
        port=_port(port or environment.get("GRADIO_SERVER_PORT") or str(PORT)),
        names=names,
        root=root,
        protection=protection,
        secret=password or (secrets.token_urlsafe(24) if protection == "token" else ""),
        space=space,
        space_host=environment.get("SPACE_HOST", "") if space else "",
        shared_library=shared_library,
    )


def _port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or not 1 <= int(text) <= 65535:
        raise BadInput("app.port_form", port=text[:20], usual=PORT)
    return int(text)


def _name(text: str) -> str:
    """A name that is to be answered, as `host_name` gives it."""
    name = text if text == ANY else host_name(text)
    if name != ANY and not re.fullmatch(r"[\w.:-]{1,253}", name):
        raise BadInput("app.allowed_host_form", host=text[:60])
    return name


def _root(text: str) -> str:
    text = text.rstrip("/")
    path = urlsplit(text).path if re.match("https?://[^/]", text) else text
    if path and not re.fullmatch(r"(/[\w.~-]+)+", path):
        raise BadInput("app.root_path_form", path=text[:60])
    return text


def host_name(host: str) -> str:
    """A Host header without its port, in lower case: "[::1]:7860" -> "::1"."""
    match = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", host.strip())
    name = (match[1] or match[2] or "") if match else host  # what has several colons is an address as it is
    return name.lower().removesuffix(".")


def is_local(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def own_address() -> str:
    """The address by which other machines find this one, as far as it knows; nothing is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # an address of documentation: only the route to it is looked up
            return asking.getsockname()[0]
        except OSError:
            return HOST


@contextmanager
def without_proxies() -> Iterator[None]:
    """With no proxy in the environment, nor in the system's settings: a call to this machine goes to it directly.

    Proxies may be named in any way, by a scheme that the HTTP client does not know too. Own certificates are not needed
    either. Afterwards the environment is as it was.
    """
    odd = [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_")]
    before = {name: os.environ.pop(name) for name in odd}
    os.environ["no_proxy"] = ANY
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        os.environ.update(before)


def check_free(host: str, port: int) -> None:
    """BadInput in one sentence when nothing can listen there."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise _unbound(host) from None
    with socket.socket(family, kind) as trial:
        if os.name == "posix":  # elsewhere it would let two listen at one place
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(place)
        except OSError as problem:
            raise _refusal(problem, host, port) from None


def _refusal(problem: OSError, host: str, port: int) -> BadInput:
    if problem.errno == errno.EADDRINUSE:
        return BadInput("app.port_taken", port=port, other=port + 1 if port < 65535 else PORT)
    if problem.errno in (errno.EACCES, errno.EPERM):
        return BadInput("app.port_forbidden", port=port, other=PORT)
    return _unbound(host)


def _unbound(host: str) -> BadInput:
    return BadInput("app.address_not_here", host=host, usual=HOST)


def add_flags(parser: Any) -> None:
    """The flags of `ui` that `serving_of` takes."""
    parser.add_argument(
        "--host",
        metavar="NAME",
        help="address to listen on; 0.0.0.0 for all of this machine's (default: 127.0.0.1)",
    )
    parser.add_argument("--port", metavar="N", help=f"port to listen on (default: {PORT})")
    parser.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="a name under which browsers may reach it, besides localhost and --host; may be given again; '*' for all",
    )
    parser.add_argument(
        "--password",
        nargs="?",
        const="",
        metavar="WORD",
        help="ask visitors for a password (default: ATELIER_PASSWORD; without a WORD it is asked for here)",
    )
    parser.add_argument(
        "--open",
        dest="open_to_all",
        action="store_true",
        help="beyond this machine: let everybody in, without a link or a password",
    )
    parser.add_argument(
        "--root-path", metavar="PATH", help="the path under which a proxy serves it, such as /studio"
    )
    parser.add_argument(
        "--shared-library",
        action="store_true",
        help="beyond this machine: let all visitors see all pictures, runs and directions",
    )
