"""Changes of versions, weights and rules under load: `python -m loadtests.swaps`. Temporary files only; about four minutes.

Pairs of blocks at one arrival rate: a quiet one, and one with a change after the other, each written and waited for over the admin API.
Every answer is held against the revisions: its model must stand in the revision that it names, and that must have been live when the
request was sent. With its full settings it writes `loadtests/results/swaps.md`.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np

from loadtests.arrivals import Arrivals, p99_ms
from loadtests.machine import machine
from tests.kit import files
from tests.kit.gateway import Gateway, infer_body, route

RESULTS = Path(__file__).parent / "results" / "swaps.md"
ENDPOINT = "swaps"
KINDS = ("version", "weights", "version", "rules")
"""What changes, in turn. A version brings a model that is not loaded any more: of those before the live one only one is kept."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Written at `at`, answered as live at `live`; times are monotonic. `models`: who may answer under it."""

    kind: str
    revision: int
    at: float
    live: float
    models: frozenset[str]


@dataclass(kw_only=True)
class Seen:
    """What was measured. Blocks are (since, until) in pairs: quiet, and with changes."""

    changes: list[Change] = field(default_factory=list)
    blocks: list[tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=list)
    answers: np.ndarray | None = None


def run(folder: Path, *, pairs: int, changes: int, pause_s: float, quiet_s: float, rate: float, workers: int) -> Seen:
    """`changes` in each of `pairs` blocks, each `pause_s` after the one before it is live."""
    seen = Seen()
    models = [files.binary(folder / f"model-{n}.onnx", 1, 1, 1, 1, bias=float(n)) for n in range(4)]
    with Gateway(folder / "gateway", workers=workers) as gateway, httpx.Client(timeout=120) as admin:
        for model in models:  # each is staged and measured once, before anything counts
            gateway.apply(document(model, models[3], 0))
        body = json.dumps(infer_body([[1.0, 2.0, 3.0, 4.0]])).encode()
        with Arrivals(gateway.rest, ENDPOINT, rate, body) as load:
            os.nice(10)  # whoever changes routes sits at another machine
            seen.changes.append(change(gateway, admin, models, 0))
            for _ in range(pairs):
                began = time.monotonic()
                time.sleep(quiet_s)
                between = time.monotonic()
                for _ in range(changes):
                    seen.changes.append(change(gateway, admin, models, len(seen.changes)))
                    time.sleep(pause_s)
                seen.blocks.append(((began, between), (between, time.monotonic())))
        seen.answers = load.answers()
    return seen


def document(champion: str, challenger: str, number: int) -> dict[str, object]:
    """A route whose weights and rules depend on `number`."""
    weight = 10 + number % 7
    rules = [{"name": f"r{number}", "when": {"header": {"x-cohort": f"c{number}"}}, "variant": "challenger"}]
    arms = ("champion", champion, 100 - weight), ("challenger", challenger, weight)
    return route(ENDPOINT, *arms, **({"rules": rules} if number % 2 else {}))


def change(gateway: Gateway, admin: httpx.Client, models: list[str], number: int) -> Change:
    """Writes the change of this number and waits until it is live."""
    kind, path = KINDS[number % len(KINDS)], f"{gateway.admin}/admin/v1/routes/{ENDPOINT}"
    tag = admin.get(path).headers["etag"]
    asked = {"params": {"reason": f"change {number}", "wait": "60"}, "headers": {"If-Match": tag}}
    at = time.monotonic()
    if kind == "weights":
        reply = admin.patch(f"{path}/weights", json={"challenger": 20 + number % 13}, **asked)
    else:
        versions = sum(KINDS[n % len(KINDS)] == "version" for n in range(number + 1))
        reply = admin.put(path, json=document(models[versions % 3], models[3], number), **asked)
    live = time.monotonic()
    reply.raise_for_status()
    served = admin.get(path).json()["status"]["versions"]
    revision = reply.json()["revision"]
    return Change(kind=kind, revision=revision, at=at, live=live, models=frozenset(served.values()))


