import asyncio

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from gateway.control.pulls import Pulls
from gateway.evidence.evidence import Evidence
from gateway.evidence.quality import Question
from gateway.spool.segment import SegmentWriter
from gateway.streams.truth_tables import TruthTable, TruthUnreadable
from tests.kit.gateway import eventually
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
        self.file = folder / "labels.toml"
        self.place.store(predictions([request(n, request_id=f"r{n}") for n in range(6)], [0.9] * 6))

    def pulls(self, name="control-1"):
        make = lambda: SegmentWriter(self.place.spool / name, bytes_max=1 << 20, durable=True)
        now = START_UNIX_US / 1e6 + 60
        return Pulls(self.file, lambda: self.evidence, make, self.count, wall=lambda: now)

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
