import numpy as np
import onnx
import pytest

from gateway.control.replay import MIRROR, NotRecorded, Question, _tensor, replay
from gateway.evidence import ledger
from gateway.evidence.paired import PairedTests
from gateway.evidence.query import Queries
from models.catalog import Catalog
from models.signature import Signature
from models.staged import ModelKey
from models.tensors import NUMPY_OF
from routing.records import Column, SensitiveBlock
from tests.kit.onnx_models import MadeModel, echo, spec
from tests.kit.spooled import START_UNIX_US, Place, label, labels, pid, pid_text, predictions, request
from tests.kit.staged import stage_linear, write


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def model(place, tmp_path):
    """`label = 1` where the two inputs sum to more than 0."""
    staged = stage_linear(tmp_path / "artifacts", name="line", version="9", check_row=True)
    return Catalog(tmp_path / "artifacts").load(staged.digest)


def x(values):
    array = np.asarray(values, "<f4")
    return Column("x", "FP32", (array.shape[1],), array.tobytes())


def block(numbers, values, scores, **more):
    return predictions([request(n) for n in numbers], scores, inputs=[x(values)], **more)


def shown(place, replayed, **more):
    queries = Queries(place.uri, instead={"shadows": replayed.pairs})
    (mirror,) = ledger.ledger(queries, ledger.Question(endpoint="phishing", **more), PairedTests())["mirrors"]
    return mirror


def test_a_recorded_window_gives_the_ledger_that_a_mirror_would_have_given(place, model):
    values = [[1, 1], [-1, -1], [2, -1], [-2, 1]]
    place.store(block(range(4), values, [0.9, 0.1, 0.2, 0.3]), labels(*[label(n, n % 2 == 0) for n in range(4)]))
    told = shown(place, replay(Queries(place.uri), Question(endpoint="phishing"), model), exogenous=True)
    assert (told["mirror"], told["model"], told["version"]) == (MIRROR, "line", "9")
    assert (told["rows"], told["agreement"]) == (4, 0.75)
    assert told["against"] == {"model": "phishing", "version": "1"}
    assert told["worst"][0]["prediction_id"] == pid_text(2)
    assert (told["evidence"]["units"], told["evidence"]["wins"], told["evidence"]["losses"]) == (4, 1, 0)


def test_rows_of_one_request_stay_together_over_portions(place, model, monkeypatch):
    monkeypatch.setattr("gateway.control.replay._BATCH_ROWS", 4)
    requests = [request(n, rows=3) for n in range(7)]
    place.store(predictions(requests, [0.9] * 21, inputs=[x([[1, 1]] * 21)]))
    seen = []
    found = replay(Queries(place.uri), Question(endpoint="phishing"), model, lambda done, due: seen.append((done, due)))
    assert found.pairs.num_rows == 21
    assert sorted(zip(found.pairs["prediction_id"].to_pylist(), found.pairs["row"].to_pylist(), strict=True)) == sorted(
        (pid_text(n), row) for n in range(7) for row in range(3)
    )
    assert seen[-1] == (21, 21)


def test_a_row_that_breaks_the_version_fails_alone_and_is_told(place, model):
    place.store(block(range(3), [[1, 1], [666, 0], [1, 1]], [0.9] * 3))
    told = shown(place, replay(Queries(place.uri), Question(endpoint="phishing"), model))
    assert (told["rows"], told["dropped"]) == (2, {"model_failed": 1})


def test_the_window_the_variant_and_the_bound_say_which_rows(place, model):
    place.store(
        block(range(0, 6000, 1000), [[1, 1]] * 6, [0.9] * 6),
        predictions([request(100, assigned=1)], [0.9], inputs=[x([[1, 1]])]),
    )
    start = START_UNIX_US / 1e6
    count = lambda **more: replay(Queries(place.uri), Question(endpoint="phishing", **more), model).pairs.num_rows
    assert count() == 7
    assert count(since_unix_s=start + 2, until_unix_s=start + 4) == 2
    assert count(variant="challenger") == 1
    newest = replay(Queries(place.uri), Question(endpoint="phishing", rows_max=2), model).pairs
    assert newest["prediction_id"].to_pylist() == [pid_text(4000), pid_text(5000)]


def test_rows_without_their_inputs_are_left_out_and_counted(place, model):
    hashed = predictions([request(5)], [0.5], inputs=[Column("x", "FP32", (2,), None)], inputs_digest=["aa"])
    place.store(block(range(2), [[1, 1]] * 2, [0.9] * 2), hashed)
    found = replay(Queries(place.uri), Question(endpoint="phishing"), model)
    assert (found.predictions, found.without_inputs, found.pairs.num_rows) == (3, 1, 2)


def test_an_input_that_was_never_recorded_is_named(place, model):
    place.store(predictions([request(0)], [0.5], inputs=[Column("y", "FP32", (1,), b"\0\0\0\0")]))
    with pytest.raises(NotRecorded, match="'x'"):
        replay(Queries(place.uri), Question(endpoint="phishing"), model)


def kept_apart(numbers, values):
    """The same input, as the table `sensitive` has it."""
    at = [START_UNIX_US + n * 1000 for n in numbers]
    return SensitiveBlock("phishing", [pid(n) for n in numbers], [1] * len(numbers), at, [x(values)])


