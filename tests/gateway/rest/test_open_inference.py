import contextlib
import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RequestMalformed
from gateway.request import InferReply
from gateway.rest.open_inference import WantedOutput, chosen, decode, encode, told, wanted_output
from gateway.rest.raw_tensors import write_raw
from models.errors import InputInvalid
from models.signature import Signature
from tests.kit.onnx_models import classifier, columns, echo, spec
from tests.kit.small_corridor import Loaded

SIGNATURE = classifier().signature


def body(*tensors, **fields):
    return json.dumps({"inputs": list(tensors), **fields}).encode()


def tensor(name="x", shape=(1, 4), datatype="FP32", data=(1, 2, 3, 4), **more):
    return {"name": name, "shape": list(shape), "datatype": datatype, "data": list(data), **more}


def reply(made=None, outputs=None, **fields):
    model = Loaded("phishing", "3", made or classifier()).staged
    if outputs is None:
        outputs = [np.array([1]), np.array([[0.25, 0.75]], dtype=np.float32)]
    base = {
        "prediction_id": "id-1",
        "endpoint": "phishing",
        "variant": "champion",
        "assigned": "champion",
        "revision": 7,
    }
    return InferReply(**{**base, **fields}, model=model, outputs=outputs)


class TestDecode:
    def test_flat_and_nested_data_are_the_same(self):
        flat = decode(body(tensor(shape=(2, 2), data=[1, 2, 3, 4])), None, SIGNATURE)
        nested = decode(body(tensor(shape=(2, 2), data=[[1, 2], [3, 4]])), None, SIGNATURE)
        assert flat.inputs["x"].tolist() == nested.inputs["x"].tolist() == [[1, 2], [3, 4]]
        assert flat.inputs["x"].dtype == np.float32

    def test_id_parameters_and_wishes_are_read(self):
        wishes = [
            {"name": "label"},
            {"name": "probabilities", "parameters": {"classification": 2, "binary_data": True}},
        ]
        parameters = {"priority": 1, "unit": "u7", "ratio": 0.5, "binary_data_output": True}
        decoded = decode(body(tensor(), id="a b/ü", parameters=parameters, outputs=wishes), None, SIGNATURE)
        assert decoded.id == "a b/ü"
        assert decoded.parameters == parameters
        assert decoded.binary_default
        assert decoded.wanted == (WantedOutput("label"), WantedOutput("probabilities", True, 2))

    def test_unknown_fields_are_ignored(self):
        assert decode(body(tensor(comment=[[]]), sender={"a": 1}), None, SIGNATURE).inputs

    def test_binary_tensors_follow_the_json_in_order(self):
        head = body(
            {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "b", "shape": [1], "datatype": "INT64", "data": [5]},
            {"name": "c", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
        )
        tail = write_raw(np.array([1.5, np.nan], dtype=np.float32)) + b"\x02\0\0\0hi"
        inputs = decode(head + tail, len(head), SIGNATURE).inputs
        assert inputs["a"][0] == 1.5
        assert np.isnan(inputs["a"][1])
        assert inputs["b"].tolist() == [5]
        assert inputs["c"].tolist() == ["hi"]

    @pytest.mark.parametrize(
        ("given_body", "error", "message"),
        [
            (b"", RequestMalformed, "not JSON"),
            (b"[]", RequestMalformed, "not a V2 inference request"),
            (b"{}", RequestMalformed, "inputs"),
            (b'{"inputs": [NaN]}', RequestMalformed, "send null"),
            (b"\xef\xbb\xbf{}", RequestMalformed, "not JSON"),
            (b'{"inputs": ' + b"[" * 5000, RequestMalformed, "request"),
            (b'{"x": ' + b"[" * 5000, RequestMalformed, "nested too deeply"),
            (body(tensor(), tensor()), InputInvalid, "'x' is given twice"),
            (body(tensor(shape=(1, 5))), InputInvalid, r"wanted 5 values for FP32 \[1, 5\], got 4"),
            (body(tensor(shape=(-1, 4))), RequestMalformed, ">= 0"),
            (body(tensor(shape=[1] * 40)), RequestMalformed, "length <= 32"),
            (body(tensor(shape=(1 << 62, 0), data=[])), InputInvalid, "wanted a smaller shape"),
            (body(tensor(datatype="BF16")), InputInvalid, "BF16"),
            (body({"name": "x", "shape": [1], "datatype": "FP32"}), RequestMalformed, "neither data nor"),
            (body(tensor(parameters={"binary_data_size": 4})), RequestMalformed, "got both"),
            (body(tensor(parameters={"shared_memory_region": "r"})), InputInvalid, "shared memory is not offered"),
            (body(tensor(), outputs=[{"name": "nope"}]), InputInvalid, "unknown output 'nope'"),
            (body(tensor(), outputs=[{"name": "label"}] * 2), InputInvalid, "asked for twice"),
            (body(tensor(), parameters={"binary_data_output": 1}), InputInvalid, "wanted true or false"),
            (body(tensor(), id=5), RequestMalformed, "id"),
        ],
    )
    def test_what_is_wrong_is_said(self, given_body, error, message):
        with pytest.raises(error, match=message):
            decode(given_body, None, SIGNATURE)

    @pytest.mark.parametrize(
        ("size", "tail", "message"),
        [
            (8, b"\0" * 4, "does not fit the 4 bytes"),
            (-1, b"", "does not fit"),
            (True, b"", "does not fit"),
            (4, b"\0" * 5, "1 bytes follow"),
        ],
    )
    def test_binary_sizes_must_add_up(self, size, tail, message):
        head = body({"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": size}})
        with pytest.raises(RequestMalformed, match=message):
            decode(head + tail, len(head), SIGNATURE)

    def test_a_header_length_beyond_the_body_is_refused(self):
        with pytest.raises(RequestMalformed, match="Inference-Header-Content-Length is 9"):
            decode(b"{}", 9, SIGNATURE)

    @given(st.binary(max_size=60), st.none() | st.integers(0, 70))
    def test_any_bytes_give_a_request_or_a_refusal(self, given_body, header_length):
        with contextlib.suppress(RequestMalformed, InputInvalid):
            decode(given_body, header_length, SIGNATURE)


