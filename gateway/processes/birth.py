"""What a child is born with: its name, its writer id, the settings, its pipe and its listening sockets, handed over in its environment."""

import ctypes
import os
import signal
import socket
from collections.abc import Mapping
from typing import Final, Literal
from uuid import uuid4

import msgspec

from gateway.pipe import Pipe
from gateway.settings import Settings

Role = Literal["worker", "shadow", "features", "control"]

_PR_SET_PDEATHSIG: Final = 1


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """`process` is the bounded name of logs and metrics (`worker-0`, `control`); `writer` is new with each start (`worker-<hex>`).

    Descriptors are those of this process; the supervisor passes them on under the same numbers. None: this role has none.
    """

    process: str
    writer: str
    settings: Settings
    pipe_fd: int
    rest_fd: int | None = None
    grpc_fd: int | None = None
    admin_fd: int | None = None
    webhook_fd: int | None = None

    @property
    def fds(self) -> list[int]:
        """Every descriptor to pass on."""
        found = (self.pipe_fd, self.rest_fd, self.grpc_fd, self.admin_fd, self.webhook_fd)
        return [fd for fd in found if fd is not None]

    def environment(self) -> dict[str, str]:
        """The variables for the child, beside those that it inherits."""
        pairs = {
            "RUNOFF_PROCESS": self.process,
            "RUNOFF_WRITER": self.writer,
            "RUNOFF_CHILD_SETTINGS": msgspec.json.encode(self.settings).decode(),
            "RUNOFF_PIPE_FD": self.pipe_fd,
            "RUNOFF_REST_FD": self.rest_fd,
            "RUNOFF_GRPC_FD": self.grpc_fd,
            "RUNOFF_ADMIN_FD": self.admin_fd,
            "RUNOFF_WEBHOOK_FD": self.webhook_fd,
            "RUNOFF_PARENT": os.getpid(),
        }
        return {name: str(value) for name, value in pairs.items() if value is not None}

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Birth":
        """The child's side: what the supervisor put there. From here on this process dies when the supervisor does."""
        die_with_parent(int(environ["RUNOFF_PARENT"]))
        return cls(
            process=environ["RUNOFF_PROCESS"],
            writer=environ["RUNOFF_WRITER"],
            settings=msgspec.json.decode(environ["RUNOFF_CHILD_SETTINGS"], type=Settings),
            pipe_fd=int(environ["RUNOFF_PIPE_FD"]),
            rest_fd=_number(environ.get("RUNOFF_REST_FD")),
            grpc_fd=_number(environ.get("RUNOFF_GRPC_FD")),
            admin_fd=_number(environ.get("RUNOFF_ADMIN_FD")),
            webhook_fd=_number(environ.get("RUNOFF_WEBHOOK_FD")),
        )

    def pipe(self) -> Pipe:
        """The child's end; once only."""
        return Pipe(self.pipe_fd)


def new_writer(role: Role | Literal["supervisor"]) -> str:
    """A writer id: its sequence numbers are never used again, so neither is the id."""
    return f"{role}-{uuid4().hex}"


def adopt(fd: int) -> socket.socket:
    """The socket behind an inherited descriptor."""
    return socket.socket(fileno=fd)


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process (SIGKILL) when `parent` dies, so that no worker holds a port or a file that a new gateway needs.

    Set in the child, not between fork and exec, where Python must not run code. Linux only; elsewhere the pipe's end is what tells.
    """
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
