"""Profiles beside an artifact: `profiles/<processor>-<onnxruntime>.json`, so that one store serves machines of several kinds.

A profile is advice: whatever is wrong with one, it counts as not being there, and the model is measured when it is loaded.
"""

import os
import platform
import re
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from models.files import UNREADABLE, replace_file
from models.runtime.onnx import VERSION
from models.staged import Profile

FOLDER: Final = "profiles"
_FIELDS: Final = ("vendor_id", "model name", "cpu family", "model", "stepping")
"""Virtual machines often share a generic name over several generations, so the family and model count as well."""


@cache
def processor() -> str:
    """The kind of processor, such as `AuthenticAMD AMD EPYC 26/2/1`; as the platform says it where there is no /proc/cpuinfo."""
    found = _cpuinfo()
    if "model name" not in found:
        return platform.processor() or platform.machine()
    kind = "/".join(found.get(name, "?") for name in _FIELDS[2:])
    return f"{found.get('vendor_id', '')} {found['model name']} {kind}".strip()


@cache
def has_integer_dot_product() -> bool:
    """Whether the processor multiplies bytes without saturating on the way (VNNI and its kin)."""
    flags = _cpuinfo().get("flags", "") + _cpuinfo().get("Features", "")
    return any(flag in flags for flag in ("vnni", "asimddp", "i8mm"))


def threads_share(workers: int) -> int:
    """Threads that one session may have when so many workers share the cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, cores // max(1, workers))


def path(artifact: Path) -> Path:
    """Where this machine's profile of an artifact lies, or would."""
    name = re.sub(r"[^a-z0-9.]+", "-", f"{processor()}-{VERSION}".lower()).strip("-")
    return artifact / FOLDER / f"{name}.json"


def read(artifact: Path) -> Profile | None:
    """This machine's profile; None when there is none that can be used."""
    profile = _decoded(path(artifact))
    if profile is None or (profile.processor, profile.onnxruntime) != (processor(), VERSION):
        return None
    return profile if profile.seconds_by_rows else None


def is_current(profile: Profile | None, threads_max: int) -> bool:
    """Whether the profile was measured for what a session may have now."""
    return profile is not None and profile.threads_max == threads_max


def write(artifact: Path, profile: Profile) -> None:
    """Keeps the profile as this machine's, by rename."""
    target = path(artifact)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    replace_file(target, msgspec.json.format(msgspec.json.encode(profile)), durable=False)


def stamp(artifact: Path) -> int:
    """Changes with this machine's profile; 0 while there is none."""
    try:
        return path(artifact).stat().st_mtime_ns
    except OSError:
        return 0


def newest(artifact: Path) -> Profile | None:
    """The last profile that was made, on whichever machine: a new processor does not change what was asked for."""
    found = [profile for file in (artifact / FOLDER).glob("*.json") if (profile := _decoded(file)) is not None]
    return max(found, key=lambda profile: profile.tuned_at_unix) if found else None


def _decoded(file: Path) -> Profile | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Profile)
    except UNREADABLE:
        return None


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
