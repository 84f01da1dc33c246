"""Room 2 for gRPC: a ModelInferRequest into the one request form of V2, a reply into a ModelInferResponse."""

from gateway.request import InferReply
from gateway.rest.classification import classify
from gateway.rest.open_inference import Decoded, chosen, told, wanted_output
from gateway.rest.raw_tensors import write_raw
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.tensors import read_inputs, read_parameters, write_contents, write_parameters
from models.errors import InputInvalid
from models.signature import Signature


def decode(request: pb.ModelInferRequest, signature: Signature) -> Decoded:
    """The request as REST decodes it. Outputs are raw unless the parameter `binary_data_output` is false."""
    parameters = read_parameters(request.parameters)
    wanted = tuple(wanted_output(one.name, read_parameters(one.parameters), signature) for one in request.outputs)
    if len({one.name for one in wanted}) != len(wanted):
        raise InputInvalid("an output is asked for twice")
    is_raw = parameters.get("binary_data_output", True)
    if not isinstance(is_raw, bool):
        raise InputInvalid("parameter 'binary_data_output': wanted true or false")
    return Decoded(read_inputs(request), request.id or None, parameters, wanted, is_raw)


def encode(reply: InferReply, decoded: Decoded) -> pb.ModelInferResponse:
    """Raw or typed contents for all outputs alike: the protocol does not allow both in one message."""
    response = pb.ModelInferResponse(
        model_name=reply.endpoint, model_version=reply.model.key.version, id=decoded.id or ""
    )
    write_parameters(response.parameters, told(reply).items())
    for spec, output, wanted in chosen(reply, decoded.wanted):
        array, datatype = output, spec.datatype
        if wanted.classes:
            array, datatype = classify(spec, output, wanted.classes, reply.model), "BYTES"
        tensor = response.outputs.add(name=spec.name, datatype=datatype, shape=array.shape)
        if decoded.binary_default:
            response.raw_output_contents.append(write_raw(array))
        else:
            tensor.contents.CopyFrom(write_contents(spec.name, datatype, array))
    return response
