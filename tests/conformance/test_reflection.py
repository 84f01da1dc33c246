"""A client that knows nothing of us but reflection: it fetches the description, builds the messages, and calls, as grpcurl does."""

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "inference.GRPCInferenceService"


@pytest.fixture
def channel(grpc_address):
    with grpc.insecure_channel(grpc_address) as made:
        yield made


def call(channel, pool, method, **fields):
    found = pool.FindServiceByName(SERVICE).methods_by_name[method]
    request, response = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
    made = channel.unary_unary(
        f"/{SERVICE}/{method}", request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )
    return made(request(**fields))


def test_a_client_can_predict_with_reflection_alone(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services()
    pool = DescriptorPool(database)
    metadata = call(channel, pool, "ModelMetadata", name="phishing")
    tensor = {
        "name": metadata.inputs[0].name,
        "datatype": metadata.inputs[0].datatype,
        "shape": [1, metadata.inputs[0].shape[1]],
        "contents": {"fp32_contents": [1, 1, 1, 1]},
    }
    response = call(channel, pool, "ModelInfer", model_name="phishing", inputs=[tensor])
    assert response.outputs[0].name == "label"
    assert response.raw_output_contents[0] == b"\1" + b"\0" * 7


def test_the_health_service_answers_its_own_client(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE, "phishing"):
        assert (
            stub.Check(health_pb2.HealthCheckRequest(service=service)).status == health_pb2.HealthCheckResponse.SERVING
        )
