import grpc
import pytest


@pytest.mark.parametrize(
    "method", ["SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings"]
)
async def test_what_the_published_service_has_beyond_ours_is_refused_in_words(channel, method):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "not offered by this server" in caught.value.details()


async def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/inference.GRPCInferenceService/Nope")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
