"""The retained total: what processes that are gone have counted, so that no counter ever goes back. Only the supervisor writes it."""

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from gateway.telemetry.catalogue import METRICS
from gateway.telemetry.counters import OTHER, Labels, Totals, page_files, read_page
from models.files import replace_file

SERIES_MAX: Final = 8_192
_RECORDS: Final = "runoff_records_total"


class RetainedSeries(msgspec.Struct, frozen=True):
    """A counter or histogram of the dead, in cell units."""

    name: str
    labels: dict[str, str]
    values: list[int]


class RetainedFile(msgspec.Struct):
    """What is on disk. `folded` names the writers whose pages are in the sums but perhaps not yet unlinked."""

    folded: list[str] = []
    series: list[RetainedSeries] = []


def read_pages(folder: Path) -> Totals:
    """All that was ever counted here: the living pages and the retained total. Gauges are those of the living."""
    retained = _load(folder)
    totals = _totals(retained)
    for page in page_files(folder):
        if _writer(page) in retained.folded:
            continue
        is_dead = _is_dead(page)
        for name, kind, labels, values in read_page(page):
            if kind != "gauge" or not is_dead:
                totals.add(name, labels, values)
    return totals


def fold_dead(folder: Path) -> dict[str, int]:
    """Moves the pages of dead writers into the retained total; answers how many records each of them lost.

    A record is lost when its request was assigned a variant and came to no end. The sums and the names of their writers go to disk in
    one rename before a page is unlinked, so that a crash in between counts nothing twice.
    """
    retained = _load(folder)
    pages = {_writer(page): page for page in page_files(folder)}
    dead = [writer for writer, page in pages.items() if writer not in retained.folded and _is_dead(page)]
    stale = [writer for writer in retained.folded if writer in pages]
    losses: dict[str, int] = {}
    if dead:
        totals = _totals(retained)
        for writer in dead:
            losses[writer] = _fold(pages[writer], totals)
        _store(folder, totals, dead)
    for writer in dead + stale:
        pages[writer].with_suffix(".jsonl").unlink(missing_ok=True)
        pages[writer].unlink(missing_ok=True)
    return losses


def _fold(page: Path, totals: Totals) -> int:
    assigned = ended = 0
    for name, kind, labels, values in read_page(page):
        if kind == "gauge":
            continue
        totals.add(name, _bounded(totals, name, labels), values)
        if name == _RECORDS:
            is_assigned = dict(labels)["outcome"] == "assigned"
            assigned += int(values[0]) if is_assigned else 0
            ended += 0 if is_assigned else int(values[0])
    lost = max(0, assigned - ended)
    if lost:
        totals.add(_RECORDS, (("outcome", "lost"),), [lost])
    return lost


def _bounded(totals: Totals, name: str, labels: Labels) -> Labels:
    if (name, labels) in totals.series or len(totals.series) < SERIES_MAX:
        return labels
    return tuple((label, OTHER) for label, _ in labels)


def _is_dead(page: Path) -> bool:
    """Whether the process that made the page is gone: its lock on the file went with it."""
    try:
        handle = os.open(page, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(handle)


def _load(folder: Path) -> RetainedFile:
    try:
        return msgspec.json.decode((folder / "retained.json").read_bytes(), type=RetainedFile)
    except (
        FileNotFoundError,
        msgspec.DecodeError,
    ):  # a power loss may spoil it; counters then begin anew, as after any reset
        return RetainedFile()


def _totals(retained: RetainedFile) -> Totals:
    totals = Totals()
    for series in retained.series:
        metric = METRICS.get(series.name)
        if metric is not None:
            totals.add(series.name, tuple(series.labels.items()), list(series.values))
    return totals


def _store(folder: Path, totals: Totals, folded: list[str]) -> None:
    series = [
        RetainedSeries(name, dict(labels), [int(value) for value in values])
        for (name, labels), values in totals.series.items()
    ]
    replace_file(folder / "retained.json", msgspec.json.encode(RetainedFile(folded, series)), durable=False)


def _writer(page: Path) -> str:
    return page.stem.removeprefix("counters-")
