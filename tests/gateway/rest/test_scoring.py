import json

import numpy as np
import pytest

from gateway.errors import EndpointUnknown, MediaTypeUnsupported, RequestMalformed
from gateway.request import InferReply
from gateway.rest.scoring import decode, encode, predictions, refuse
from models.errors import InputInvalid, ModelFailed
from models.signature import Answer, Signature
from models.staged import ModelKey, StagedModel
from tests.kit.onnx_models import classifier, columns, spec

CHURN, PHISHING = columns().signature, classifier().signature
PAIR = Signature(inputs=(spec("a", "FP32", -1, 2), spec("b", "INT64", -1)), outputs=(spec("y", "FP32", -1),))
ROW = {"age": 1, "visits": 2, "plan": "a"}


def scored(document, signature, content_type="application/json"):
    return decode(json.dumps(document).encode(), content_type, signature).inputs


def plain(arrays):
    return {name: array.tolist() for name, array in arrays.items()}


@pytest.mark.parametrize(
    "document",
    [
        {
            "dataframe_split": {
                "columns": ["age", "visits", "plan"],
                "data": [[1, 2, "a"], [3, 4, "b"]],
                "index": [0, 1],
            }
        },
        {"dataframe_records": [ROW, {"age": 3, "visits": 4, "plan": "b", "extra": None}]},
        {"instances": [ROW, {"age": 3, "visits": 4, "plan": "b"}]},
        {"inputs": [ROW, {"age": 3, "visits": 4, "plan": "b"}], "params": {"x": 1}, "anything": [[]]},
        {"inputs": {"age": [1, 3], "visits": [2, 4], "plan": ["a", "b"]}},
        {"instances": {"age": [1, 3], "visits": [2, 4], "plan": ["a", "b"]}},
    ],
)
def test_every_form_of_a_table_is_the_same_columns(document):
    assert plain(scored(document, CHURN)) == {"age": [1.0, 3.0], "visits": [2, 4], "plan": ["a", "b"]}


def test_scalars_by_name_are_one_row():
    assert plain(scored({"inputs": ROW}, CHURN)) == {"age": [1.0], "visits": [2], "plan": ["a"]}


def test_one_column_may_come_without_its_name():
    single = Signature(inputs=(spec("c", "FP64", -1, 1),), outputs=(), columns=True)
    assert plain(scored({"inputs": [1, 2]}, single)) == {"c": [1.0, 2.0]}
    assert plain(scored({"dataframe_split": {"columns": ["c"], "data": [1, 2]}}, single)) == {"c": [1.0, 2.0]}


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": [[1, 2, 3, 4]]},
        {"instances": [[1, 2, 3, 4]]},
        {"inputs": {"x": [[1, 2, 3, 4]]}},
        {"instances": [{"x": [1, 2, 3, 4]}]},
        {"dataframe_split": {"columns": ["p", "q", "r", "s"], "data": [[1, 2, 3, 4]]}},
        {"dataframe_records": [{"p": 1, "q": 2, "r": 3, "s": 4}]},
        {"dataframe_split": {"columns": ["x"], "data": [[[1, 2, 3, 4]]]}},
    ],
)
def test_every_form_of_a_tensor_is_the_same_tensor(document):
    arrays = scored(document, PHISHING)
    assert arrays["x"].dtype == np.float32
    assert arrays["x"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": {"a": [[1, 2]], "b": [3]}},
        {"instances": [{"a": [1, 2], "b": 3}]},
        {"dataframe_records": [{"a": [1, 2], "b": 3}]},
        {"dataframe_split": {"columns": ["b", "a"], "data": [[3, [1, 2]]]}},
    ],
)
def test_several_tensors_come_by_name(document):
    assert plain(scored(document, PAIR)) == {"a": [[1.0, 2.0]], "b": [3]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[1]", "Received a list"),
        (b"5", "JSON dictionary with exactly one"),
        (b"{}", r"Received dictionary with input fields: \[\]"),
        (b'{"inputs": [], "instances": []}', "exactly one"),
        (b"{", "valid JSON formatted string"),
        (b'{"inputs": [NaN]}', "send null for a missing value"),
        (b'{"dataframe_split": [1]}', "dataframe_split"),
        (b'{"dataframe_split": {"columns": ["age"], "data": [[1]], "index": [1, 2]}}', "index has 2"),
        (b'{"dataframe_split": {"columns": ["age"], "dato": [[1]]}}', "dataframe_split"),
        (b'{"dataframe_records": {"age": 1}}', "dataframe_records"),
        (b'{"dataframe_records": [{"age": [1]}]}', "dataframe_records"),
        (b'{"instances": {"age": [1], "visits": [1, 2], "plan": ["a"]}}', "not the same"),
        (b'{"dataframe_split": {"columns": ["age", "visits", "plan"], "data": []}}', "at least one row"),
    ],
)
def test_what_is_no_request_is_a_bad_request(body, message):
    with pytest.raises(RequestMalformed, match=message):
        decode(body, "application/json", CHURN)


@pytest.mark.parametrize("form", ["inputs", "instances"])
def test_values_without_names_miss_every_column(form):
    with pytest.raises(InputInvalid, match="missing inputs"):
        scored({form: [[1, 2, 3]]}, CHURN)


