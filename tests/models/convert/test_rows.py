"""Made rows: enough, the same each time, and with everything in them that hurts."""

import numpy as np
import pytest

from models.convert.mlmodel import Rows
from models.convert.rows import ROWS_MIN, Sample, feeds, generate
from models.signature import TensorSpec

AGE = TensorSpec(name="age", datatype="INT64", shape=(-1, 1))
INCOME = TensorSpec(name="income", datatype="FP64", shape=(-1, 1))
CITY = TensorSpec(name="city", datatype="BYTES", shape=(-1, 1))
EXAMPLE: Rows = {
    "age": np.array([20, 30]),
    "income": np.array([1.5, np.nan]),
    "city": np.array(["Bern", None], object),
}


def made(inputs: tuple[TensorSpec, ...] = (AGE, INCOME, CITY), example: Rows = EXAMPLE, **more: Rows) -> Sample:
    arguments = {"recorded": {}, "thresholds": {}} | more
    return generate(inputs, columns=True, example=example, **arguments)


def of_kind(sample: Sample, kind: str) -> Rows:
    return {name: values[sample.kinds == kind] for name, values in sample.rows.items()}


def test_there_are_enough_rows_of_the_declared_types_and_always_the_same() -> None:
    first, second = made(), made()

    assert first.count >= ROWS_MIN
    assert {name: values.dtype.str for name, values in first.rows.items()} == {
        "age": "<i8",
        "income": "<f8",
        "city": "|O",
    }
    assert all(first.rows[name].tolist() == second.rows[name].tolist() for name in ("age", "city"))
    assert np.array_equal(first.rows["income"], second.rows["income"], equal_nan=True)


def test_given_rows_are_among_them_unchanged() -> None:
    sample = made(recorded={"age": np.array([99]), "income": np.array([7.0]), "city": np.array(["Chur"], object)})

    assert of_kind(sample, "example")["city"].tolist() == ["Bern", None]
    assert of_kind(sample, "recorded")["age"].tolist() == [99]
    assert int(sample.is_given().sum()) == 3


def test_each_threshold_and_its_neighbours_in_both_widths_are_among_them() -> None:
    at = 0.1

    rows = of_kind(made(thresholds={"income": np.array([at])}), "thresholds")["income"]

    narrow = np.float32(at)
    wanted = [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf), narrow]
    wanted += [np.nextafter(narrow, np.float32(np.inf)), np.nextafter(narrow, np.float32(-np.inf))]
    assert set(map(float, wanted)) <= set(rows.tolist())


def test_every_nullable_input_is_missing_alone_and_together_and_texts_have_an_empty_twin() -> None:
    sample = made()
    nulls, empty = of_kind(sample, "nulls"), of_kind(sample, "empty")

    assert (np.isnan(nulls["income"]) & (nulls["city"] == None)).any()  # noqa: E711 - element by element
    assert (np.isnan(nulls["income"]) & (nulls["city"] != None)).any()  # noqa: E711 - see above
    places = np.flatnonzero(sample.kinds == "empty")
    assert (sample.kinds[places - sample.twins] == "nulls").all()
    assert empty["city"].tolist() == [value or "" for value in nulls["city"]]


def test_unseen_texts_and_values_far_outside_are_among_them() -> None:
    sample = made()

    assert "runoff-unseen" in of_kind(sample, "unseen")["city"]
    assert of_kind(sample, "extremes")["income"].max() > 100


def test_learned_categories_are_drawn_where_there_is_no_example() -> None:
    sample = made(example={}, categories={"city": np.array(["Genève"], object), "age": np.array([3, 5])})

    drawn = of_kind(sample, "sampled")
    assert set(drawn["city"]) == {"Genève"}
    assert set(drawn["age"].tolist()) == {3, 5}


def test_a_tensor_is_drawn_in_its_shape() -> None:
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 2, 3))

    sample = generate((spec,), columns=False, example={}, recorded={}, thresholds={})

    assert sample.rows["x"].shape == (sample.count, 2, 3)
    assert feeds((spec,), sample.rows, columns=False)["x"].dtype == np.float32


def test_what_the_onnx_form_is_fed_has_no_missing_texts() -> None:
    fed = feeds((AGE, CITY), EXAMPLE, columns=True)

    assert fed["city"].tolist() == [["Bern"], [""]]
    assert fed["age"].shape == (2, 1)


@pytest.mark.parametrize("datatype", ["INT8", "UINT8", "INT32", "UINT64"])
def test_whole_numbers_stay_in_the_range_of_their_type(datatype: str) -> None:
    spec = TensorSpec(name="n", datatype=datatype, shape=(-1, 1))

    sample = generate((spec,), columns=True, example={}, recorded={}, thresholds={"n": np.array([-1e6, 0.5, 1e6])})

    assert sample.count >= ROWS_MIN


@pytest.mark.parametrize(("width", "at_most"), [(2, 2000), (150_528, 120), (3_000_000, 32)])
def test_wide_tensors_are_drawn_as_far_as_their_bytes_go_where_nothing_is_compared(width: int, at_most: int) -> None:
    wide = TensorSpec(name="x", datatype="FP32", shape=(-1, width))
    sample = generate((wide,), columns=False, example={}, recorded={}, thresholds={}, bytes_max=64 << 20)

    assert 16 < sample.count <= at_most
    assert {"extremes", "sampled"} == set(sample.kinds)
