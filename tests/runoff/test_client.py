from datetime import UTC, datetime

import httpx
import numpy as np
import pytest

from runoff import GatewayUnreachable, NotSendable, RequestRefused, Runoff, RunoffError
from tests.kit.control import ServedControlPlane, route

SPLIT = {"champion": ("models:/phishing@champion", 90), "challenger": ("models:/phishing@challenger", 10)}


@pytest.fixture
def served(tmp_path):
    with ServedControlPlane(tmp_path / "var") as plane:
        yield plane


@pytest.fixture
def client(served):
    with Runoff(served.url) as opened:
        yield opened


@pytest.fixture
def made(client):
    return client.apply(route(**SPLIT), reason="new")


def test_a_document_is_applied_once_and_then_unchanged(client):
    first = client.apply(route(**SPLIT), reason="new")
    assert (first["state"], first["revision"]) == ("live", 1)
    assert first["changes"][0] == "new endpoint"
    again = client.apply(route(**SPLIT), reason="again")
    assert (again["state"], again["revision"]) == ("unchanged", 1)


def test_rules_in_another_order_are_applied_and_told_by_plan_history_and_audit(client, made):
    first = {"name": "beta", "when": {"header": {"x-cohort": "beta"}}, "variant": "challenger"}
    second = {"name": "robots", "when": {"header": {"x-agent": {"prefix": "robot/"}}}, "variant": "champion"}
    client.apply(route(**SPLIT) | {"rules": [first, second]}, reason="two rules")
    turned = route(**SPLIT) | {"rules": [second, first]}
    wanted = ["rules: order beta, robots → robots, beta"]
    assert client.plan(turned)["changes"] == wanted
    applied = client.apply(turned, reason="robots first")
    assert (applied["state"], applied["changes"]) == ("live", wanted)
    assert [rule["name"] for rule in client.route("phishing")["rules"]] == ["robots", "beta"]
    assert client.history("phishing")[0]["changes"] == wanted
    assert client.audit()[1]["detail"]["changes"] == wanted
    assert client.apply(turned, reason="again")["state"] == "unchanged"


def test_an_alias_that_moved_is_a_change(client, served, made):
    served.shelf.publish("phishing", "3", alias="champion")
    assert client.apply(route(**SPLIT), reason="new champion")["state"] == "live"
    assert client.routes()[0]["versions"]["champion"] == "phishing/3"


def test_a_refused_document_names_every_problem(client):
    with pytest.raises(RequestRefused) as refused:
        client.apply({"endpoint": "phishing", "variants": [], "colour": "red"}, reason="new")
    assert len(refused.value.problems) >= 2
    assert "colour" in str(refused.value)


def test_a_revision_that_fails_is_an_error_with_its_problems(client, served):
    document = route(champion=("models:/phishing/1", 1))
    served.shelf.publish("phishing", "3", inputs=("x", "extra"))
    client.apply(document, reason="new")
    with pytest.raises(RequestRefused, match="extra") as refused:
        client.apply(route(champion=("models:/phishing/3", 1)), reason="needs more")
    assert refused.value.status == 409


def test_split_promote_rollback_and_history(client, made):
    assert client.split("phishing", reason="even", champion=50, challenger=50)["weights"] == {
        "champion": 50,
        "challenger": 50,
    }
    assert client.promote("phishing", variant="challenger", reason="better")["state"] == "live"
    assert client.route("phishing")["status"]["versions"]["champion"] == "phishing/2"
    assert client.rollback("phishing", reason="worse")["state"] == "live"
    history = client.history("phishing")
    assert [row["action"] for row in history] == ["rollback", "promote", "weights", "put"]
    assert client.audit()[0]["action"] == "live"


def test_the_history_of_all_endpoints_and_the_audit_of_one(client, made):
    client.apply(route("other", champion=("models:/phishing/1", 1)), reason="second")
    assert {row["endpoint"] for row in client.history()} >= {"phishing", "other"}
    assert {row["endpoint"] for row in client.audit("other")} == {"other"}
    assert client.history().title == client.audit().title == ""


def test_a_changed_past_is_the_title_of_every_history():
    broken = {"intact": False, "broken_at": 3}
    said = {"revisions": [], "rows": [], "audit": broken} | broken
    with Runoff("http://gateway", transport=httpx.MockTransport(lambda _: httpx.Response(200, json=said))) as client:
        for table in (client.history(), client.history("phishing"), client.audit()):
            assert table.title == "the audit was changed at row 3"


