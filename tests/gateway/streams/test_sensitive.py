import msgspec
import numpy as np
import pytest
from deltalake import DeltaTable

from gateway.streams.arrow import BlockInvalid
from gateway.streams.schema import SENSITIVE, Naming
from gateway.streams.sensitive import tables
from gateway.streams.upkeep import expire
from routing.records import Column, KeyColumn, SensitiveBlock
from routing.traffic import Retention
from tests.kit.spooled import START_UNIX_US, Place, apart, pid, pid_text, predictions, request

HOUR_US = 3_600_000_000


def ids(place):
    return sorted(DeltaTable(f"{place.uri}/sensitive").to_pyarrow_dataset().to_table()["prediction_id"].to_pylist())


def test_each_row_of_input_has_its_attributes_under_its_prediction():
    ages = Column("age", "INT64", (1,), np.array([30], np.int64).tobytes())
    other = SensitiveBlock("spam", [pid(9)], [1], [START_UNIX_US], [ages])
    first, second = tables([apart([1, 2], "fmf", rows=[2, 1]), other], Naming(SENSITIVE))
    assert list(zip(first["prediction_id"].to_pylist(), first["row"].to_pylist(), strict=True)) == [
        (pid_text(1), 0),
        (pid_text(1), 1),
        (pid_text(2), 0),
    ]
    assert first["attribute_sex"].to_pylist() == ["f", "m", "f"]
    assert (second["endpoint"].to_pylist(), second["attribute_age"].to_pylist()) == (["spam"], [30])


@pytest.mark.parametrize(
    "block",
    [
        SensitiveBlock("e", [pid(1)], [1, 1], [1], []),
        SensitiveBlock("e", [pid(1)], [2], [1], [Column("sex", "BYTES", (1,), ["f"])]),
    ],
)
def test_a_block_that_does_not_add_up_is_refused(block):
    with pytest.raises(BlockInvalid):
        tables([block], Naming(SENSITIVE))


def test_they_go_with_the_predictions_when_a_unit_is_forgotten_or_time_is_up(tmp_path):
    place = Place(tmp_path)
    rows = [request(n, unit="gone" if n == 1 else "kept") for n in (1, 2)]
    place.store(predictions(rows, [0.5, 0.5]), apart([1, 2], "fm"), apart([3], "f", endpoint="spam"))
    lake = place.lake()
    assert lake.forget(["gone"])["sensitive"] == 1
    assert ids(place) == [pid_text(2), pid_text(3)]
    deleted = expire(lake._tables, lake._letters, {"phishing": Retention(3600)}, START_UNIX_US + 3 * HOUR_US)
    assert (deleted["sensitive"], deleted["predictions"]) == (1, 1)
    assert ids(place) == [pid_text(3)]


def test_attributes_that_were_looked_up_stand_beside_those_that_were_sent():
    block = msgspec.structs.replace(
        apart([1, 2], "fm"),
        looked_up=[KeyColumn("group", "BYTES", ["east", None]), KeyColumn("age", "INT64", [None, 40])],
    )
    (rows,) = tables([block], Naming(SENSITIVE))
    assert rows.select(["attribute_sex", "attribute_group", "attribute_age"]).to_pylist() == [
        {"attribute_sex": "f", "attribute_group": "east", "attribute_age": None},
        {"attribute_sex": "m", "attribute_group": None, "attribute_age": 40},
    ]
    short = msgspec.structs.replace(block, looked_up=[KeyColumn("group", "BYTES", ["east"])])
    with pytest.raises(BlockInvalid, match="group"):
        tables([short], Naming(SENSITIVE))
