"""Triton's repository extension and versions in the path, over REST and gRPC, on a gateway of two workers with a real registry."""

import json

import grpc
import httpx
import pytest

from gateway.rpc import open_inference_pb2 as pb
from tests.kit.gateway import Gateway, eventually, infer_body, infer_call, route, rpc_request
from tests.kit.plain import PLAIN
from tests.kit.registry import NAME

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(300)]

CHAMPION = f"models:/{NAME}@champion"
SERVICE = "/inference.GRPCInferenceService/"


class Served:
    def __init__(self, gateway, registry):
        registry.point("champion", "1")
        self.gateway = gateway
        self.gateway.apply(route(NAME, ("champion", CHAMPION, 1), allow_pin=True, follow="ignore"))
        made = self.gateway.run("keys", "create", "ci", "-s", f"model:write:{NAME}", "-m", "test", "--json")
        assert made.returncode == 0, made.stderr
        self.key = json.loads(made.stdout)["key"]
        eventually(lambda: self.load(key=self.key, pins=[]).status_code == 200)

    def load(self, *, key=None, pins=None, verb="load", model=NAME, **parameters):
        if pins is not None:
            parameters["config"] = json.dumps({"version_policy": {"specific": {"versions": pins}}})
        headers = {} if key is None else {"x-api-key": key}
        url = f"{self.gateway.rest}/v2/repository/models/{model}/{verb}"
        return httpx.post(url, json={"parameters": parameters}, headers=headers, timeout=120, verify=PLAIN)

    def call(self, method, request, reply, **metadata):
        with self.gateway.channel() as channel:
            call = channel.unary_unary(
                SERVICE + method,
                request_serializer=type(request).SerializeToString,
                response_deserializer=reply.FromString,
            )
            return call(request, timeout=120, metadata=list(metadata.items()))

    def asked(self, version):
        """A request by version in the path, on a connection of its own: any worker may get it."""
        url = f"{self.gateway.rest}/v2/models/{NAME}/versions/{version}/infer"
        return httpx.post(url, json=infer_body([[1, 1, 1, 1]]), timeout=20, verify=PLAIN)

    def index(self):
        rows = httpx.post(f"{self.gateway.rest}/v2/repository/index", timeout=20, verify=PLAIN).json()
        return {row["version"]: row["state"] for row in rows if row["name"] == NAME}

    def champion(self):
        return self.gateway.infer(NAME, [[1, 1, 1, 1]]).headers["x-runoff-model"].rpartition("/")[2]


@pytest.fixture(scope="module")
def served(tmp_path_factory, registry):
    folder = tmp_path_factory.mktemp("repository")
    with Gateway(folder, workers=2, registry_uri=registry.uri, registry_poll_s=3600) as gateway:
        yield Served(gateway, registry)


def test_loading_needs_a_key_that_may(served):
    for verb in ("load", "unload"):
        refused = served.load(verb=verb)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    with pytest.raises(grpc.RpcError) as error:
        served.call(
            "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=NAME), pb.RepositoryModelLoadResponse
        )
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_load_resolves_the_alias_now_as_a_revision_of_the_key(served, registry):
    registry.point("champion", "2")
    assert served.champion() == "1"  # the route ignores aliases; only the load asks
    loaded = served.load(key=served.key)
    assert (loaded.status_code, loaded.content) == (200, b"")
    assert served.champion() == "2"
    newest = served.gateway.client.history(NAME)[0]
    assert newest["action"] == "load"
    assert newest["author"].startswith("key:ci/")


def test_a_version_policy_warms_versions_that_the_path_can_name(served):
    assert served.asked("4").status_code == 404
    assert served.load(key=served.key, pins=[3, 4]).status_code == 200
    for version in ("3", "4"):
        for _ in range(6):  # both workers
            reply = served.asked(version)
            assert reply.status_code == 200, reply.text
            assert reply.headers["x-runoff-model"].endswith(f"/{version}")
    with served.gateway.channel() as channel:
        reply = infer_call(channel)(rpc_request(NAME, [[1, 1, 1, 1]], model_version="4"), timeout=20)
    assert reply.model_version == "4"
    assert {version: served.index()[version] for version in ("3", "4")} == {"3": "READY", "4": "READY"}
    served.gateway.client.set_weights(NAME, {"champion": 5}, reason="pins go along")
    assert served.asked("3").status_code == 200
    config = served.gateway.http.get(f"/v2/models/{NAME}/config").json()
    assert {3, 4} <= set(config["version_policy"]["specific"]["versions"])
    assert served.load(key=served.key, pins=[]).status_code == 200
    eventually(lambda: served.asked("4").status_code == 404)


def test_what_cannot_be_loaded_or_unloaded_is_refused_and_changes_nothing(served):
    before = served.champion()
    for parameters in (
        {"pins": [99]},
        {"pins": [5]},  # takes other inputs
        {"file:1/model.onnx": "AAAA"},
        {"config": '{"backend": "onnxruntime"}'},
    ):
        refused = served.load(key=served.key, **parameters)
        assert (refused.status_code, refused.json()["code"]) == (400, "load_refused"), (parameters, refused.text)
    refused = served.load(key=served.key, verb="unload")
    assert (refused.status_code, refused.json()["code"]) == (400, "load_refused")
    assert served.load(key=served.key, model="nobody").status_code == 403  # the key is for one endpoint
    assert served.champion() == before


def test_the_same_over_grpc(served):
    request = pb.RepositoryModelLoadRequest(model_name=NAME)
    request.parameters["config"].string_param = json.dumps({"version_policy": {"specific": {"versions": [3]}}})
    served.call("RepositoryModelLoad", request, pb.RepositoryModelLoadResponse, authorization=f"Bearer {served.key}")
    index = served.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True), pb.RepositoryIndexResponse)
    assert (NAME, "3", "READY") in {(one.name, one.version, one.state) for one in index.models}
    unload = pb.RepositoryModelUnloadRequest(model_name=NAME)
    with pytest.raises(grpc.RpcError) as error:
        served.call("RepositoryModelUnload", unload, pb.RepositoryModelUnloadResponse, **{"x-api-key": served.key})
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_server_lists_the_extension(served):
    assert "model_repository" in served.gateway.http.get("/v2").json()["extensions"]


def test_statistics_are_those_of_all_workers(served):
    def count():
        stats = httpx.get(f"{served.gateway.rest}/v2/models/{NAME}/stats", timeout=20, verify=PLAIN).json()[
            "model_stats"
        ]
        return sum(one["inference_count"] for one in stats)

    before = count()
    for _ in range(20):  # a connection each, so that both workers get some
        assert (
            httpx.post(
                f"{served.gateway.rest}/v2/models/{NAME}/infer",
                json=infer_body([[1, 1, 1, 1]] * 3),
                timeout=30,
                verify=PLAIN,
            ).status_code
            == 200
        )
    assert {count() for _ in range(8)} == {before + 60}  # whichever worker is asked


def test_without_control_what_is_loaded_goes_on_and_a_load_says_so(served):
    served.gateway.kill("control")
    refused = served.load(key=served.key)
    assert refused.status_code in {200, 503}  # control is back within a second, and may be already
    assert served.champion()
    eventually(lambda: served.load(key=served.key).status_code == 200, 60)
