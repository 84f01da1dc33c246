"""Tuning from outside: a process of its own, low in priority and bounded in time, whose profile is kept beside the artifact."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from models import profiles
from models.artifacts import file_digest
from models.files import UNREADABLE, replace_file
from models.staged import Ask, Profile, StagedModel, Traffic
from models.tensors import Array, save_rows
from models.tuning.job import RESULT_FILE, TWIN_FILE, Done, Refusal, Request, TuningFailed

BUDGET_S: Final = 4.0
"""How long the search may take for one model. Opening the model once comes on top, however long that is."""
_OVERTIME_S: Final = 60.0
"""After that the process is ended: a run that began within the budget may be long, and so may opening a model of gigabytes."""
_ROOT: Final = Path(__file__).resolve().parents[2]


def measure(
    artifact: Path,
    staged: StagedModel,
    *,
    ask: Ask | None = None,
    threads_max: int = 1,
    runs_max: int = 1,
    budget_s: float = BUDGET_S,
    traffic: Traffic | None = None,
    recorded: Mapping[str, Array] | None = None,
) -> Profile:
    """Tunes the model whose files lie in `artifact` and keeps the profile there, for this machine. Blocks for seconds.

    `recorded` are rows by input name that production has seen. Raises TuningFailed; what was there before then stays.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="runoff-tune-") as folder:
            place = Path(folder)
            request = Request(
                artifact=str(artifact.absolute()),
                into=folder,
                staged=staged,
                ask=ask or Ask(),
                threads_max=threads_max,
                runs_max=runs_max,
                budget_s=budget_s,
                traffic=traffic,
                recorded=str(place / "recorded.npz") if recorded else None,
            )
            if recorded:
                save_rows(place / "recorded.npz", recorded)
            (place / "request.json").write_bytes(msgspec.json.encode(request))
            _run(place / "request.json", budget_s + _OVERTIME_S)
            profile = _result(place / RESULT_FILE)
            if profile.twin_file:
                profile = msgspec.structs.replace(profile, twin_file=_keep_twin(artifact, place / TWIN_FILE))
        profiles.write(artifact, profile)
    except OSError as error:
        raise TuningFailed(f"the profile cannot be made or kept: {error.strerror or error}") from error
    return profile


def _run(asked: Path, time_s_max: float) -> None:
    """Raises TuningFailed when the process does not end well in its time."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(asked.parent),
        "TMPDIR": str(asked.parent),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(_ROOT),
    }
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "models.tuning", str(asked)],
        cwd=asked.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        try:
            status = child.wait(time_s_max)
        except subprocess.TimeoutExpired as error:
            raise TuningFailed(f"measuring took longer than {time_s_max:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if status != 0:
        raise TuningFailed(f"the measuring process ended with status {status}")


def _result(path: Path) -> Profile:
    try:
        outcome = msgspec.json.decode(path.read_bytes(), type=Done | Refusal)
    except UNREADABLE as error:
        raise TuningFailed(f"the measuring process left no readable profile: {error}") from error
    if isinstance(outcome, Refusal):
        raise TuningFailed(outcome.problem)
    return outcome.profile


def _keep_twin(artifact: Path, made: Path) -> str:
    """Puts the int8 file beside the profile, under its digest: a session that still reads an older one is not disturbed."""
    folder = artifact / profiles.FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{file_digest(made)[:16]}.int8.onnx"
    replace_file(target, made.read_bytes(), durable=True)  # nothing checks its digest later
    return f"{profiles.FOLDER}/{target.name}"
