"""What becomes of a draw: a job for each mirror that drew some of it, with the requests that nobody needs to run refused at once."""

from collections.abc import Iterator, Sequence

from gateway.shadow.draw import AGE_MAX_S, Draw, Job
from gateway.shadow.governor import Governor, kept_shares
from gateway.shadow.loader import Loader
from gateway.shadow.progress import Progress
from gateway.shadow.roster import Candidate, Roster

Planned = tuple[Job, Candidate | None]
"""A job, and who is to run what waits in it; None: it is done."""


def plan(
    draw: Draw, roster: Roster, loader: Loader, progress: Progress, governor: Governor, now_unix_s: float
) -> list[Planned]:
    """The draw's jobs. Requests that a predecessor answered for are left out; a job with none left is not made."""
    planned = []
    lag_s = now_unix_s - draw.block.requests[0].received_unix_us / 1e6
    priorities = [candidate.mirror.priority for candidate in roster.candidates.values()]
    kept = kept_shares(priorities, governor.pressure(lag_s))
    for place, mirror in enumerate(draw.block.mirror_names):
        indexes = draw.drawn(place)
        answered = progress.answered(draw, mirror) if indexes else ()
        if answered:
            indexes = [index for index in indexes if draw.block.requests[index].prediction_id not in answered]
        if indexes:
            job = Job(draw, mirror, indexes)
            candidate = roster.candidates.get((draw.block.endpoint, mirror))
            _refuse(job, candidate, loader, 1.0 if candidate is None else kept[candidate.mirror.priority], now_unix_s)
            planned.append((job, None if job.is_done else candidate))
    return planned


def _refuse(job: Job, candidate: Candidate | None, loader: Loader, kept: float, now_unix_s: float) -> None:
    """Gives their outcome to the requests that are not to be run. `kept`: the share that the governor leaves of them."""
    for single, indexes in _single_refusals(job, candidate, kept, now_unix_s):
        job.fail(indexes, single)
    reason = _whole_refusal(job.draw, candidate, loader)
    if candidate is not None and candidate.local is not None:
        job.model, job.version = candidate.local.key.name, candidate.local.key.version
    elif candidate is not None and candidate.mirror.remote is not None:
        job.model = candidate.mirror.remote.model
    if reason is not None:
        job.fail(job.waiting(), reason)


def _single_refusals(
    job: Job, candidate: Candidate | None, kept: float, now_unix_s: float
) -> Iterator[tuple[str, Sequence[int]]]:
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
    if kept < 1:
        yield "governor", [index for index in job.waiting() if not _is_kept(requests[index].prediction_id, kept)]


def _is_kept(prediction_id: bytes, share: float) -> bool:
    """By the random end of the id, so that all mirrors of a priority lose the same requests and stay comparable."""
    return int.from_bytes(prediction_id[-4:]) < share * (1 << 32)


def _whole_refusal(draw: Draw, candidate: Candidate | None, loader: Loader) -> str | None:
    """The reason that holds for the whole job, None: run it."""
    if candidate is None:
        return "mirror_removed"
    if not draw.is_whole:
        return "incompatible"
    if candidate.local is not None:
        return None if loader.model(candidate.local.digest) is not None else loader.refusal(candidate.local.digest)
    return None if candidate.lane is not None else "remote_error"
