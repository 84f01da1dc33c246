"""Control's slow look at what was recorded: mirrored rows that nobody read in time go, and evidence and labels become figures on the scrape.

All of it runs on two threads that nobody waits for. A look may take long when the lake is large, so the pause after it grows with it:
at most a twentieth of a core is spent here.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from gateway.control.drift import References
from gateway.settings import Settings
from gateway.spool.reader import Expired, expire, writers
from gateway.state.documents import documents
from gateway.streams.feed import Feed
from gateway.streams.schema import MEASURES
from gateway.streams.table import CommitFailed
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.log import EventLog
from models.files import replace_file
from routing.errors import RouteInvalid
from routing.experiments.mcnemar import Verdict
from routing.records import QualityBlock, QualityRow
from routing.traffic import Route
from routing.validate import validate

if TYPE_CHECKING:
    from gateway.evidence.drift import Stability
    from gateway.evidence.evidence import Evidence, Recent

_log: Final = EventLog(__name__)
Found = TypeVar("Found")
_SWEEP_S: Final = 5.0
_MIRROR_AGE_S: Final = 60.0 - _SWEEP_S
"""With a sweep every five seconds no mirrored row is older than 60 s."""
_LOOK_S: Final = 20.0
_PAUSE_RATIO: Final = 19.0
_SETTLED_S: Final = 120.0
"""A label is judged so long after its receipt: records reach the lake within seconds."""
_ROWS_MAX: Final = 1_000_000
"""Quality on the scrape looks at the newest days that hold so many predictions, and no further back than the label window. Of a day that
holds more so many are drawn."""
_OUTCOMES: Final = ("joined", "orphaned", "row_missing", "row_unknown")
_DRIFT_SHOWN: Final = 20
_DRIFT_SHOWN_MAX: Final = 60
"""Inputs of a variant on the scrape: 200 of them, twice, on three endpoints would fill a page of 2,048 series."""

Gauge = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name and its labels."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found: gauges, measures that changed, and the labels that were settled since the last one, by outcome."""

    gauges: dict[Gauge, float]
    changed: list[QualityRow]
    labels: dict[str, int]


