"""Starting the converter: a process of its own with an emptied environment, its own directory, and an end to its time."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from models.convert.job import RESULT_FILE, Refusal, Request, Result
from models.errors import StagingRefused
from models.files import UNREADABLE

_RESULT_BYTES_MAX: Final = 4 << 20
_SAID_BYTES_MAX: Final = 4096
_ROOT: Final = Path(__file__).resolve().parents[2]
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def convert(request: Request, *, time_s_max: float = 900.0) -> Result:
    """Runs the request to its end and answers what it made. Blocks. Raises StagingRefused for whatever goes wrong in there."""
    with tempfile.TemporaryDirectory(prefix="runoff-convert-") as folder:
        asked, said = Path(folder) / "request.json", Path(folder) / "stderr"
        asked.write_bytes(msgspec.json.encode(request))
        status = _run(asked, said, time_s_max)
        last = _last_line(said)
    result = Path(request.into) / RESULT_FILE
    if status != 0 or result.is_symlink() or not result.is_file() or result.stat().st_size > _RESULT_BYTES_MAX:
        raise StagingRefused("conversion_died", f"the converter ended with status {status}: {last}")
    try:
        outcome = msgspec.json.decode(result.read_bytes(), type=Result | Refusal)
    except UNREADABLE as error:
        raise StagingRefused("conversion_died", f"the converter left no readable result: {error}") from error
    finally:
        result.unlink()
    if isinstance(outcome, Refusal):
        raise StagingRefused(outcome.code, outcome.message, outcome.remedy)
    return outcome


def _run(asked: Path, said: Path, time_s_max: float) -> int:
    """The exit status. At the end of its time the converter is killed with all that it started."""
    work = str(asked.parent)
    # Nothing of ours: no key, no registry address, no proxy. -P keeps the model's folder off the import path.
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": work,
        "TMPDIR": work,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(_ROOT),
        **_ONE_THREAD,
    }
    with (
        said.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "models.convert", str(asked)],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        ) as child,
    ):
        try:
            return child.wait(time_s_max)
        except subprocess.TimeoutExpired as error:
            raise StagingRefused("conversion_timeout", f"the conversion took longer than {time_s_max:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def _last_line(said: Path) -> str:
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - _SAID_BYTES_MAX))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "no message"
