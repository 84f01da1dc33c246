import msgspec
import pytest

from gateway.streams.arrow import BlockInvalid
from gateway.streams.conversion import _SLICE, Conversion, Held, tables_of
from gateway.streams.lake import TABLES
from gateway.streams.schema import SCHEMAS, Naming
from routing.records import Column, MetricBlock, MirrorBlock, SensitiveBlock, SensitiveLabelBlock
from tests.kit.spooled import BINARY, encode, label, labels, pid, pid_text, predictions, request, shadows


@pytest.fixture
def refused():
    return []


@pytest.fixture
def convert(refused):
    """The rows of these payloads in one table; what is refused is noted by its sequence."""

    def act(table, *payloads):
        conversion = Conversion(table, Naming(SCHEMAS[table]), lambda _: BINARY)
        held = [Held("worker-1", n, payload, 60_000_000) for n, payload in enumerate(payloads)]
        return conversion.rows(held, lambda one, why: refused.append((one.sequence, why)))

    return act


def ids(rows):
    return rows["prediction_id"].to_pylist()


def test_a_frame_names_its_tables_by_its_tag_alone():
    blocks = predictions([request(0)]), shadows([0], ["1"], ["1"]), labels(label(0, 1)), MetricBlock([])
    assert [tables_of(payload) for payload in encode(*blocks)] == [
        ("predictions",),
        ("shadows", "metric_parts"),
        ("labels",),
        ("metric_parts",),
    ]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(["x", 1]),
        msgspec.msgpack.encode({"p": 1}),
        msgspec.msgpack.encode(MirrorBlock("e", 1, (), "m", "1", (), [], [], [])),
    ],
    ids=["empty", "torn", "unknown", "map", "mirror"],
)
def test_what_is_no_block_of_this_spool_is_said(payload):
    with pytest.raises(BlockInvalid):
        tables_of(payload)


def test_rows_keep_the_order_of_their_frames_over_slices(convert, refused):
    count = _SLICE + 3
    rows = convert("predictions", *encode(*(predictions([request(n)], [0.5]) for n in range(count))))
    assert (ids(rows), refused) == ([pid_text(n) for n in range(count)], [])


def test_a_broken_frame_costs_only_itself(convert, refused):
    good = encode(*(predictions([request(n)], [0.5]) for n in range(3)))
    (bad,) = encode(predictions([request(9)], [0.5], inputs_digest=["a", "b"]))
    rows = convert("predictions", good[0], b"\x91", good[1], bad, good[2])
    assert ids(rows) == [pid_text(n) for n in range(3)]
    assert [sequence for sequence, _ in refused] == [1, 3]
    assert refused[1][1] == "BlockInvalid: inputs_digest: one digest a request is wanted"


def test_when_every_frame_is_broken_there_are_no_rows(convert, refused):
    assert convert("labels", b"", b"\xc1") is None
    assert len(refused) == 2


def test_columns_that_only_some_frames_have_are_null_for_the_others(convert):
    rows = convert("predictions", *encode(predictions([request(0)]), predictions([request(1)], [0.9])))
    assert rows["output_label"].to_pylist() == [None, 1]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_table_takes_its_own_blocks_and_leaves_the_others(convert, refused, table):
    mirrored = msgspec.structs.replace(shadows([1], ["1"], ["0"]), dropped={"late": 2})
    blocks = predictions([request(0)], [0.5]), mirrored, labels(label(2, 1)), predictions([])
    apart = SensitiveBlock("phishing", [pid(3)], [1], [60_000_000], [Column("sex", "BYTES", (1,), ["f"])])
    of_label = SensitiveLabelBlock([label(4, None, attributes={"origin": "east"})])
    rows = convert(table, *encode(*blocks, apart, of_label))
    assert (rows.num_rows, refused) == (2 if table == "metric_parts" else 1, [])
    if table == "metric_parts":
        assert (rows["reason"].to_pylist(), set(rows["writer"].to_pylist())) == ([None, "late"], {"worker-1"})
    else:
        numbers = {"predictions": 0, "shadows": 1, "labels": 2, "sensitive": 3, "sensitive_labels": 4}
        assert ids(rows) == [pid_text(numbers[table])]


def test_without_frames_there_are_no_rows(convert):
    assert convert("predictions") is None
