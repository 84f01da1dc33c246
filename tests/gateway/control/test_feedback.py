import asyncio
import re
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from deltalake import DeltaTable

import gateway
from gateway.control.feedback import Drifted, Feedback, Watermark
from gateway.evidence.drift import Stability
from gateway.evidence.evidence import Evidence
from gateway.settings import Settings
from gateway.spool.segment import SegmentWriter, segment_path
from gateway.state.compiled import CompiledRoute
from gateway.state.revision import Draft
from gateway.state.store import StateStore
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.retained import read_pages
from models.signature import Signature
from routing.records import Column
from tests.kit.spooled import BINARY, START_UNIX_US, Place, label, labels, predictions, request, shadows

NOW = START_UNIX_US / 1e6 + 3600


class World:
    """A state directory with a route, a lake, and the loop that looks at both."""

    def __init__(self, folder):
        self.settings = Settings(state_dir=str(folder))
        self.place = Place(folder)
        self.page = CounterPage(folder / "run", "control-1")
        evidence = Evidence(self.place.uri, self.answers)
        self.unreadable = set()
        self.now = NOW
        self.recorded = []
        self.feedback = Feedback(
            self.settings, lambda: evidence, self.page, self.recorded.append, wall=lambda: self.now
        )

    def route(self, endpoint="phishing", **more):
        arms = [{"name": "champion", "model": "models:/phishing/1", "weight": 1}]
        mirrors = [{"name": "candidate", "model": "models:/phishing/2"}]
        document = {"endpoint": endpoint, "variants": arms, "mirrors": mirrors, **more}
        store = StateStore(self.settings.state_file)
        draft = Draft(endpoint=endpoint, action="put", author="ann", reason="test", document=document)
        written = store.write(draft, check=False)
        nothing = CompiledRoute(
            endpoint=endpoint,
            revision=written.number,
            document=document,
            models={},
            split=b"",
            split_sha256="",
            signature=Signature(inputs=(), outputs=()),
        )
        assert store.activate(written.number, nothing)
        store.close()

    def answers(self, digest):
        if digest in self.unreadable:
            raise RuntimeError(f"no answer form of {digest}")
        return BINARY

    def look(self):
        self.feedback.show(self.feedback.look())

    def value(self, name, **labels):
        found = read_pages(self.settings.state_path / "run").series
        values = [one for (metric, of), one in found.items() if metric == name and labels.items() <= dict(of).items()]
        return values[0][0] if values else None


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.page.close()


def test_quality_of_each_arm_is_on_the_scrape(world):
    world.route()
    world.place.store(
        predictions([request(n) for n in range(4)], [0.9] * 4),
        shadows([0, 1, 2, 3], ["1"] * 4, ["0"] * 4),
        labels(*[label(n, 1) for n in range(2)]),
    )
    world.look()
    live = {"endpoint": "phishing", "variant": "champion", "role": "live"}
    assert world.value("runoff_quality", **live, metric="accuracy") == 1.0
    assert world.value("runoff_quality", **live, metric="coverage") == 0.5
    assert world.value("runoff_quality", variant="candidate", role="mirror", metric="accuracy") == 0.0
    assert world.value("runoff_quality", metric="auc") is None


def test_the_paired_test_is_on_the_scrape_where_labels_are_exogenous_and_leaves_it_with_the_mirror(world):
    world.place.store(
        predictions([request(n) for n in range(60)], [0.9] * 60),
        shadows(list(range(60)), ["1"] * 60, ["0"] * 60),
        labels(*[label(n, 0) for n in range(60)]),
    )
    world.route()
    world.look()
    assert world.value("runoff_experiment_evalue") is None
    world.route(label={"exogenous": True})
    world.look()
    assert world.value("runoff_experiment_evalue", variant="candidate") > 3
    assert world.value("runoff_experiment_verdict", verdict="better") == 1.0
    assert world.value("runoff_experiment_verdict", verdict="inconclusive") == 0.0
    world.route(label={"exogenous": True}, mirrors=[])
    world.look()
    assert world.value("runoff_experiment_evalue") is None


def test_labels_are_counted_once_they_are_settled_and_once_only_over_restarts(world):
    world.place.store(predictions([request(0)], [0.9]), labels(label(0, 1), label(5, 1)))
    world.now = NOW - 3600 + 60
    world.look()
    assert world.value("runoff_labels_total", outcome="joined") == 0
    world.now = NOW
    world.look()
    assert world.value("runoff_labels_total", outcome="joined") == 1
    assert world.value("runoff_labels_total", outcome="orphaned") == 1
    world.look()
    assert world.value("runoff_labels_total", outcome="orphaned") == 1
    assert Watermark(world.settings.state_path / "labels.json").sequence > 0
    assert (world.settings.state_path / "labels.json").stat().st_mode & 0o777 == 0o600