def test_values_of_notebooks_are_sent_as_what_they_look_like_and_others_are_refused(client, made):
    weights = {"champion": np.float32(3), "challenger": np.int64(1)}
    assert client.set_weights("phishing", weights, reason="numpy")["weights"] == {"champion": 3, "challenger": 1}
    until = datetime(2037, 1, 2, tzinfo=UTC)
    client.mirror("phishing", "dated", "models:/phishing/2", reason="a moment", until=until)
    assert client.route("phishing")["mirrors"][0]["until"] == "2037-01-02T00:00:00Z"
    for weight in (float("nan"), object()):
        with pytest.raises(NotSendable, match="cannot be sent as JSON"):
            client.split("phishing", champion=weight, reason="no number")


def test_a_mirror_is_put_up_and_taken_down(client, served, made):
    served.shelf.publish("phishing", "7")
    client.mirror("phishing", "candidate", "models:/phishing/7", sample=0.5, reason="look at it")
    assert client.routes()[0]["mirrors"] == ["candidate"]
    with pytest.raises(RunoffError, match="no mirror 'candidat' to take away; there: candidate"):
        client.mirror("phishing", "candidat", reason="seen enough")
    client.mirror("phishing", "candidate", None, reason="seen enough")
    assert client.routes()[0]["mirrors"] == []


def test_a_mirror_keeps_what_is_not_named(client, served, made):
    def mirror():
        (found,) = client.route("phishing")["mirrors"]
        return {key: found.get(key) for key in ("model", "sample", "priority", "until", "body_bytes_max")}

    served.shelf.publish("phishing", "7")
    more = {"priority": 3, "until": "2037-01-02T00:00:00Z", "body_bytes_max": 4096}
    client.mirror("phishing", "candidate", "models:/phishing/2", sample=0.5, reason="look at it", **more)
    client.mirror("phishing", "candidate", sample=0.25, reason="less of it")
    assert mirror() == {"model": "models:/phishing/2", "sample": 0.25} | more
    client.mirror("phishing", "candidate", "models:/phishing/7", reason="the next one")
    assert mirror() == {"model": "models:/phishing/7", "sample": 0.25} | more
    client.mirror("phishing", "candidate", until=None, reason="for good")
    assert mirror() == {"model": "models:/phishing/7", "sample": 0.25} | more | {"until": None}


def test_another_server_keeps_nothing_of_the_one_before_and_the_same_one_what_is_not_named(client, made):
    def remote():
        (found,) = client.route("phishing")["mirrors"]
        return found.get("model"), found.get("remote")

    here = {"url": "http://127.0.0.1:9000", "model": "theirs", "protocol": "mlflow"}
    client.mirror("phishing", "staging", remote=here, sample=0.5, reason="elsewhere")
    client.mirror("phishing", "staging", remote={"url": here["url"], "model": "next"}, reason="their next one")
    assert remote() == (None, here | {"model": "next"})
    client.mirror("phishing", "staging", remote={"url": "http://127.0.0.1:9001", "model": "x"}, reason="moved")
    assert remote() == (None, {"url": "http://127.0.0.1:9001", "model": "x", "protocol": "v2"})
    client.mirror("phishing", "staging", "models:/phishing/2", reason="here now")
    assert remote() == ("models:/phishing/2", None)
    assert client.route("phishing")["mirrors"][0]["sample"] == 0.5


def test_what_an_alias_proposes_is_shown_and_followed(client, served, made):
    served.shelf.publish("phishing", "3", alias="champion")
    served.look()
    assert client.routes()[0]["following"].startswith("proposed: champion 1 → 3")
    assert client.follow("phishing", reason="it passes")["state"] == "live"
    assert client.route("phishing")["status"]["versions"]["champion"] == "phishing/3"
    client.rollback("phishing", reason="worse")
    served.look()
    assert client.routes()[0]["following"].startswith("paused")
    assert client.resume("phishing", reason="go on")["state"] == "resumed"


def test_an_endpoint_can_be_deleted(client, made):
    client.delete("phishing", reason="over")
    assert list(client.routes()) == []


def test_tables_look_like_tables_in_notebooks_and_terminals(client, made):
    table = client.routes()
    assert "<td>phishing</td>" in table._repr_html_()
    assert "<script>" not in client.history("phishing")._repr_html_()
    assert str(table).splitlines()[0].startswith("endpoint")
    assert "revision" in made._repr_html_()


def test_values_are_escaped_in_notebooks(client):
    client.apply(route(**SPLIT), reason="<script>alert(1)</script>")
    assert "<script>" not in client.history("phishing")._repr_html_()


def test_names_that_are_no_path_stay_one_part_of_it(client):
    with pytest.raises(RequestRefused) as refused:
        client.route("../audit")
    assert refused.value.status == 404


def test_nobody_there_is_said_in_one_line():
    with Runoff("http://127.0.0.1:9") as client, pytest.raises(GatewayUnreachable, match="runoff serve"):
        client.routes()


def test_something_else_there_is_said_too():
    def answer(_request):
        return httpx.Response(404, text="<html>nothing here</html>")

    refused = pytest.raises(RequestRefused, match="is this a Runoff admin listener")
    with Runoff("http://other", transport=httpx.MockTransport(answer)) as client, refused:
        client.routes()