class Feedback:
    """Belongs to control's loop, which alone writes `page`; `sweep` and `look` block, and run on threads."""

    def __init__(
        self,
        settings: Settings,
        evidence: Callable[[], "Evidence"],
        page: CounterPage,
        record: Callable[[QualityBlock], None] = lambda _: None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`record` brings measures to the lake; raises OSError where they cannot be written."""
        self._settings = settings
        self._evidence = evidence
        self._page = page
        self._wall = wall
        self._settled = Watermark(settings.state_path / "labels.json")
        self._is_compared = False
        self._shown: dict[Gauge, float] = {}
        self._record = record
        self._told: dict[tuple[str, ...], QualityRow] = {}
        self._features = Drifted()
        self._references = References(settings.state_path / "references", evidence)

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(_SWEEP_S, self.sweep, self._count_expired))
            tasks.create_task(self._every(_LOOK_S, self.look, self.show))

    def sweep(self) -> Expired:
        """Deletes mirrored rows that are about to be a minute old, and tells of those that the shadow process has not answered for."""
        mirror = self._settings.state_path / "mirror"
        read = _answered(self._settings.state_path)
        found = [
            expire(mirror / writer, _MIRROR_AGE_S, self._wall(), read.get(writer, 0)) for writer in writers(mirror)
        ]
        return Expired(sum(one.segments for one in found), sum(one.bytes for one in found))

    def look(self) -> Look:
        """Figures of every endpoint's evidence, and of the labels that came since the last look.

        An endpoint whose figures cannot be made has none: old ones would pass for fresh, and others must not wait for it.
        """
        gauges: dict[Gauge, float] = {}
        changed: list[QualityRow] = []
        for endpoint, document in documents(self._settings.state_file).items():
            try:
                found, news = self._of_endpoint(validate(document))
            except RouteInvalid:
                continue  # of an older release; its owner is told when it is changed
            except Exception as error:  # noqa: BLE001  # a lake can fail in any way
                _log.warning("figures_not_made", endpoint=endpoint, error=error)
                continue
            gauges |= found
            changed += news
        return Look(gauges=gauges, changed=changed, labels=self._settle())

    def show(self, look: Look) -> None:
        """Brings a look to the scrape; what it no longer knows goes from there."""
        for name, labels in {**self._shown, **look.gauges}:
            slot = self._page.gauge(name, dict(labels))
            self._page.floats[slot] = look.gauges.get((name, labels), nan)
        self._shown = look.gauges
        for outcome, labels_settled in look.labels.items():
            self._page.cells[self._page.counter("runoff_labels_total", {"outcome": outcome})] += labels_settled
        if look.changed:
            self._record(QualityBlock(look.changed))  # last: a spool that takes nothing must cost no count
            self._told |= {_who(row): row for row in look.changed}  # and the rows are told again

    def _count_expired(self, expired: Expired) -> None:
        self._page.cells[self._page.counter("runoff_mirror_expired_bytes_total")] += expired.bytes
        if expired.segments:
            _log.warning("mirror_rows_expired", segments=expired.segments, bytes=expired.bytes)

    async def _every(self, pause_s: float, act: Callable[[], Found], then: Callable[[Found], None]) -> None:
        while True:
            began = time.monotonic()
            try:
                then(await asyncio.to_thread(act))
            except (CommitFailed, OSError, sqlite3.Error) as error:
                _log.warning("feedback_failed", reason=str(error))
            except Exception as error:  # noqa: BLE001  # figures that cannot be made now must not end those that can be made later
                _log.error("feedback_failed", error=error)
            await asyncio.sleep(max(pause_s, _PAUSE_RATIO * (time.monotonic() - began)))

    def _of_endpoint(self, route: Route) -> tuple[dict[Gauge, float], list[QualityRow]]:
        """Gauges, and the measures that are to be stored."""
        recent = self._evidence().recent(route.endpoint, _ROWS_MAX)
        if recent is None:
            return {}, []
        subjects = self._subjects(route, recent)
        drift = self._drift(route, subjects)
        gauges = {**_quality(route, subjects), **self._drifted(route, drift), **self._experiments(route)}
        return gauges, self._changed(route, subjects, drift)

    def _settle(self) -> dict[str, int]:
        """Labels that are old enough to judge, by outcome."""
        try:
            self._compare()
            settled = self._evidence().settle(self._settled.sequence, self._wall() - _SETTLED_S)
            self._evidence().give_back()  # of the whole look
        except Exception as error:  # noqa: BLE001  # see above: the figures that could be made are shown
            _log.warning("labels_not_settled", error=error)
            return {}
        if settled.last != self._settled.sequence:
            self._settled.advance(settled.last)  # before they are counted: a crash in between counts none twice
        return {outcome: getattr(settled, outcome) for outcome in _OUTCOMES}

    def _compare(self) -> None:
        """Once: a lake restored from a backup lies before the mark, and gives the numbers after its end out anew."""
        if self._is_compared:
            return
        given = Feed(self._settings.lake_uri, "labels").given()
        if self._settled.sequence > given:
            _log.error("labels_ahead_of_lake", position=self._settled.sequence, lake=given)
            self._settled.advance(given)
        self._is_compared = True

    def _subjects(self, route: Route, recent: "Recent") -> list[Any]:
        """Each variant's and mirror's newest version."""
        from gateway.evidence.quality import Question

        window_s = route.label.window_s
        # By whole hours, so that the same question is asked again while nothing was stored.
        since = max(recent.since_unix_s, (self._wall() - window_s) // 3600 * 3600)
        # Of who answered, as all figures of the scrape and the table `metrics` are.
        asked = Question(
            endpoint=route.endpoint, by="answered", since_unix_s=since, label_window_s=window_s, one_in=recent.one_in
        )
        newest: dict[tuple[str, str], Any] = {}
        for subject in self._evidence().quality(asked)["subjects"]:
            who = (subject["role"], subject["name"])
            if who not in newest or subject["last_unix_s"] > newest[who]["last_unix_s"]:
                newest[who] = subject
        return list(newest.values())

    def _drift(self, route: Route, subjects: list[Any]) -> dict[str, "dict[str, Stability]"]:
        """By variant, how its newest rows lie against the reference."""
        live = {one["name"]: one for one in subjects if one["role"] == "live"}
        champion = live.get(route.champion)
        if champion is None:
            return {}
        who = champion["model"], champion["version"]
        found = {
            name: self._references.drift(route, who, name, one["version"], self._wall()) for name, one in live.items()
        }
        return {name: one for name, one in found.items() if one}

    def _changed(
        self, route: Route, subjects: list[Any], drift: Mapping[str, "dict[str, Stability]"]
    ) -> list[QualityRow]:
        """What is to be stored: of each minute that is over once, for whoever answered in it, or is not as it was told last."""
        minute, changed = int(self._wall() // 60 * 60) - 60, []
        for subject in subjects:
            who = (route.endpoint, subject["role"], subject["name"], subject["model"], subject["version"])
            is_live = subject["role"] == "live"
            psi = {name: one.psi for name, one in drift.get(subject["name"], {}).items()} if is_live else {}
            row = QualityRow(*who, minute, subject["labelled"], _measures(subject), psi)
            last = self._told.get(who)
            is_news = last is None or last.measures != row.measures or last.drift != row.drift
            if (is_news or subject["last_unix_s"] >= minute) and (last is None or last.minute_unix_s < minute):
                changed.append(row)
        return changed

    def _drifted(self, route: Route, drift: Mapping[str, "dict[str, Stability]"]) -> Mapping[Gauge, float]:
        return {
            _gauge("runoff_drift", route, variant, feature=feature, statistic=statistic): value
            for variant, features in drift.items()
            for feature, found in self._features.of((route.endpoint, variant), features).items()
            for statistic, value in (("psi", found.psi), ("psi_threshold", found.threshold))
        }

    def _experiments(self, route: Route) -> Mapping[Gauge, float]:
        """The paired tests as the ledger has them: the same question, so it is answered once for both."""
        if not (route.label.exogenous and route.mirrors):
            return {}
        from gateway.evidence.ledger import Question

        asked = Question(
            endpoint=route.endpoint,
            champion=route.champion,
            exogenous=True,
            keys_in_use=self._settings.auth.data == "keys",
            label_window_s=route.label.window_s,
        )
        found: dict[Gauge, float] = {}
        present = {mirror.name for mirror in route.mirrors}
        for mirror in self._evidence().ledger(asked)["mirrors"]:
            evidence = mirror.get("evidence")
            if evidence is None or mirror["mirror"] not in present:
                continue
            found[_gauge("runoff_experiment_evalue", route, mirror["mirror"])] = evidence["log_e"]
            for verdict in Verdict:
                slot = _gauge("runoff_experiment_verdict", route, mirror["mirror"], verdict=verdict.value)
                found[slot] = float(evidence["verdict"] == verdict.value)
        return found


def _answered(state: Path) -> dict[str, int]:
    """Up to which sequence the shadow process has answered for each mirror writer (`gateway/shadow/progress.py`)."""
    try:
        return msgspec.json.decode((state / "shadow" / "offsets.json").read_bytes(), type=dict[str, int])
    except (OSError, msgspec.MsgspecError):
        return {}


def _quality(route: Route, subjects: list[Any]) -> Mapping[Gauge, float]:
    return {
        _gauge("runoff_quality", route, subject["name"], role=subject["role"], metric=measure): value
        for subject in subjects
        for measure, value in _measures(subject).items()
    }


def _who(row: QualityRow) -> tuple[str, ...]:
    return row.endpoint, row.role, row.variant, row.model, row.version


def _measures(subject: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(subject[name]) for name in MEASURES if subject.get(name) is not None}


def _gauge(name: str, route: Route, variant: str, **labels: str) -> Gauge:
    return name, (("endpoint", route.endpoint), ("variant", variant), *labels.items())


class Drifted:
    """Which inputs of a variant are on the scrape: all of few; of many those that lie furthest off at first, and further ones once they
    are above their threshold. A series takes its place for good, so what is shown once stays. All of them are in `metrics`.
    """

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], set[str]] = {}

    def of(self, who: tuple[str, str], found: "Mapping[str, Stability]") -> "dict[str, Stability]":
        """Of what was `found`, by input, what is to be shown. `who`: endpoint and variant."""
        shown = self._shown.setdefault(who, set())
        for name, one in sorted(found.items(), key=lambda item: item[1].psi / item[1].threshold, reverse=True):
            if len(shown) < (_DRIFT_SHOWN_MAX if one.psi > one.threshold else _DRIFT_SHOWN):
                shown.add(name)
        return {name: one for name, one in found.items() if name in shown}


class Watermark:
    """The sequence up to which labels are counted, in a file: counters outlive a process, so must what they have counted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.sequence = msgspec.json.decode(path.read_bytes(), type=int)
        except (OSError, msgspec.MsgspecError):
            self.sequence = 0

    def advance(self, sequence: int) -> None:
        """Raises OSError."""
        replace_file(self._path, msgspec.json.encode(sequence), durable=True)
        self.sequence = sequence