def test_ragged_and_deep_tensors_are_refused():
    for values in ([[1, 2], [3]], [["a"]], [[None, {}]]):
        with pytest.raises(RequestMalformed):
            scored({"inputs": values}, PHISHING)
    with pytest.raises(RequestMalformed, match="deeper"):
        decode(b'{"inputs": ' + b"[" * 40 + b"]" * 40 + b"}", None, PHISHING)


class TestMediaTypes:
    def test_none_is_json_and_utf8_may_be_said(self):
        for content_type in (None, "application/json", "application/json; charset=UTF-8"):
            assert scored({"inputs": [[1, 2, 3, 4]]}, PHISHING, content_type)

    @pytest.mark.parametrize(
        ("content_type", "message"),
        [
            ("text/plain", "only supports the following content types"),
            ("application/vnd.apache.parquet", "only supports the following"),
            ("application/json; charset=latin-1", "only supports UTF-8"),
            ("application/json; format=x", "Unrecognized content type parameters"),
        ],
    )
    def test_others_are_refused_as_text(self, content_type, message):
        with pytest.raises(MediaTypeUnsupported, match=message) as caught:
            decode(b"{}", content_type, PHISHING)
        status, headers, body = refuse(caught.value)
        assert status == 415
        assert ("content-type", "text/plain; charset=utf-8") in headers
        assert body.decode() == str(caught.value)

    def test_csv_needs_columns(self):
        assert plain(decode(b"age,visits,plan\n1,2,a\n", "text/csv", CHURN).inputs) == {
            "age": [1.0],
            "visits": [2],
            "plan": ["a"],
        }
        with pytest.raises(RequestMalformed, match="column signature"):
            decode(b"x\n1\n", "text/csv", PHISHING)
        with pytest.raises(RequestMalformed, match="UTF-8"):
            decode(b"\xff", "text/csv", CHURN)


def test_the_client_request_id_is_kept_where_it_fits():
    assert decode(b'{"inputs": [[1,2,3,4]], "client_request_id": "c-1"}', None, PHISHING).client_request_id == "c-1"
    for other in (b'"a b"', b"5", b"null"):
        body = b'{"inputs": [[1,2,3,4]], "client_request_id": ' + other + b"}"
        assert decode(body, None, PHISHING).client_request_id is None


def answered(form, outputs, names=()):
    specs = tuple(spec(name, "FP64", -1) for name in outputs)
    model = StagedModel(
        key=ModelKey("m", "1"),
        digest="d",
        uri="u",
        flavor="onnx",
        file="f",
        file_sha256="s",
        size_bytes=0,
        signature=Signature(inputs=(), outputs=specs),
        answer=Answer(scoring_outputs=tuple(names), scoring_form=form),
    )
    return InferReply(
        prediction_id="id-1",
        endpoint="e",
        variant="v",
        assigned="v",
        model=model,
        revision=1,
        outputs=[np.array(values) for values in outputs.values()],
    )


class TestPredictions:
    def test_a_list_has_one_value_a_row(self):
        assert predictions(answered("list", {"y": [[1], [2]], "z": [0, 0]}, ["y"])) == [1, 2]
        assert predictions(answered("list", {"y": ["a", "b"]})) == ["a", "b"]

    def test_a_matrix_has_one_list_a_row(self):
        assert predictions(answered("matrix", {"y": [[1, 2], [3, 4]]})) == [[1, 2], [3, 4]]

    def test_records_have_one_object_a_row(self):
        assert predictions(answered("records", {"y": [[1], [2]], "z": [3, 4]})) == [{"y": 1, "z": 3}, {"y": 2, "z": 4}]
        with pytest.raises(ModelFailed):
            predictions(answered("records", {"y": [[1, 2]], "z": [3]}))

    def test_columns_are_lists_by_output(self):
        assert predictions(answered("columns", {"y": [[1], [2]], "z": [3, 4]}, ["z", "y"])) == {
            "z": [3, 4],
            "y": [[1], [2]],
        }

    def test_single_precision_prints_as_mlflow_prints_it(self):
        reply = answered("list", {"y": np.array([0.1], dtype=np.float32)})
        assert json.loads(encode(reply)) == {"predictions": [np.float32(0.1).tolist()], "prediction_id": "id-1"}

    def test_values_that_json_does_not_know_become_null(self):
        assert json.loads(encode(answered("list", {"y": [np.nan, np.inf]})))["predictions"] == [None, None]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestMalformed("m"), 400, "BAD_REQUEST"),
        (InputInvalid("m"), 400, "INVALID_PARAMETER_VALUE"),
        (ModelFailed("inner words"), 400, "BAD_REQUEST"),
        (EndpointUnknown("m"), 404, "RESOURCE_DOES_NOT_EXIST"),
        (KeyError("secret"), 500, "INTERNAL_ERROR"),
    ],
)
def test_refusals_have_mlflows_form(error, status, code):
    got, headers, body = refuse(error)
    document = json.loads(body)
    assert (got, document["error_code"]) == (status, code)
    assert set(document) == {"error_code", "message"}
    assert not {"inner words", "secret"} & set(document["message"].split("'"))
    assert ("content-type", "application/json") in headers
