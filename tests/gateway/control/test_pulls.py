import asyncio
import json
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from gateway.control.pulls import Pulled, Pulls
from gateway.evidence.evidence import Evidence
from gateway.evidence.quality import Question
from gateway.privacy import keyed_hashes
from gateway.spool.segment import SegmentWriter
from gateway.streams.truth_tables import TruthTable, TruthUnreadable
from routing.validate import validate
from tests.kit.gateway import eventually
from tests.kit.plane import UNIT_KEY
from tests.kit.spooled import BINARY, START_UNIX_US, Place, pid_text, predictions, request

FILE = """
[[labels]]
endpoint = "phishing"
table = {table!r}
request_id = "case"
label = "y"
every_s = 1
"""


class World:
    """A lake with predictions, a table of cases beside it, and pulls whose labels go to the lake when it is stored."""

    def __init__(self, folder):
        self.place = Place(folder)
        self.evidence = Evidence(self.place.uri, lambda _: BINARY)
        self.cases = str(folder / "cases")
        self.counted = {}
        self.routes = {}
        self.now = START_UNIX_US / 1e6 + 60
        self.file = folder / "labels.toml"
        self.place.store(predictions([request(n, request_id=f"r{n}") for n in range(6)], [0.9] * 6))

    def pulls(self, name="control-1"):
        make = lambda: SegmentWriter(self.place.spool / name, bytes_max=1 << 20, durable=True)
        told = {"routes": lambda: self.routes, "unit_key": UNIT_KEY, "wall": lambda: self.now}
        return Pulls(self.file, lambda: self.evidence, make, self.count, **told)

    def count(self, outcome, labels):
        self.counted[outcome] = self.counted.get(outcome, 0) + labels

    def add(self, **columns):
        write_deltalake(self.cases, pa.table(columns), mode="append")

    def truth(self):
        return TruthTable(endpoint="phishing", table=self.cases, request_id="case", label="y")

    def to_lake(self):
        lake = self.place.lake()
        lake.read()
        assert lake.commit(), lake.failure
        lake.close()

    def labelled(self):
        return self.evidence.quality(Question(endpoint="phishing"))["subjects"][0]["labelled"]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_look_takes_what_is_new_and_no_other(world):
    pulls = world.pulls()
    world.add(case=["r0", "r1"], y=[1, 0])
    assert pulls.look(world.truth()).new == 2
    world.to_lake()
    assert world.labelled() == 2
    world.add(case=["r2", "r0"], y=[1, 0])  # a new one, and a correction of an old one
    told = pulls.look(world.truth())
    assert (told.rows, told.new) == (4, 2)
    world.to_lake()
    assert pulls.look(world.truth()).new == 0
    assert world.labelled() == 3
    DeltaTable(world.cases).optimize.compact()
    assert pulls.look(world.truth()).new == 0


def test_a_successor_goes_on_where_the_lake_is(world):
    world.add(case=["r0", "r1"], y=[1, 0])
    first = world.pulls()
    first.look(world.truth())
    world.to_lake()
    world.add(case=["r2"], y=[1])
    assert world.pulls("control-2").look(world.truth()).new == 1


def test_a_label_on_its_way_to_the_lake_is_not_sent_again(world):
    world.add(case=["r0"], y=[1])
    pulls = world.pulls()
    assert [pulls.look(world.truth()).new for _ in range(3)] == [1, 0, 0]
    world.to_lake()
    assert world.labelled() == 1


def test_rows_that_are_no_labels_are_told_and_the_others_taken(world):
    write_deltalake(world.cases, pa.table({"p": [pid_text(0), "nonsense"], "y": [1, 1]}))
    truth = TruthTable(endpoint="phishing", table=world.cases, prediction_id="p", label="y")
    told = world.pulls().look(truth)
    assert (told.rows, told.new, told.rejected) == (2, 1, 1)
    assert "UUID" in told.reason


def test_attributes_are_masked_and_kept_apart_as_the_route_says(world):
    """Also of a label by prediction id, which does not say whose it is."""
    variants = [{"name": "champion", "model": "models:/m/1", "weight": 1}]
    rules = {"record": {"mask": {"who": "hmac", "note": "drop"}}, "label": {"sensitive": ["origin"]}}
    world.routes = {"phishing": validate({"endpoint": "phishing", "variants": variants, **rules})}
    beside = {"who": ["ann", None], "note": ["private", None], "origin": ["east", "west"], "source": ["audit", None]}
    world.add(case=["r0", "gone"], id=[pid_text(0), pid_text(1)], y=[1, 0], **beside)
    for key, column in (("request_id", "case"), ("prediction_id", "id")):
        truth = TruthTable(endpoint="phishing", table=world.cases, label="y", attributes=tuple(beside), **{key: column})
        world.pulls(f"control-{key}").look(truth)
        assert "private" not in "".join(
            path.read_bytes().decode("latin-1") for path in world.place.spool.rglob("*.seg")
        )
        world.to_lake()
    rows = DeltaTable(f"{world.place.uri}/labels").to_pyarrow_table(columns=["attributes", "request_id"]).to_pylist()
    hashed = keyed_hashes(UNIT_KEY, ["ann"])[0]
    assert [json.loads(row["attributes"] or "null") for row in rows if row["request_id"]] == [
        {"who": hashed, "source": "audit"}
    ]
    apart = DeltaTable(f"{world.place.uri}/sensitive_labels").to_pyarrow_table(columns=["prediction_id", "attributes"])
    assert sorted((row["prediction_id"] or "", row["attributes"]) for row in apart.to_pylist()) == [
        ("", '{"origin":"east"}'),
        (pid_text(0), '{"origin":"east"}'),
        (pid_text(1), '{"origin":"west"}'),
    ]