def test_inputs_that_are_kept_apart_are_taken_from_there_for_who_asks_for_them(place, model):
    unsaid = Column("x", "FP32", (2,), None)
    place.store(
        block([0], [[1, 1]], [0.9]),  # before the route said so
        predictions([request(n) for n in (1, 2)], [0.9, 0.1], inputs=[unsaid]),
        kept_apart([1, 2], [[-1, -1], [-1, -1]]),
        predictions([request(3)], [0.9], inputs=[unsaid]),  # recorded as a digest only
    )
    asked = Question(endpoint="phishing", with_sensitive=True)
    found = replay(Queries(place.uri), asked, model)
    assert found.pairs["answer_label"].to_pylist() == ["1", "0", "0"]
    assert (found.predictions, found.without_inputs, found.kept_apart) == (4, 1, ())
    found = replay(Queries(place.uri), Question(endpoint="phishing"), model)
    assert (found.pairs.num_rows, found.without_inputs, found.kept_apart) == (1, 3, ("x",))


def test_an_input_that_was_always_kept_apart_is_said_to_be(place, model):
    place.store(predictions([request(0)], [0.9], inputs=[Column("x", "FP32", (2,), None)]), kept_apart([0], [[1, 1]]))
    with pytest.raises(NotRecorded, match="input 'x' is sensitive and kept apart: --with-sensitive"):
        replay(Queries(place.uri), Question(endpoint="phishing"), model)


def test_a_masked_input_is_no_number(place, model):
    place.store(predictions([request(0)], [0.5], inputs=[Column("x", "BYTES", (2,), ["a" * 32, "b" * 32])]))
    with pytest.raises(NotRecorded, match="masked"):
        replay(Queries(place.uri), Question(endpoint="phishing"), model)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("INT64", [1, -(2**60)]),
        ("UINT64", [1, 2**63 + 1]),
        ("UINT8", [1, 255]),
        ("BOOL", [True, False]),
        ("FP16", [0.5, 2.0]),
        ("FP64", [0.1, float("nan")]),
    ],
)
def test_values_come_back_as_the_model_was_given_them(place, datatype, values):
    """Looks inside: what a model was given is nowhere told, and a score would round it."""
    data = np.array(values, NUMPY_OF[datatype])
    place.store(predictions([request(0, rows=2)], [0.5, 0.5], inputs=[Column("v", datatype, (1,), data.tobytes())]))
    with Queries(place.uri).snapshot("predictions") as snapshot:
        column = snapshot.batches("SELECT input_v FROM predictions ORDER BY row", rows=10).read_all()["input_v"]
    given = _tensor(spec("v", datatype, -1, 1), column)
    assert given.dtype == data.dtype
    assert np.array_equal(given.ravel(), data, equal_nan=datatype.startswith("FP"))


def loaded(tmp_path, made):
    key = ModelKey("made", "1")
    staged = write(tmp_path / "artifacts", onnx.load_from_string(made.model).graph, made.signature, made.answer, key)
    return Catalog(tmp_path / "artifacts").load(staged.digest)


def test_an_input_that_changed_its_type_is_read_from_both_columns(place, tmp_path):
    first = predictions([request(0)], [0.5], inputs=[Column("x", "FP32", (1,), np.float32([1.5]).tobytes())])
    second = predictions([request(1)], [0.5], inputs=[Column("x", "INT64", (1,), np.int64([-2]).tobytes())])
    place.store(first)
    place.store(second, writer="worker-2")
    staged = stage_linear(tmp_path / "artifacts", columns=1)
    found = replay(
        Queries(place.uri), Question(endpoint="phishing"), Catalog(tmp_path / "artifacts").load(staged.digest)
    )
    assert found.without_inputs == 0
    assert found.pairs["answer_label"].to_pylist() == ["1", "0"]


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_rows_of_different_widths_are_replayed_each_with_its_own(place, tmp_path, datatype):
    def of(width):
        data = ["ä"] * width if datatype == "BYTES" else np.ones(width, "<f4").tobytes()
        return Column("x", datatype, (width,), data)

    place.store(predictions([request(0)], [0.5], inputs=[of(2)]))
    place.store(predictions([request(1)], [0.5], inputs=[of(3)]), writer="worker-2")
    found = replay(Queries(place.uri), Question(endpoint="phishing"), loaded(tmp_path, echo(datatype)))
    assert found.pairs["outcome"].to_pylist() == ["recorded"] * 2


def test_an_optional_input_that_was_never_recorded_is_left_out(place, tmp_path):
    made = echo("FP32", (-1, 1))
    optional = Signature(inputs=(spec("x", "FP32", -1, 1, optional=True),), outputs=made.signature.outputs)
    model = loaded(tmp_path, MadeModel(made.model, optional, made.answer))
    place.store(predictions([request(0)], [0.5], inputs=[Column("other", "FP32", (1,), bytes(4))]))
    found = replay(Queries(place.uri), Question(endpoint="phishing"), model)
    assert (found.without_inputs, found.pairs["outcome"].to_pylist()) == (0, ["recorded"])