def test_labels_are_sent_in_portions_and_their_answers_added_up(monkeypatch):
    sent = []

    def answer(request):
        sent.append(len(request.read()))
        rejected = [{"index": 1, "code": "row_missing", "message": "row is required"}]
        return httpx.Response(202, json={"accepted": 9_999, "rejected": rejected})

    from runoff.transport import Transport

    client = Runoff("http://admin", data_url="http://data")
    client._data = Transport("http://data", transport=httpx.MockTransport(answer))
    told = client.label({"prediction_id": str(number), "label": 1} for number in range(20_000))
    assert len(sent) == 2
    assert told["accepted"] == 19_998
    assert [row["index"] for row in told["rejected"]] == [1, 10_001]
    client.close()


def test_the_key_goes_with_every_call_and_nowhere_else(monkeypatch):
    seen = []

    def answer(request):
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"routes": []})

    monkeypatch.setenv("RUNOFF_KEY", "secret")
    with Runoff("http://admin", transport=httpx.MockTransport(answer)) as client:
        client.routes()
        assert "secret" not in repr(client)
    assert seen == ["Bearer secret"]


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel", "-----BEGIN CERTIFICATE-----\nMIID"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_repeated(key):
    with pytest.raises(NotSendable) as refused:
        Runoff("http://127.0.0.1:1", key=key)
    assert "is it the right file" in str(refused.value)
    assert key not in str(refused.value)
    assert "MIID" not in str(refused.value)


@pytest.mark.parametrize("url", ["localhost:8090", "nonsense", "ftp://x", "http://"])
def test_what_is_no_address_says_what_one_looks_like(url):
    with pytest.raises(GatewayUnreachable, match="wanted an address such as http://"):
        Runoff(url)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", "SSL_CERT_FILE"),
        ("Server disconnected without sending a response.", "RUNOFF_CLIENT_CERT"),
        ("[SSL: WRONG_VERSION_NUMBER]", "speaks http there"),
        ("Connection refused", "runoff serve"),
    ],
)
def test_a_gateway_that_cannot_be_talked_to_names_the_remedy(said, remedy):
    def refuse(request):
        raise httpx.ConnectError(said)

    with Runoff(transport=httpx.MockTransport(refuse)) as client, pytest.raises(GatewayUnreachable, match=remedy):
        client.routes()


@pytest.mark.parametrize("body", [{"error": "no such path for GET", "code": "not_found"}, {"error": "unknown path"}])
def test_another_listener_of_the_gateway_is_told_from_the_admin_one(body):
    transport = httpx.MockTransport(lambda _: httpx.Response(404, json=body))
    with Runoff(transport=transport) as client, pytest.raises(RequestRefused, match="admin listener"):
        client.routes()


def test_an_endpoint_that_is_not_there_names_the_one_that_was_meant(client, made):
    with pytest.raises(RequestRefused, match="did you mean 'phishing'"):
        client.split("phising", champion=1, reason="typo")
    with pytest.raises(RequestRefused, match="there: phishing"):
        client.rollback("zzz", reason="lost")


def test_a_plan_warns_of_versions_that_a_rollback_left(client, served, made):
    served.shelf.publish("phishing", "3", alias="champion")
    client.apply(route(**SPLIT), reason="new champion")
    assert client.plan(route(**SPLIT))["warnings"] == []
    client.rollback("phishing", reason="worse")
    plan = client.plan(route(**SPLIT))
    assert plan["warnings"][0]["code"] == "rolled_back"
    assert "phishing/3" in plan["warnings"][0]["message"]
    assert plan["shares_now"] == plan["shares"]


def test_weights_that_change_nothing_leave_the_way_back_where_it_was(client, made):
    even = client.split("phishing", champion=50, challenger=50, reason="even")
    again = client.split("phishing", champion=50, challenger=50, reason="twice")
    assert (again["state"], again["revision"], again["changes"]) == ("unchanged", even["revision"], [])
    client.rollback("phishing", reason="back")
    assert client.route("phishing")["status"]["weights"] == {"champion": 90, "challenger": 10}
    with pytest.raises(RequestRefused, match="got no weight"):
        client.split("phishing", reason="none")


def test_a_refused_prediction_says_why():
    from runoff.transport import Transport

    body = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "unknown endpoint 'nope'"}
    client = Runoff("http://admin", data_url="http://data")
    client._data = Transport("http://data", transport=httpx.MockTransport(lambda _: httpx.Response(404, json=body)))
    with client, pytest.raises(RequestRefused, match="unknown endpoint 'nope'") as refused:
        client.predict("nope", {"inputs": [[1.0]]})
    assert (refused.value.status, refused.value.code) == (404, "RESOURCE_DOES_NOT_EXIST")