def test_it_follows_the_file_and_goes_on_after_trouble(world):
    """First no file, then one that names a table that comes later."""
    pulls = world.pulls()

    async def run():
        task = asyncio.create_task(pulls.run())
        await asyncio.to_thread(eventually, lambda: world.counted.get("accepted") == 1, 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    world.file.write_text(FILE.format(table=world.cases))
    with pytest.raises(TruthUnreadable):
        pulls.look(world.truth())
    loop = asyncio.new_event_loop()
    try:
        loop.call_later(1.5, lambda: world.add(case=["r3"], y=[1]))
        loop.run_until_complete(run())
    finally:
        loop.close()
    world.to_lake()
    assert world.labelled() == 1


def test_a_label_whose_prediction_is_gone_stays_in_its_table(world):
    world.add(case=["r0", "gone"], y=[1, 0])
    pulls = world.pulls()
    assert [pulls.look(world.truth()).new for _ in range(2)] == [1, 0]
    world.to_lake()
    assert world.pulls("control-2").look(world.truth()).new == 0


def test_a_label_that_went_before_its_prediction_does_not_come_back(world):
    variants = [{"name": "champion", "model": "models:/m/1", "weight": 1}]
    kept = {"predictions": "90d", "labels": "30d"}
    world.routes = {"phishing": validate({"endpoint": "phishing", "variants": variants, "record": {"retention": kept}})}
    world.add(case=["r0"], y=[1])
    world.now += 40 * 86_400
    assert world.pulls().look(world.truth()).new == 0
    world.now -= 20 * 86_400
    assert world.pulls("control-2").look(world.truth()).new == 1


def test_a_unit_that_was_forgotten_stays_so_whatever_the_table_says(world):
    world.place.store(predictions([request(50, request_id="r50", unit="u50")], [0.9]), writer="worker-2")
    world.add(case=["r50"], y=[1])
    pulls = world.pulls()
    assert pulls.look(world.truth()).new == 1
    world.to_lake()
    lake = world.place.lake()
    assert lake.forget(["u50"])["labels"] == 1
    lake.close()
    assert [pulls.look(world.truth()).new for _ in range(2)] == [0, 0]


def test_a_table_that_goes_back_to_what_it_said_before_is_believed(world):
    def says(*values):
        table = pa.table({"case": ["r0", "r1"][: len(values)], "y": list(values)})
        write_deltalake(world.cases, table, mode="overwrite")
        pulled = pulls.look(world.truth()).new
        world.to_lake()
        return pulled

    def accuracy():
        return world.evidence.quality(Question(endpoint="phishing"))["subjects"][0]["accuracy"]

    pulls = world.pulls()
    assert says(1, 1) == 2
    world.now += 60
    assert says(0, 1) == 1
    assert accuracy() == 0.5
    world.now += 60
    assert says(1, 1) == 1
    assert accuracy() == 1.0
    world.now += 60
    assert says(1, 1) == 0, "once"


def test_a_table_that_says_two_things_of_one_row_goes_not_back_and_forth(world):
    pulls = world.pulls()
    world.add(case=["r0", "r0"], y=[1, 0])
    assert pulls.look(world.truth()).new == 2
    world.to_lake()
    for _ in range(2):
        world.now += 60
        assert pulls.look(world.truth()).new == 0
        world.to_lake()


def test_rows_that_are_no_labels_count_once_however_often_they_are_met(world):
    write_deltalake(world.cases, pa.table({"p": [pid_text(0), "nonsense"], "y": [1, 1]}))
    truth = TruthTable(endpoint="phishing", table=world.cases, prediction_id="p", label="y")
    pulls = world.pulls()
    for _ in range(3):
        pulls._tell(truth, pulls.look(truth))
    assert world.counted == {"accepted": 1, "rejected": 1}
    write_deltalake(world.cases, pa.table({"p": ["worse"], "y": [1]}), mode="append")
    pulls._tell(truth, pulls.look(truth))
    assert world.counted["rejected"] == 2


async def test_whatever_a_look_raises_the_next_one_is_tried(world):
    """A torn file in the lake is a `duckdb.Error`, which is no OSError."""
    world.file.write_text(FILE.format(table=world.cases))
    pulls, looks = world.pulls(), []

    def look(truth):
        looks.append(truth)
        if len(looks) == 1:
            raise RuntimeError("Invalid Input Error: No magic bytes found at end of file")
        return Pulled(new=1)

    pulls.look = look
    task = asyncio.create_task(pulls.run())
    await asyncio.to_thread(eventually, lambda: world.counted.get("accepted") or task.done(), 20)
    assert not task.done()
    await ended(task)


async def test_a_look_that_is_under_way_when_all_ends_keeps_its_writer_until_it_is_done(world):
    world.file.write_text(FILE.format(table=world.cases))
    world.add(case=["r0"], y=[1])
    pulls, began, goes_on, closed = world.pulls(), threading.Event(), threading.Event(), []
    spool = pulls._make

    def slow():
        began.set()
        assert goes_on.wait(30)
        writer = spool()
        close = writer.close
        writer.close = lambda: (closed.append(writer), close())
        return writer

    pulls._make = slow
    task = asyncio.create_task(pulls.run())
    await asyncio.to_thread(began.wait, 20)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done(), "the thread may still write"
    goes_on.set()
    await asyncio.wait([task], timeout=20)
    assert len(closed) == 1
    world.to_lake()
    assert world.labelled() == 1


async def ended(task):
    task.cancel()
    await asyncio.wait([task], timeout=20)