class TestRawBody:
    def test_it_is_one_row_and_comes_back_binary(self):
        decoded = decode(write_raw(np.ones(4, dtype=np.float32)), 0, SIGNATURE)
        assert decoded.inputs["x"].shape == (1, 4)
        assert decoded.binary_default

    def test_one_free_dimension_beside_the_batch_follows_from_the_length(self):
        assert decode(b"\0" * 24, 0, echo("FP32").signature).inputs["x"].shape == (1, 6)
        with pytest.raises(InputInvalid, match="at most one free dimension"):
            decode(b"\0" * 24, 0, echo("FP32", (-1, -1, -1)).signature)

    def test_text_is_the_body_itself(self):
        assert decode("ä".encode(), 0, echo("BYTES", (-1, 1)).signature).inputs["x"].tolist() == [["ä"]]

    def test_it_needs_a_single_input(self):
        with pytest.raises(InputInvalid, match="a model with one input; this one has 4"):
            decode(b"", 0, columns().signature)

    def test_a_length_that_is_no_whole_number_of_elements_is_refused(self):
        with pytest.raises(InputInvalid, match="wanted 16 bytes"):
            decode(b"\0" * 15, 0, SIGNATURE)


class TestEncode:
    def test_a_reply_says_what_happened(self):
        headers, sent = encode(reply(), decode(body(tensor(), id="q"), None, SIGNATURE))
        assert headers == [("content-type", "application/json")]
        assert json.loads(sent) == {
            "model_name": "phishing",
            "model_version": "3",
            "parameters": {"prediction_id": "id-1", "variant": "champion", "revision": 7},
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]},
            ],
            "id": "q",
        }

    def test_no_id_is_sent_where_none_was_given(self):
        assert "id" not in json.loads(encode(reply(), decode(body(tensor()), None, SIGNATURE))[1])

    def test_values_that_json_does_not_know_become_null(self):
        made = reply(outputs=[np.array([1]), np.array([[np.nan, np.inf]], dtype=np.float32)])
        outputs = json.loads(encode(made, decode(body(tensor()), None, SIGNATURE))[1])["outputs"]
        assert outputs[1]["data"] == [None, None]

    def test_wanted_outputs_come_in_the_callers_order_each_in_its_form(self):
        wishes = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]
        headers, sent = encode(reply(), decode(body(tensor(), outputs=wishes), None, SIGNATURE))
        length = int(dict(headers)["inference-header-content-length"])
        document = json.loads(sent[:length])
        assert [one["name"] for one in document["outputs"]] == ["probabilities", "label"]
        assert document["outputs"][0]["parameters"] == {"binary_data_size": 8}
        assert document["outputs"][1]["data"] == [1]
        assert np.frombuffer(sent[length:], dtype="<f4").tolist() == [0.25, 0.75]

    def test_an_output_may_differ_from_the_default(self):
        wishes = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
        asked = body(tensor(), outputs=wishes, parameters={"binary_data_output": True})
        headers, sent = encode(reply(), decode(asked, None, SIGNATURE))
        document = json.loads(sent[: int(dict(headers)["inference-header-content-length"])])
        assert ["data" in one for one in document["outputs"]] == [True, False]

    def test_classification_replaces_the_tensor_by_text(self):
        wishes = [{"name": "probabilities", "parameters": {"classification": 1}}]
        sent = encode(reply(), decode(body(tensor(), outputs=wishes), None, SIGNATURE))[1]
        assert json.loads(sent)["outputs"] == [
            {"name": "probabilities", "datatype": "BYTES", "shape": [1, 1], "data": ["0.750000:1:1"]}
        ]


def test_a_fallback_and_an_explanation_are_told_flat():
    parameters = told(reply(assigned="challenger", explain={"rule": None, "bucket": 11, "share": 0.5}))
    assert parameters["assigned"] == "challenger"
    assert parameters["explain_bucket"] == 11
    assert "explain_rule" not in parameters


def test_all_outputs_are_chosen_where_none_is_named():
    assert [one.name for one, _, _ in chosen(reply(), ())] == ["label", "probabilities"]


@pytest.mark.parametrize("classes", [-1, True, "2", 1.5])
def test_a_number_of_classes_is_a_natural_number(classes):
    with pytest.raises(InputInvalid, match="classification"):
        wanted_output("y", {"classification": classes}, Signature(inputs=(), outputs=(spec("y", "FP32", -1),)))


def test_what_is_encoded_can_be_decoded_by_msgspec_too():
    assert msgspec.json.decode(encode(reply(), decode(body(tensor()), None, SIGNATURE))[1])
