import numpy as np
import pytest

from gateway.errors import RequestMalformed
from gateway.rest.dataframes import cast_columns, from_csv, from_records, from_split
from models.errors import InputInvalid
from models.signature import Signature
from models.tensors import NUMPY_OF
from tests.kit.onnx_models import columns, spec

CHURN = columns().signature


def one(datatype, *, optional=False):
    return Signature(inputs=(spec("c", datatype, -1, 1, optional=optional),), outputs=(), columns=True)


@pytest.mark.parametrize(
    ("datatype", "values", "wanted"),
    [
        ("FP64", [1, 2.5, "3.5", True], [1.0, 2.5, 3.5, 1.0]),
        ("FP32", [1, 0.1], [1.0, float(np.float32(0.1))]),
        ("FP32", [1e300], [float("inf")]),
        ("INT64", [1, 1.9, -1.9, "7", True], [1, 1, -1, 7, 1]),
        ("INT32", [2**31 - 1], [2**31 - 1]),
        ("BOOL", [True, 0, 2, None, "x"], [True, False, True, False, True]),
        ("BYTES", ["a", ""], ["a", ""]),
    ],
)
def test_a_column_is_cast_as_a_whole(datatype, values, wanted):
    array = cast_columns(one(datatype), {"c": values})["c"]
    assert array.dtype == NUMPY_OF[datatype]
    assert array.tolist() == wanted


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("FP64", "abc"),
        ("INT64", None),
        ("INT64", "3.5"),
        ("INT32", 2**31),
        ("INT64", 2**63),
        ("BYTES", 5),
        ("BYTES", None),
    ],
)
def test_a_value_that_cannot_be_cast_is_refused_without_being_repeated(datatype, value):
    with pytest.raises(RequestMalformed, match="Failed to convert column c to type") as caught:
        cast_columns(one(datatype), {"c": [value]})
    assert repr(value) not in str(caught.value).replace("column c", "")


def test_null_is_nan_in_floating_columns_and_empty_in_optional_text():
    assert np.isnan(cast_columns(one("FP32"), {"c": [None]})["c"]).all()
    assert cast_columns(one("BYTES", optional=True), {"c": [None]})["c"].tolist() == [""]


def test_numbers_become_text_only_where_numpy_makes_them_so():
    assert cast_columns(one("BYTES"), {"c": [5, 1.5, True, "a"]}, as_text=True)["c"].tolist() == [
        "5",
        "1.5",
        "True",
        "a",
    ]


def test_extra_columns_are_ignored_missing_ones_refused_and_optional_ones_left_out():
    arrays = from_split(["plan", "zip", "visits", "age"], [["a", "x", 2, 1]], CHURN)
    assert list(arrays) == ["age", "visits", "plan"]
    with pytest.raises(InputInvalid, match=r"Model is missing inputs \['visits', 'plan'\]"):
        from_split(["age"], [[1]], CHURN)


def test_records_may_leave_a_floating_column_out_in_some_rows():
    arrays = from_records([{"age": 1, "visits": 1, "plan": "a"}, {"visits": 2, "plan": "b"}], CHURN)
    assert np.isnan(arrays["age"][1])


def test_rows_of_another_width_and_columns_named_twice_are_refused():
    with pytest.raises(RequestMalformed, match="Row 1 has 1 values for 2 columns"):
        from_split(["a", "b"], [[1, 2], [1]], CHURN)
    with pytest.raises(RequestMalformed, match="twice"):
        from_split(["age", "age"], [[1, 2]], CHURN)


class TestCsv:
    def test_it_is_read_by_the_types_of_the_columns(self):
        arrays = from_csv(',age,visits,plan\n0,1.5,2,"a, b"\n1,,3,c\n', CHURN)
        assert arrays["visits"].tolist() == [2, 3]
        assert arrays["plan"].tolist() == ["a, b", "c"]
        assert arrays["age"][0] == 1.5
        assert np.isnan(arrays["age"][1])

    @pytest.mark.parametrize("text", ["", "age,visits,plan\n1,2\n", 'age,visits,plan\n"1,2,a\n'])
    def test_what_is_no_table_is_refused(self, text):
        with pytest.raises((RequestMalformed, InputInvalid)):
            from_csv(text, CHURN)

    def test_an_integer_is_not_written_with_a_point(self):
        with pytest.raises(RequestMalformed, match="column visits"):
            from_csv("age,visits,plan\n1,2.0,a\n", CHURN)

    def test_truth_is_a_word(self):
        assert from_csv("c\nTrue\nfalse\n", one("BOOL"))["c"].tolist() == [True, False]
        with pytest.raises(RequestMalformed):
            from_csv("c\nyes\n", one("BOOL"))
