"""What the stored records say, for the admin API: the ledger, quality and single predictions, remembered until the tables change."""

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final

import msgspec

from gateway.evidence import drift as drifts
from gateway.evidence import ledger as ledgers
from gateway.evidence import quality as qualities
from gateway.evidence.paired import PairedTests
from gateway.evidence.prediction import prediction
from gateway.evidence.query import Queries
from gateway.evidence.recorded import recorded_rows
from gateway.evidence.settled import Settled, settle
from gateway.evidence.shape import shape_of_traffic
from gateway.evidence.units import units_assigned
from gateway.evidence.unknown import Unknown, unknown
from models.signature import Answer, Signature
from models.staged import Traffic
from models.tensors import Array

_TABLES: Final = ("predictions", "shadows", "labels", "sensitive")
_REMEMBERED_MAX: Final = 256


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """A look at the newest predictions: since when, and that one in so many is drawn."""

    since_unix_s: float
    one_in: int


class Evidence:
    """Answers from the lake at `uri`; every method blocks and may be called from any thread (`asyncio.to_thread`).

    `answers` tells how a model's prediction is read, by artifact digest (`gateway.streams.answers.StagedAnswers`).
    """

    def __init__(self, uri: str, answers: Callable[[str], Answer | None], *, spill: Path | None = None) -> None:
        """`spill`: a folder for what a question does not hold in memory, None: it holds all."""
        self._queries = Queries(uri, spill=spill)
        self._answers = answers
        self._tests = PairedTests()
        self._remembered: dict[object, tuple[tuple[int, ...], dict[str, Any]]] = {}
        self._lock = Lock()  # one question at a time: two cores are better spent on answering than on answering twice

    def ledger(self, question: ledgers.Question) -> dict[str, Any]:
        """The paired ledger of one endpoint; raises ValueError for a `segment_by` that is no column."""
        return self._remember(question, lambda: ledgers.ledger(self._queries, question, self._tests))

    def quality(self, question: qualities.Question) -> dict[str, Any]:
        """Quality by variant and mirror."""
        return self._remember(question, lambda: qualities.quality(self._queries, question, self._answers))

    def prediction(self, prediction_id: str, windows_s: Mapping[str, float] | None = None) -> dict[str, Any] | None:
        """One prediction, its shadows and labels (which count within `windows_s` of their endpoint; None: for ever); None where the lake has
        nothing of it. Raises ValueError for what is no UUID.
        """
        return prediction(self._queries, prediction_id, windows_s or {})

    def recorded(self, endpoint: str, signature: Signature) -> dict[str, Array]:
        """The newest recorded rows as `signature` takes them; empty where the lake has none whole."""
        return recorded_rows(self._queries, endpoint, signature)

    def units(self, endpoint: str, revision: int, since_unix_s: float, until_unix_s: float) -> dict[str, int]:
        """Units by the variant that the split of a revision gave them."""
        return units_assigned(self._queries, endpoint, revision, since_unix_s, until_unix_s)

    def traffic(self, endpoint: str) -> Traffic | None:
        """How many rows the endpoint's newest requests had; None where the lake has none of them."""
        return shape_of_traffic(self._queries, endpoint)

    def recent(self, endpoint: str, rows_max: int) -> Recent | None:
        """The newest whole days with `rows_max` predictions, or as many drawn from one day that has more; None: there are none."""
        found = self._queries.recent("predictions", endpoint, rows_max)
        if found is None:
            return None
        day, rows = found
        since = dt.datetime.combine(day, dt.time(), dt.UTC).timestamp()
        # By powers of two: what is drawn while a day grows is a part of what was drawn before.
        return Recent(since_unix_s=since, one_in=1 << (-(-rows // rows_max) - 1).bit_length())

    def give_back(self) -> None:
        """Returns the memory of questions past to the system."""
        self._queries.give_back()

    def reference_source(self, endpoint: str) -> str | None:
        """What `Reference.source` says where a table of `runoff ingest` is the reference; None: there is none."""
        found = self._queries.ingested(drifts.table_of(endpoint), 0)
        return None if found is None else drifts.source_of(endpoint, found[0])

    def reference(self, endpoint: str, model: str, version: str, now_unix_s: float) -> drifts.Reference | None:
        """What recent rows are compared with; None while there is not enough of it."""
        with self._lock:
            return drifts.reference(self._queries, endpoint, model, version, now_unix_s)

    def drift(
        self, against: drifts.Reference, endpoint: str, variant: str, version: str, now_unix_s: float
    ) -> dict[str, drifts.Stability]:
        """By feature, how far a variant's newest rows lie from the reference."""
        with self._lock:
            return drifts.drift(self._queries, against, endpoint, variant, version, now_unix_s)

    def settle(self, after: int, before_unix_s: float) -> Settled:
        """How many labels above sequence `after`, received before that moment, found their prediction."""
        with self._lock:
            return settle(self._queries, after, before_unix_s)

    def unknown_labels(self, labels: Any, since_unix_us: int) -> Unknown:
        """The places of those rows of an Arrow table of labels that the lake lacks, of predictions since then. Raises CommitFailed."""
        with self._lock:
            return unknown(self._queries, labels, since_unix_us)

    def _remember(self, question: msgspec.Struct, answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The remembered answer while the tables are the same; the versions are read first, so what is newer is asked again."""
        with self._lock:
            versions = self._queries.versions(_TABLES)
            found = self._remembered.get(question)
            if found is not None and found[0] == versions:
                return found[1]
            told = answer()
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[question] = versions, told
            return told
