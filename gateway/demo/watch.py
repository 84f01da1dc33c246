"""What the live view shows, read while July runs: from the replay's reports, /metrics and the admin API, as anybody could."""

import math
import re
import time
from typing import Any, Final

import httpx
import msgspec

from gateway.demo.models import CANDIDATE, MODEL
from gateway.demo.replay import Progress
from runoff import Runoff, RunoffError

_EVIDENCE_EVERY_S: Final = 2.0
_METRICS_TIMEOUT_S: Final = 2.0


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the endpoint's quality. None where no label has come yet."""

    name: str
    role: str
    n: int = 0
    labelled: int = 0
    accuracy: float | None = None
    log_loss: float | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's own paired test of candidate against champion. `p_better` is of "the candidate is not better"."""

    units: int = 0
    wins: int = 0
    losses: int = 0
    p_better: float = 1.0
    verdict: str = "inconclusive"

    @property
    def odds(self) -> float:
        """Against chance, that the candidate is better."""
        return 1 / self.p_better if self.p_better > 0 else math.inf


class Sight(msgspec.Struct, kw_only=True):
    """All that is known now. `rates` by variant and `asked_per_s` are requests a second since the last report."""

    progress: Progress = msgspec.field(default_factory=Progress)
    asked_per_s: float = 0.0
    revision: int = 0
    reason: str = ""
    shares: dict[str, float] = {}
    p99_gateway_ms: float | None = None
    recorded: int = 0
    mirrored: int = 0
    mirror_dropped: int = 0
    agreement: float | None = None
    quality: list[Quality] = []
    evidence: Evidence = Evidence()


class Watcher:
    """Follows one replay. Whatever does not answer in time keeps its last value: watching must not slow what is watched."""

    def __init__(self, client: Runoff, metrics_url: str) -> None:
        self._client = client
        self._metrics_url = metrics_url
        self._http = httpx.Client(timeout=_METRICS_TIMEOUT_S, trust_env=False)
        self._evidence_at = 0.0
        self._last: tuple[float, int] | None = None
        self.sight = Sight()

    def close(self) -> None:
        self._http.close()

    def see(self, progress: Progress) -> Sight:
        """Takes in a report of the replay, and asks the gateway for its part."""
        now = time.monotonic()
        if self._last is not None and now > self._last[0]:
            self.sight.asked_per_s = (progress.asked - self._last[1]) / (now - self._last[0])
        self._last = (now, progress.asked)
        self.sight.progress = progress
        self._read_metrics()
        if now - self._evidence_at >= _EVIDENCE_EVERY_S:
            self.look()
            self._evidence_at = time.monotonic()
        return self.sight

    def look(self) -> None:
        """Asks the admin API for quality and ledger."""
        try:
            subjects = self._client.quality(MODEL)["subjects"]
            mirrors = self._client.ledger(MODEL)["mirrors"]
        except RunoffError:
            return
        self.sight.quality = [msgspec.convert(subject, Quality) for subject in subjects]
        for mirror in mirrors:
            if mirror["mirror"] == CANDIDATE:
                self.sight.agreement = mirror.get("agreement")
                if mirror.get("evidence"):
                    self.sight.evidence = msgspec.convert(mirror["evidence"], Evidence)

    def _read_metrics(self) -> None:
        try:
            text = self._http.get(self._metrics_url).text
        except httpx.HTTPError:
            return
        samples = list(_samples(text))
        sight = self.sight
        sight.shares = {labels["variant"]: value for name, labels, value in samples if name == "runoff_route_weight"}
        sight.recorded = _sum(samples, "runoff_records_total", outcome="recorded")
        sight.mirrored = _sum(samples, "runoff_mirrored_total", outcome="recorded")
        sight.mirror_dropped = _sum(samples, "runoff_mirrored_total") - sight.mirrored
        sight.revision = max((int(value) for name, _, value in samples if name == "runoff_revision"), default=0)
        sight.p99_gateway_ms = _quantile_ms(samples, 0.99)


def certificates(admin_url: str) -> dict[str, dict[str, Any]]:
    """What was proven of each staged model, by name and version; models that were not converted are left out."""
    with httpx.Client(base_url=admin_url, timeout=30.0, trust_env=False) as http:
        models = http.get("/admin/v1/models").json()["models"]
        names = [f"{model['name']}/{model['version']}" for model in models]
        found = {name: http.get(f"/admin/v1/models/{name}").json().get("certificate") for name in names}
    return {name: certificate for name, certificate in found.items() if certificate}


Sample = tuple[str, dict[str, str], float]
_SAMPLE: Final = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?")
_LABEL: Final = re.compile(r'([a-zA-Z_]\w*)="([^"\\]*)"')


def _samples(text: str) -> list[Sample]:
    """The lines of Prometheus' text format; what is no sample, and labels with quotes in them, are passed over."""
    found = (_SAMPLE.fullmatch(line) for line in text.splitlines())
    return [(line["name"], dict(_LABEL.findall(line["labels"] or "")), float(line["value"])) for line in found if line]


def _sum(samples: list[Sample], name: str, **wanted: str) -> int:
    return int(sum(value for key, labels, value in samples if key == name and wanted.items() <= labels.items()))


def _quantile_ms(samples: list[Sample], share: float) -> float | None:
    """The bound of the histogram's bucket that holds the quantile; None before the first request."""
    buckets: dict[float, float] = {}
    for name, labels, value in samples:
        if name == "runoff_request_duration_seconds_bucket":
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value
    total: Any = max(buckets.values(), default=0.0)
    return next((1e3 * bound for bound in sorted(buckets) if total and buckets[bound] >= share * total), None)