def report(seen: Seen, rate: float, workers: int) -> str:
    """The figures as Markdown."""
    answers = seen.answers
    assert answers is not None
    answers = answers[answers["due"] >= seen.changes[0].live]
    first, changes = seen.changes[0], seen.changes[1:]
    by_revision = {one.revision: {model.lower() for model in one.models} for one in seen.changes}
    failed = int((answers["status"] != 200).sum())
    good = answers[answers["status"] == 200]
    foreign = sum(str(row["model"]) not in by_revision.get(int(row["revision"]), set()) for row in good)
    early = late = 0
    visible: dict[str, list[float]] = {kind: [] for kind in dict.fromkeys(KINDS)}
    for before, one in zip([first, *changes], changes, strict=False):
        old = good[(good["revision"] < one.revision) & (good["due"] >= before.live)]
        late += int((old["due"] > one.live).sum())
        early += int(((good["revision"] >= one.revision) & (good["done"] < one.at)).sum())
        sent_after = old["due"][old["due"] > one.at]
        visible[one.kind].append(1000 * (float(sent_after.max()) - one.at) if len(sent_after) else 0.0)
    ratios = [p99_ms(answers, *changed) / p99_ms(answers, *quiet) for quiet, changed in seen.blocks]
    quiet, changed = (statistics.median(p99_ms(answers, *block[place]) for block in seen.blocks) for place in (0, 1))
    late_quiet, late_changed = (
        statistics.median(p99_ms(answers, *block[place], what="sent") for block in seen.blocks) for place in (0, 1)
    )
    lines = [
        f"{len(changes)} changes in {len(seen.blocks)} blocks, {rate:g} arrivals a second, {workers} workers, {len(answers)} requests.",
        "",
        "| | |",
        "|---|---|",
        f"| failed requests | {failed} |",
        f"| answers by a model that their revision does not name | {foreign} |",
        f"| answers by an older revision, sent after a newer one was confirmed | {late} |",
        f"| answers by a revision before it was written | {early} |",
        f"| p99, quiet and with changes (medians of blocks) | {quiet:.2f} ms, {changed:.2f} ms |",
        f"| of it, how late the generator itself sent (p99) | {late_quiet:.2f} ms, {late_changed:.2f} ms |",
        f"| p99 with changes ÷ quiet, paired: median (all) | {statistics.median(ratios):.2f} ({', '.join(f'{one:.2f}' for one in ratios)}) |",
        "",
        "From the write to the last request that an older revision answered, in ms (a version is loaded and warmed in that time):",
        "",
        "| change | count | median | 95% | longest | confirmed to the writer, median |",
        "|---|---|---|---|---|---|",
    ]
    for kind, took in visible.items():
        confirmed = statistics.median(1000 * (one.live - one.at) for one in changes if one.kind == kind)
        lines.append(
            f"| {kind} | {len(took)} | {statistics.median(took):.0f} | {np.percentile(took, 95):.0f} | {max(took):.0f} | {confirmed:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--changes", type=int, default=20, help="in each pair")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds after each change")
    parser.add_argument("--quiet", type=float, default=8.0, help="seconds of a quiet block")
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swaps-") as folder:
        seen = run(
            Path(folder),
            pairs=asked.pairs,
            changes=asked.changes,
            pause_s=asked.pause,
            quiet_s=asked.quiet,
            rate=asked.rate,
            workers=asked.workers,
        )
    told = report(seen, asked.rate, asked.workers)
    print(told)
    if vars(asked) == vars(parser.parse_args([])):
        head = f"# Changes under load\n\n{datetime.now(UTC):%Y-%m-%d}, {machine()}, CPython {platform.python_version()}; `python -m loadtests.swaps`"
        RESULTS.write_text(f"{head}\n\n{told}\n")


if __name__ == "__main__":
    main()
