"""Starting the converter: a process of its own with an emptied environment, its own directory, and an end to its time."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from models.convert.job import RESULT_FILE, Refusal, Request, Result
from models.errors import StagingRefused

_RESULT_BYTES_MAX: Final = 4 << 20
_ROOT: Final = Path(__file__).resolve().parents[2]
_ONE_THREAD: Final[dict[str, str]] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1"
)


def convert(request: Request, *, time_s_max: float = 900.0) -> Result:
    """Runs the request to its end and answers what it made. Blocks. Raises StagingRefused for whatever goes wrong in there."""
    with tempfile.TemporaryDirectory(prefix="runoff-convert-") as folder:
        work = Path(folder)
        asked = work / "request.json"
        asked.write_bytes(msgspec.json.encode(request))
        # The environment holds nothing of ours: no key, no registry address, no proxy. -P keeps the model's folder off the import path.
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": folder,
            "TMPDIR": folder,
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(_ROOT),
        } | _ONE_THREAD
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "models.convert", str(asked)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=time_s_max,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StagingRefused("conversion_timeout", f"the conversion took longer than {time_s_max:.0f} s") from error
    result = Path(request.into) / RESULT_FILE
    if done.returncode != 0 or not result.is_file() or result.is_symlink() or result.stat().st_size > _RESULT_BYTES_MAX:
        raise StagingRefused(
            "conversion_died", f"the converter ended with status {done.returncode}: {_last_line(done.stderr)}"
        )
    try:
        outcome = msgspec.json.decode(result.read_bytes(), type=Result | Refusal)
    except msgspec.MsgspecError as error:
        raise StagingRefused("conversion_died", f"the converter left no readable result: {error}") from error
    finally:
        result.unlink()
    if isinstance(outcome, Refusal):
        raise StagingRefused(outcome.code, outcome.message, outcome.remedy)
    return outcome


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "no message"
