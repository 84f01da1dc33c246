import numpy as np
import pytest

from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.messages import decode, encode
from models.errors import InputInvalid
from tests.gateway.rest.test_open_inference import reply
from tests.kit.onnx_models import classifier

SIGNATURE = classifier().signature


def request(outputs=(), **fields):
    made = pb.ModelInferRequest(model_name="phishing", **fields)
    made.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 2, 3, 4])
    for name, parameters in outputs:
        output = made.outputs.add(name=name)
        for key, value in parameters.items():
            output.parameters[key].int64_param = value
    return made


def test_outputs_are_raw_by_default():
    response = encode(reply(), decode(request(id="q"), SIGNATURE))
    assert response.id == "q"
    assert response.parameters["prediction_id"].string_param == "id-1"
    assert response.parameters["revision"].int64_param == 7
    assert [one.name for one in response.outputs] == ["label", "probabilities"]
    assert np.frombuffer(response.raw_output_contents[1], "<f4").tolist() == [0.25, 0.75]
    assert not response.outputs[0].HasField("contents")


def test_outputs_are_typed_on_request():
    asked = request()
    asked.parameters["binary_data_output"].bool_param = False
    response = encode(reply(), decode(asked, SIGNATURE))
    assert not response.raw_output_contents
    assert list(response.outputs[0].contents.int64_contents) == [1]
    assert list(response.outputs[1].contents.fp32_contents) == [0.25, 0.75]


def test_no_id_is_the_empty_id():
    assert encode(reply(), decode(request(), SIGNATURE)).id == ""


def test_classification_is_text():
    response = encode(reply(), decode(request([("probabilities", {"classification": 1})]), SIGNATURE))
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [1, 1])
    assert response.raw_output_contents[0][4:] == b"0.750000:1:1"


def test_unknown_and_repeated_outputs_are_refused():
    with pytest.raises(InputInvalid, match="unknown output"):
        decode(request([("nope", {})]), SIGNATURE)
    with pytest.raises(InputInvalid, match="twice"):
        decode(request([("label", {}), ("label", {})]), SIGNATURE)
    asked = request()
    asked.parameters["binary_data_output"].string_param = "no"
    with pytest.raises(InputInvalid, match="true or false"):
        decode(asked, SIGNATURE)
