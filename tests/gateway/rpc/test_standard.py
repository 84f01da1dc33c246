import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

SERVICE = "inference.GRPCInferenceService"
Status = health_pb2.HealthCheckResponse


@pytest.fixture
def health(channel):
    return health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("service", ["", SERVICE, "phishing"])
async def test_health_is_what_the_corridor_says_now(health, corridor, service):
    request = health_pb2.HealthCheckRequest(service=service)
    assert (await health.Check(request)).status == Status.SERVING
    corridor.is_ready = False
    assert (await health.Check(request)).status == Status.NOT_SERVING


async def test_an_endpoint_that_is_not_warm_here_is_not_serving_and_the_server_is(health, corridor):
    corridor.cold.add("phishing")
    told = {name: (await health.Check(health_pb2.HealthCheckRequest(service=name))).status for name in ("phishing", "")}
    assert told == {"phishing": Status.NOT_SERVING, "": Status.SERVING}


async def test_an_unknown_service_is_not_found_and_when_watched_unknown(health):
    request = health_pb2.HealthCheckRequest(service="nope")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = health.Watch(request)
    assert (await watch.read()).status == Status.SERVICE_UNKNOWN
    watch.cancel()


async def test_a_watcher_sees_each_change(health, corridor):
    watch = health.Watch(health_pb2.HealthCheckRequest(service="phishing"))
    assert (await watch.read()).status == Status.SERVING
    corridor.cold.add("phishing")
    assert (await watch.read()).status == Status.NOT_SERVING
    corridor.cold.remove("phishing")
    assert (await watch.read()).status == Status.SERVING
    watch.cancel()


@pytest.mark.parametrize("service", ["", "phishing", "nope"])
async def test_a_watcher_is_let_go_when_the_process_drains(health, corridor, service):
    watch = health.Watch(health_pb2.HealthCheckRequest(service=service))
    before = (await watch.read()).status
    corridor.is_ready = False
    if before == Status.SERVING:
        assert (await watch.read()).status == Status.NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_the_service_under_both_names(channel, version):
    ask = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Symbol"),
    ]
    listed, ours, health, unknown = [reply async for reply in ask(iter(requests))]
    assert SERVICE in {one.name for one in listed.list_services_response.service}
    file = FileDescriptorProto.FromString(ours.file_descriptor_response.file_descriptor_proto[0])
    assert "ModelStreamInfer" in {method.name for method in file.service[0].method}
    assert health.file_descriptor_response.file_descriptor_proto
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
