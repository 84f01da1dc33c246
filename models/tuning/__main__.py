"""`python -m models.tuning REQUEST.json`: a process of low priority that measures one model; the parent is `models.tuning.process`."""

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from models.niceness import step_back
from models.tuning.job import RESULT_FILE, Done, Refusal, Request, tune

_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 10


def main() -> int:
    os.umask(0o077)
    step_back(_NICE)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Request)
    outcome: Done | Refusal
    try:
        outcome = Done(profile=tune(request))
    except Exception as error:  # noqa: BLE001 - whatever goes wrong here means no profile, and nothing else
        text = (str(error).strip().splitlines() or [""])[0][:300]
        outcome = Refusal(problem=f"{type(error).__name__}: {text}")
    (Path(request.into) / RESULT_FILE).write_bytes(msgspec.json.encode(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