def test_labels_of_a_lake_that_was_restored_are_counted_from_its_end_on(world, tmp_path, caplog):
    world.place.store(predictions([request(0), request(1)], [0.9] * 2), labels(label(0, 1)))
    shutil.copytree(world.place.uri, tmp_path / "backup")
    world.place.store(*[labels(label(5, 1)) for _ in range(5)], writer="worker-2")
    world.look()
    joined = world.value("runoff_labels_total", outcome="joined")
    shutil.rmtree(world.place.uri)
    shutil.copytree(tmp_path / "backup", world.place.uri)
    evidence = Evidence(world.place.uri, world.answers)
    world.feedback = Feedback(world.settings, lambda: evidence, world.page, wall=lambda: world.now)
    world.look()
    assert "labels_ahead_of_lake" in caplog.text
    world.place.store(labels(label(1, 1)), writer="worker-3")
    world.look()
    assert world.value("runoff_labels_total", outcome="joined") == joined + 1


def test_labels_that_are_about_no_single_row_are_on_the_scrape_under_their_own_names(world):
    world.place.store(
        predictions([request(0, rows=2), request(1)], [0.9] * 3), labels(label(0, 1), label(0, 1, row=2), label(1, 1))
    )
    world.look()
    found = {one: world.value("runoff_labels_total", outcome=one) for one in ("joined", "row_missing", "row_unknown")}
    assert found == {"joined": 1, "row_missing": 1, "row_unknown": 1}


def test_an_endpoint_whose_figures_cannot_be_made_leaves_the_scrape_and_holds_up_no_other(world):
    for endpoint, digest in (("broken", "d2"), ("phishing", "d1"), ("zebra", "d1")):
        world.route(endpoint)
        block = predictions([request(n) for n in range(4)], [0.9] * 4, endpoint=endpoint)
        world.place.store(msgspec.structs.replace(block, digest=digest), writer=f"of-{endpoint}")
    world.place.store(labels(label(0, 1)))
    world.look()
    shown = lambda endpoint: world.value("runoff_quality", endpoint=endpoint, metric="coverage")
    assert [shown(one) for one in ("broken", "phishing", "zebra")] == [0.25] * 3
    world.unreadable.add("d2")
    world.place.store(labels(label(1, 1)), writer="worker-2")
    world.now += 61
    world.look()
    assert [shown(one) for one in ("broken", "phishing", "zebra")] == [None, 0.5, 0.5]
    assert {row.endpoint for row in world.recorded[-1].rows} == {"phishing", "zebra"}
    assert world.value("runoff_labels_total", outcome="joined") == 2


def test_a_minute_that_the_spool_did_not_take_is_told_again(world):
    world.route()
    world.place.store(predictions([request(0)], [0.9]), labels(label(0, 1)))

    def full(_):
        raise OSError("no space")

    world.feedback._record = full
    with pytest.raises(OSError, match="no space"):
        world.look()
    assert world.value("runoff_labels_total", outcome="joined") == 1
    world.feedback._record = world.recorded.append
    world.look()
    assert [row.measures["accuracy"] for row in world.recorded[0].rows] == [1.0]
    assert world.value("runoff_labels_total", outcome="joined") == 1


def test_of_many_inputs_those_that_drift_are_on_the_scrape_and_what_is_shown_once_stays():
    calm = {f"x{place}": Stability(psi=place / 2000, threshold=0.1) for place in range(200)}
    chosen = Drifted()
    assert set(chosen.of(("e", "v"), calm)) == {f"x{place}" for place in range(180, 200)}
    moved = {**calm, "x0": Stability(psi=0.5, threshold=0.1)}
    assert set(chosen.of(("e", "v"), moved)) == {"x0", *(f"x{place}" for place in range(180, 200))}
    assert "x0" in chosen.of(("e", "v"), calm)
    all_moved = {name: Stability(psi=1.0, threshold=0.1) for name in calm}
    assert len(chosen.of(("e", "v"), all_moved)) == 60
    assert len(chosen.of(("e", "v"), all_moved)) == 60
    few = {name: calm[name] for name in ("x0", "x1")}
    assert chosen.of(("other", "v"), few) == few


async def test_mirrored_rows_that_nobody_read_go_within_a_minute_and_are_counted(world):
    folder = world.settings.state_path / "mirror" / "worker-1"
    writer = SegmentWriter(folder, bytes_max=1 << 20)
    writer.append([b"x" * 100])
    written_at = segment_path(folder, 1).stat().st_mtime
    world.now = written_at + 50
    assert world.feedback.sweep() == (0, 0)
    world.now = written_at + 56
    task = asyncio.create_task(world.feedback.run())
    await until(lambda: world.value("runoff_mirror_expired_bytes_total"), task)
    await ended(task)
    assert not segment_path(folder, 1).exists()
    writer.close()


