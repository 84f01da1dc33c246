"""What becomes of a draw: a job for each mirror that drew some of it, with the requests that nobody needs to run refused at once."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final

from gateway.shadow.draw import AGE_MAX_S, Draw, Job
from gateway.shadow.loader import Loader
from gateway.shadow.progress import Progress
from gateway.shadow.roster import Candidate, Roster

BEHIND_S: Final = 15.0
"""From this lag on the governor sheds, candidates of the largest priority number first; at LATE_S only the first are left."""
LATE_S: Final = 45.0

Planned = tuple[Job, Candidate | None]
"""A job, and who is to run what waits in it; None: it is done."""


def plan(draw: Draw, roster: Roster, loader: Loader, progress: Progress, now_unix_s: float) -> list[Planned]:
    """The draw's jobs. Requests that a predecessor answered for are left out; a job with none left is not made."""
    planned = []
    for place, mirror in enumerate(draw.block.mirror_names):
        indexes = draw.drawn(place)
        answered = progress.answered(draw, mirror) if indexes else ()
        if answered:
            indexes = [index for index in indexes if draw.block.requests[index].prediction_id not in answered]
        if indexes:
            job = Job(draw, mirror, indexes)
            candidate = roster.candidates.get((draw.block.endpoint, mirror))
            _refuse(job, candidate, loader, kept_priority(roster, draw, now_unix_s), now_unix_s)
            planned.append((job, None if job.is_done else candidate))
    return planned


def kept_priority(roster: Roster, draw: Draw, now_unix_s: float) -> int:
    """The largest priority number that is still run at this lag."""
    ranks = sorted({candidate.mirror.priority for candidate in roster.candidates.values()}) or [1]
    lag_s = now_unix_s - draw.block.requests[0].received_unix_us / 1e6
    if lag_s <= BEHIND_S:
        return ranks[-1]
    return ranks[max(1, min(len(ranks), ceil(len(ranks) * (LATE_S - lag_s) / (LATE_S - BEHIND_S)))) - 1]


def _refuse(job: Job, candidate: Candidate | None, loader: Loader, priority_max: int, now_unix_s: float) -> None:
    """Gives their outcome to the requests that are not to be run."""
    for single, indexes in _single_refusals(job, candidate, now_unix_s):
        job.fail(indexes, single)
    reason = _whole_refusal(job.draw, candidate, loader, priority_max)
    if candidate is not None and candidate.local is not None:
        job.model, job.version = candidate.local.key.name, candidate.local.key.version
    elif candidate is not None and candidate.mirror.remote is not None:
        job.model = candidate.mirror.remote.model
    if reason is not None:
        job.fail(job.waiting(), reason)


def _single_refusals(job: Job, candidate: Candidate | None, now_unix_s: float) -> Iterator[tuple[str, Sequence[int]]]:
    """Reasons that hold for some requests and not for others; each sees only what the one before has left."""
    requests = job.draw.block.requests
    oldest_us = (now_unix_s - AGE_MAX_S) * 1e6
    yield "expired", [index for index in job.indexes if requests[index].received_unix_us < oldest_us]
    if candidate is None:
        return
    until_s, bytes_max = candidate.mirror.until_unix_s, candidate.mirror.body_bytes_max
    if until_s is not None:
        yield "until_passed", [i for i in job.waiting() if requests[i].received_unix_us >= until_s * 1e6]
    if bytes_max is not None:
        yield "too_large", [index for index in job.waiting() if job.draw.input_bytes(index) > bytes_max]


def _whole_refusal(draw: Draw, candidate: Candidate | None, loader: Loader, priority_max: int) -> str | None:
    """The reason that holds for the whole job, None: run it."""
    if candidate is None:
        return "mirror_removed"
    if not draw.is_whole:
        return "incompatible"
    if candidate.mirror.priority > priority_max:
        return "governor"
    if candidate.local is not None:
        return None if loader.model(candidate.local.digest) is not None else loader.refusal(candidate.local.digest)
    return None if candidate.lane is not None else "remote_error"
