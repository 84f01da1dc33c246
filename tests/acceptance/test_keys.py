"""A gateway that wants keys, as an operator and two applications meet it: nobody else comes in, and no key stays anywhere."""

import json
import subprocess
import time

import grpc
import httpx
import pytest

from gateway.rpc import open_inference_pb2 as pb
from runoff import RequestRefused, Runoff
from tests.kit import files
from tests.kit.certificates import Certificate
from tests.kit.gateway import CLI, Gateway, environment, eventually, infer_body, infer_call, route, rpc_request, run
from tests.kit.issuer import Issuer, oidc
from tests.kit.plain import PLAIN

pytestmark = pytest.mark.acceptance

ROWS = [[1.0, 2.0, 3.0, 4.0]]
FIRST = "bootstrap-canary-" + "0123456789abcdef" * 3
SERVICE = "/inference.GRPCInferenceService/"


class Keyed:
    """The gateway, the operator's client, and an application's key."""

    def __init__(self, folder, issuer):
        (folder / "first.key").write_text(FIRST + "\n")
        (folder / "jwks.json").write_text(issuer.key_set())
        environ = {
            "RUNOFF_BOOTSTRAP_KEY_FILE": str(folder / "first.key"),
            "RUNOFF_TELEMETRY_LOG_LEVEL": "debug",
            "RUNOFF_AUTH_OIDC_ISSUER": oidc().issuer,
            "RUNOFF_AUTH_OIDC_AUDIENCE": oidc().audience,
            "RUNOFF_AUTH_OIDC_JWKS": str(folder / "jwks.json"),
        }
        self.gateway = Gateway(folder, workers=2, environ=environ, auth={"data": "keys", "admin": "keys"}).start()
        self.operator = Runoff(self.gateway.admin, key=FIRST, timeout_s=60)
        for endpoint in ("phishing", "spam"):
            model = files.binary(folder / f"{endpoint}.onnx")
            self.operator.apply(route(endpoint, ("champion", model, 1)), reason="first")
        self.app = self.key("app", "predict:phishing", "label:phishing")

    def key(self, name, *scopes, **fields):
        return self.operator.create_key(name, scopes, reason="test", **fields)["key"]

    def infer(self, credential, endpoint="phishing", **more):
        headers = {} if credential is None else {"x-api-key": credential}
        url = f"{self.gateway.rest}/v2/models/{endpoint}/infer"
        # A connection of its own: any worker.
        return httpx.post(url, json=infer_body(ROWS, **more), headers=headers, timeout=30, verify=PLAIN)

    def call(self, credential, endpoint="phishing"):
        """The status of a ModelInfer."""
        metadata = () if credential is None else (("authorization", f"Bearer {credential}"),)
        with self.gateway.channel() as channel:
            try:
                infer_call(channel)(rpc_request(endpoint, ROWS), timeout=20, metadata=metadata)
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, issuer):
    made = Keyed(tmp_path_factory.mktemp("keyed"), issuer)
    yield made
    made.operator.close()
    made.gateway.stop()


def test_an_application_comes_in_by_its_key_over_both_protocols_and_nobody_else_does(keyed):
    eventually(lambda: all(keyed.infer(keyed.app).status_code == 200 for _ in range(8)))
    assert keyed.call(keyed.app) is grpc.StatusCode.OK
    for credential, endpoint, status, code in (
        (None, "phishing", 401, grpc.StatusCode.UNAUTHENTICATED),
        ("nonsense", "phishing", 401, grpc.StatusCode.UNAUTHENTICATED),
        (keyed.app, "spam", 403, grpc.StatusCode.PERMISSION_DENIED),
        (keyed.key("reader", "read"), "phishing", 403, grpc.StatusCode.PERMISSION_DENIED),
    ):
        eventually(lambda c=credential, e=endpoint, s=status: keyed.infer(c, e).status_code == s)
        eventually(lambda c=credential, e=endpoint, s=code: keyed.call(c, e) is s)