async def test_a_look_that_fails_is_no_end(world):
    """A lake that cannot be read is told in the log; the next look tries again."""
    world.route()
    world.place.store(predictions([request(0)], [0.9]))
    log = Path(world.place.uri, "predictions", "_delta_log")
    away = log.rename(log.with_name("away"))  # noqa: ASYNC240  # nothing else runs yet
    looks = iter(range(1000))

    def look():
        next(looks)
        return world.feedback.look()

    task = asyncio.create_task(world.feedback._every(0.01, look, world.feedback.show))
    await until(lambda: next(looks) > 3, task)
    away.rename(log)
    await until(lambda: world.value("runoff_quality") is not None, task)
    await ended(task)


async def until(claim, task):
    async with asyncio.timeout(30):
        while not claim():  # what is waited for is a page that another thread may write
            await asyncio.sleep(0.01)
            assert not task.done()


async def ended(task):
    task.cancel()
    await asyncio.wait([task])


def test_measures_are_stored_when_they_changed_and_not_oftener_than_each_minute(world):
    world.route()
    world.place.store(
        predictions([request(n) for n in range(4)], [0.9] * 4),
        shadows([0, 1, 2, 3], ["1"] * 4, ["1", "1", "1", "0"]),
        labels(label(0, 1)),
    )
    world.look()
    world.look()
    (first,) = world.recorded
    by_role = {row.role: row for row in first.rows}
    assert (by_role["live"].variant, by_role["live"].version, by_role["live"].labelled) == ("champion", "1", 1)
    assert by_role["live"].measures["accuracy"] == 1.0
    assert "agreement" not in by_role["live"].measures
    assert by_role["mirror"].measures["agreement"] == 0.75
    assert by_role["live"].minute_unix_s == NOW // 60 * 60 - 60, "the last minute that is over"
    world.place.store(labels(label(1, 0)), writer="worker-2")
    world.look()
    assert len(world.recorded) == 1, "within the minute"
    world.now += 61
    world.look()
    assert {row.measures["accuracy"] for row in world.recorded[1].rows} == {0.5}
    world.now += 61
    world.look()
    assert len(world.recorded) == 2, "nothing changed"


def test_measures_reach_the_lake_once(world):
    world.route()
    world.place.store(predictions([request(0)], [0.9]), labels(label(0, 1)))
    world.look()
    world.place.store(*world.recorded, writer="control-1")
    found = DeltaTable(f"{world.place.uri}/metrics").to_pyarrow_dataset().to_table().to_pylist()
    ((row,),) = [found]
    assert (row["role"], row["variant"], row["labelled"], row["accuracy"]) == ("live", "champion", 1, 1.0)
    assert (row["minute"].timestamp(), row["requests"], row["mae"]) == (NOW // 60 * 60 - 60, None, None)


def test_records_are_never_deleted_by_their_age_but_those_for_mirrors():
    """`expire` takes unread rows away: whoever else calls it loses records."""
    sources = Path(gateway.__file__).parent.rglob("*.py")
    imported = re.compile(r"^from gateway\.spool\.reader import .*\bexpire\b", re.MULTILINE)
    callers = {path.name for path in sources if imported.search(path.read_text())}
    assert callers == {"feedback.py"}


def test_drift_of_each_variant_is_on_the_scrape_and_among_what_is_stored(world):
    def asked(first, mean):
        x = Column("x", "FP32", (1,), np.random.default_rng(1).normal(mean, 1, 600).astype("<f4").tobytes())
        rows = predictions([request(n) for n in range(first, first + 600)], [0.9] * 600, inputs=[x])
        world.place.store(rows, writer=f"worker-{first}")

    world.route()
    asked(0, 0.0)
    asked(2 * 86_400_000, 2.0)
    world.now = NOW + 2 * 86_400
    world.look()
    live = {"endpoint": "phishing", "variant": "champion", "feature": "x"}
    assert world.value("runoff_drift", **live, statistic="psi") > 1
    assert world.value("runoff_drift", **live, statistic="psi_threshold") == pytest.approx(0.1, abs=0.05)
    (row,) = world.recorded[-1].rows
    assert row.drift["x"] == world.value("runoff_drift", **live, statistic="psi")


def test_a_minute_is_told_once_also_where_it_brought_nothing_new_to_who_answered_in_it(world):
    world.route()
    world.place.store(predictions([request(0)], [0.9]))
    world.now = START_UNIX_US / 1e6 + 70
    for _ in range(2):
        world.look()
        world.now += 20
    minutes = [row.minute_unix_s for block in world.recorded for row in block.rows]
    assert len(minutes) == len(set(minutes))
