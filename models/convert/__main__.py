"""`python -m models.convert REQUEST.json`: limits itself, converts, and leaves `result.json`; the parent is `models.convert.isolation`."""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from models.convert.job import RESULT_FILE, Refusal, Request, Result, convert
from models.errors import StagingRefused
from models.niceness import step_back

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 10
_PR_SET_NO_NEW_PRIVS: Final = 38
_FILE_BYTES_MAX: Final = 4 << 30
_THREADS_MORE: Final = 64
"""Beyond what the user already runs: libraries start a few, a fork bomb more."""


def main() -> int:
    request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Request)
    _limit(request)
    outcome: Result | Refusal
    try:
        outcome = convert(request)
    except StagingRefused as refused:
        outcome = Refusal(code=refused.code, message=refused.message, remedy=refused.remedy)
    except MemoryError:
        outcome = Refusal(
            code="memory_exceeded",
            message=f"the conversion wanted more than {request.memory_bytes_max} bytes",
            remedy="",
        )
    except Exception as error:  # noqa: BLE001 - the model's own code may raise anything; it says so and nothing else is harmed
        text = (str(error).strip().splitlines() or [""])[0][:300]
        outcome = Refusal(code="conversion_failed", message=f"{type(error).__name__}: {text}", remedy="")
    (Path(request.into) / RESULT_FILE).write_bytes(msgspec.json.encode(outcome))
    return 0


def _limit(request: Request) -> None:
    """Lowers what this process may use. Where the kernel refuses a limit it goes on without: none of them is the only guard."""
    os.umask(0o077)
    step_back(_NICE)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # A namespace of its own has no network but a loopback that is down.
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    running = sum(1 for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_own(entry))
    for limit, value in (
        (resource.RLIMIT_AS, request.memory_bytes_max),
        (resource.RLIMIT_CPU, request.cpu_s_max),
        (resource.RLIMIT_FSIZE, _FILE_BYTES_MAX),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, running + _THREADS_MORE),
    ):
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):
            continue


def _is_own(process: Path) -> bool:
    try:
        return process.stat().st_uid == os.getuid()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