@pytest.mark.parametrize(
    "call", ["ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"]
)
def test_metadata_over_grpc_wants_a_key_too(keyed, call):
    kind = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[call]
    request = getattr(pb, kind.input_type.name)().SerializeToString()
    with keyed.gateway.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(SERVICE + call)(request, timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_stream_without_a_key_ends_before_its_first_message(keyed):
    messages = [rpc_request("phishing", ROWS).SerializeToString()]
    with keyed.gateway.channel() as channel:
        stream = channel.stream_stream(SERVICE + "ModelStreamInfer")(iter(messages), timeout=20)
        with pytest.raises(grpc.RpcError) as refused:
            next(stream)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_revoked_key_opens_nothing_in_any_worker_a_tenth_of_a_second_later(keyed):
    key = keyed.key("short", "predict")
    eventually(lambda: all(keyed.infer(key).status_code == 200 for _ in range(8)))
    keyed.operator.revoke_key(key.split("_")[1], reason="leaked")
    revoked_at = time.monotonic()
    eventually(lambda: all(keyed.infer(key).status_code == 401 for _ in range(8)))
    print(f"\nevery worker refuses {time.monotonic() - revoked_at:.2f} s after the answer (8 requests included)")


def test_a_quota_is_429_with_the_time_to_wait_on_the_hot_path(keyed):
    key = keyed.key("greedy", "predict", rate_per_s=0.01, burst=1)
    eventually(lambda: keyed.infer(key).status_code != 401)
    replies = [keyed.infer(key) for _ in range(12)]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert sum(reply.status_code == 200 for reply in replies) <= 2, "one a worker at most"
    assert int(refused[0].headers["retry-after"]) > 1
    assert refused[0].headers["x-runoff-reason"] == "key_quota"


def test_a_token_of_the_issuer_is_the_second_way_in(keyed, issuer):
    token = issuer.token(scope="predict:phishing read:phishing")
    eventually(lambda: all(keyed.infer(token).status_code == 200 for _ in range(8)))
    assert keyed.infer(token, "spam").status_code == 403
    assert keyed.infer(issuer.token(exp=1)).status_code == 401
    assert keyed.infer(Issuer().token()).status_code == 401
    with Runoff(keyed.gateway.admin, key=token) as ann:
        assert [row["endpoint"] for row in ann.routes()] == ["phishing"]
        with pytest.raises(RequestRefused, match="no scope route:write"):
            ann.split("phishing", champion=1, reason="no")


def test_labels_are_taken_for_the_endpoints_of_the_key(keyed):
    labels = [{"endpoint": endpoint, "request_id": "r", "label": 1} for endpoint in ("phishing", "spam")]
    url, headers = f"{keyed.gateway.rest}/v1/labels", {"x-api-key": keyed.app}
    assert httpx.post(url, json=labels, timeout=30, verify=PLAIN).status_code == 401
    answer = httpx.post(url, json=labels, headers=headers, timeout=30, verify=PLAIN).json()
    assert answer["accepted"] == 1
    assert [(one["index"], one["code"]) for one in answer["rejected"]] == [(1, "not_allowed")]


def test_the_command_line_makes_lists_and_revokes_keys(keyed):
    def keys(*arguments):
        environ = {"RUNOFF_URL": keyed.gateway.admin, "RUNOFF_KEY": FIRST}
        return subprocess.run(
            [*CLI, "keys", *arguments], capture_output=True, text=True, check=False, env=environment(environ)
        )

    done = keys("create", "shop", "-s", "predict:phishing", "-m", "the shop")
    assert done.returncode == 0, done.stderr
    key = done.stdout.strip()
    eventually(lambda: keyed.infer(key).status_code == 200)
    row = next(row for row in json.loads(keys("list", "--json").stdout) if row["name"] == "shop")
    assert (row["state"], row["created_by"]) == ("good", "key:bootstrap")
    assert keys("revoke", row["id"], "-m", "closed").returncode == 0
    eventually(lambda: keyed.infer(key).status_code == 401)


def test_refusals_are_counted(keyed):
    eventually(lambda: keyed.gateway.metric("runoff_refused_total", reason="unauthenticated") > 0)
    assert keyed.gateway.metric("runoff_refused_total", reason="not_allowed") > 0


def test_no_key_stays_in_a_log_or_on_the_disk(keyed, issuer):
    """The canary: secrets shown in every place where one might come along, then looked for in all that the gateway has written."""
    gateway, token = keyed.gateway, issuer.token(sub="canary")
    wrong = "runoff_0123456789ab_" + "canary-" * 6 + "x"
    for secret in (FIRST, keyed.app, wrong, token):
        for headers in ({"authorization": f"Bearer {secret}"}, {"x-api-key": secret}, {"cookie": f"k={secret}"}):
            for url in (gateway.rest, gateway.admin):
                httpx.get(f"{url}/v2/models/phishing", headers=headers, timeout=30, verify=PLAIN)
                httpx.post(
                    f"{url}/v2/models/phishing/infer", headers=headers, content=b"broken", timeout=30, verify=PLAIN
                )
                httpx.get(f"{url}/admin/v1/routes", headers=headers | {"x-request-id": "r"}, timeout=30, verify=PLAIN)
            httpx.post(
                f"{gateway.rest}/v2/models/phishing/infer",
                headers=headers,
                json=infer_body(ROWS),
                timeout=30,
                verify=PLAIN,
            )
        keyed.call(secret)
    gateway.stored("predictions", 1)
    assert gateway.stop() == 0
    secrets = [one.encode() for one in (FIRST, keyed.app[20:], wrong[20:], token.rpartition(".")[2])]
    written = [path for path in gateway.state.rglob("*") if path.is_file()]
    assert any(path.parent.name == "logs" for path in written)
    places = [str(path) for path in written if any(secret in path.read_bytes() for secret in secrets)]
    said = [line for line in gateway.events if any(secret.decode() in json.dumps(line) for secret in secrets)]
    assert (places, said) == ([], [])


def test_every_listener_speaks_tls_when_it_is_told_to(tmp_path):
    made = Certificate(tmp_path)
    tls = {**made.settings, "listeners": ["rest", "grpc", "admin", "metrics"]}
    gateway = Gateway(tmp_path, environ={"SSL_CERT_FILE": str(made.certificate)}, tls=tls).start(ready=False)
    try:
        assert all(url.startswith("https://127.0.0.1:") for url in (gateway.rest, gateway.admin, gateway.metrics_url))
        with httpx.Client(verify=made.trust, timeout=30) as client:

            def answers(url):
                try:
                    return client.get(url).status_code == 200
                except httpx.TransportError:
                    return False

            eventually(lambda: answers(gateway.metrics_url.replace("/metrics", "/readyz")), 60)
            eventually(lambda: answers(f"{gateway.admin}/admin/v1/runtime"), 60)
            document = route("phishing", ("champion", files.binary(tmp_path / "phishing.onnx"), 1))
            environ = {"RUNOFF_URL": gateway.admin, "SSL_CERT_FILE": str(made.certificate)}
            (tmp_path / "route.json").write_text(json.dumps(document))
            applied = subprocess.run(
                [*CLI, "apply", str(tmp_path / "route.json"), "-m", "first"],
                capture_output=True,
                text=True,
                check=False,
                env=environment(environ),
            )
            assert applied.returncode == 0, applied.stderr
            reply = client.post(f"{gateway.rest}/v2/models/phishing/infer", json=infer_body(ROWS))
            assert reply.status_code == 200, reply.text
        credentials = grpc.ssl_channel_credentials(made.pem)
        with grpc.secure_channel(gateway.rpc.replace("127.0.0.1", "localhost"), credentials) as channel:
            assert infer_call(channel)(rpc_request("phishing", ROWS), timeout=20).model_name == "phishing"
        for url in (gateway.rest, gateway.admin, gateway.metrics_url):
            with pytest.raises(httpx.TransportError):
                httpx.get(url.replace("https://", "http://"), timeout=30)
    finally:
        gateway.stop()


@pytest.mark.parametrize("grpc_door", ["grpcio", "wire"])
def test_with_a_client_authority_nobody_is_heard_without_a_certificate_of_it(tmp_path, grpc_door):
    made = Certificate(tmp_path)
    tls = {**made.settings, "client_ca_file": str(made.certificate)}
    trusting = {"SSL_CERT_FILE": str(made.certificate)}
    gateway = Gateway(tmp_path, environ=trusting, tls=tls, grpc_door=grpc_door).start(ready=False)
    known = made.trust
    known.load_cert_chain(made.both)
    try:
        eventually(lambda: gateway.is_ready, 60)  # probes are plain, and ask for nothing
        with httpx.Client(verify=known, timeout=30) as client:
            for url in (f"{gateway.rest}/v2/health/live", f"{gateway.admin}/admin/v1/runtime"):
                eventually(lambda url=url: _status(client, url) == 200, 60)
                with pytest.raises(httpx.TransportError):
                    httpx.get(url, verify=made.trust, timeout=30)
        shown = run("routes", environ={"RUNOFF_URL": gateway.admin, "RUNOFF_CLIENT_CERT": str(made.both), **trusting})
        assert (shown.returncode, "no routes yet" in shown.stdout) == (0, True), shown.stderr
        bare = run("routes", environ={"RUNOFF_URL": gateway.admin, **trusting})
        assert (bare.returncode, len(bare.stderr.splitlines())) == (1, 1)
        address = gateway.rpc.replace("127.0.0.1", "localhost")
        for credentials, code in (
            (grpc.ssl_channel_credentials(made.pem, made.key.read_bytes(), made.pem), grpc.StatusCode.NOT_FOUND),
            (grpc.ssl_channel_credentials(made.pem), grpc.StatusCode.UNAVAILABLE),
        ):
            with grpc.secure_channel(address, credentials) as channel, pytest.raises(grpc.RpcError) as refused:
                infer_call(channel)(rpc_request("nobody", ROWS), timeout=20)
            assert refused.value.code() is code
    finally:
        gateway.stop()


def _status(client, url):
    try:
        return client.get(url).status_code
    except httpx.TransportError:
        return None


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RUNOFF_BOOTSTRAP_KEY_FILE": "runoff.toml"}, "bootstrap_key_file"),
        ({"RUNOFF_TLS_CERTIFICATE_FILE": "no.crt", "RUNOFF_TLS_KEY_FILE": "no.key"}, "tls.certificate_file"),
        ({"RUNOFF_TLS_CERTIFICATE_FILE": "no.crt"}, "wanted both or none"),
        ({"RUNOFF_AUTH_OIDC_ISSUER": "https://i.test"}, "audience"),
        ({"RUNOFF_HOST": "0.0.0.0"}, "auth.data = 'keys'"),
    ],
)
def test_a_start_that_would_not_be_safe_is_refused_in_one_line(tmp_path, environ, words):
    (tmp_path / "runoff.toml").write_text("rest_port = 0\ngrpc_port = 0\nmetrics_port = 0\nadmin_port = 0\n")
    done = subprocess.run(
        [*CLI, "serve"], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(environ), timeout=60
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
