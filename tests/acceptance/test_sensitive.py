"""Sensitive attributes as three people meet them: who asks for predictions, who reads evidence, and who may look at bias. With keys throughout."""

import json

import httpx
import pytest
from deltalake import DeltaTable

from runoff import RequestRefused, Runoff
from tests.acceptance.test_privacy import CANARY, ask, with_text
from tests.kit.gateway import Gateway, route
from tests.kit.plain import PLAIN

pytestmark = pytest.mark.acceptance

FIRST = "bootstrap-" + "0123456789abcdef" * 3
GROUPS = [f"{CANARY}-{group}" for group in ("east", "west")]


class World:
    """A gateway that wants keys on its admin listener, and one client for each person."""

    def __init__(self, folder):
        (folder / "first.key").write_text(FIRST + "\n")
        environ = {"RUNOFF_BOOTSTRAP_KEY_FILE": str(folder / "first.key")}
        self.gateway = Gateway(
            folder, environ=environ, auth={"admin": "keys"}, telemetry={"log_level": "debug"}
        ).start()
        self.operator = Runoff(self.gateway.admin, key=FIRST, timeout_s=60)
        self.operator.apply(
            route(
                "loans",
                ("champion", with_text(folder / "with_text.onnx"), 1),
                unit={"header": "x-runoff-unit"},
                record={"sensitive": ["name"]},
            ),
            reason="first",
        )
        self.reader = self._client("reader", "read", "records:read")
        self.auditor = self._client("auditor", "read:loans", "sensitive:read:loans")
        replies = [ask(self.gateway, "loans", GROUPS[n % 2], 2.0 if n % 4 < 2 else -2.0) for n in range(8)]
        self.ids = [reply.headers["x-prediction-id"] for reply in replies]
        truths = [{"prediction_id": one, "label": 1} for one in self.ids]
        assert httpx.post(f"{self.gateway.rest}/v1/labels", json=truths, timeout=30, verify=PLAIN).status_code == 202
        self.gateway.stored("sensitive", 8)
        self.gateway.stored("predictions", 8)
        self.gateway.stored("labels", 8)

    def _client(self, name, *scopes):
        return Runoff(
            self.gateway.admin, key=self.operator.create_key(name, scopes, reason="test")["key"], timeout_s=60
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("sensitive"))
    yield made
    for client in (made.operator, made.reader, made.auditor):
        client.close()
    made.gateway.stop()


def tables_with(state, text):
    found = set()
    for log in (state / "lake").glob("*/_delta_log"):
        rows = DeltaTable(str(log.parent)).to_pyarrow_dataset().to_table().to_pylist()
        if text in str(rows):
            found.add(log.parent.name)
    return found


def test_attributes_are_in_their_own_table_and_nowhere_else(world):
    state = world.gateway.state
    assert tables_with(state, CANARY) == {"sensitive"}
    # the spool's last segment is deleted once another follows it
    assert {
        path for path in files_with(state, CANARY) if "/lake/sensitive/" not in path and "/spool/" not in path
    } == set()
    assert CANARY not in json.dumps(world.gateway.events)
    rows = world.gateway.lake("SELECT prediction_id, endpoint, attribute_name FROM sensitive ORDER BY received_at")
    assert [(row[0], row[2]) for row in rows] == [(key, GROUPS[n % 2]) for n, key in enumerate(world.ids)]


def files_with(state, text):
    return [str(path) for path in state.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_evidence_by_an_attribute_is_for_who_has_the_scope(world):
    for person in (world.reader, world.operator):
        assert CANARY not in json.dumps(person.quality("loans"))
    with pytest.raises(RequestRefused) as refused:
        world.reader.quality("loans", segment_by="attribute_name")
    assert (refused.value.status, refused.value.code) == (403, "not_allowed")
    (champion,) = world.auditor.quality("loans", segment_by="attribute_name")["subjects"]
    assert {one["segment"]: (one["n"], one["accuracy"]) for one in champion["segments"]} == dict.fromkeys(
        GROUPS, (4, 0.5)
    )
    with pytest.raises(RequestRefused):
        world.auditor.prediction(world.ids[0])


def test_a_single_prediction_does_not_show_them_even_to_who_may_read_it(world):
    told = json.dumps(world.reader.prediction(world.ids[0]))
    assert world.ids[0] in told
    assert CANARY not in told


def test_a_data_set_has_them_on_demand_alone_and_never_in_mlflow(world):
    out = world.gateway.folder / "loans.parquet"
    plain = world.gateway.run("dataset", "loans", "--state-dir", str(world.gateway.state), "--out", str(out))
    assert plain.returncode == 0, plain.stderr
    assert CANARY.encode() not in out.read_bytes()
    options = ("--state-dir", str(world.gateway.state), "--out", str(out), "--with-sensitive")
    whole = world.gateway.run("dataset", "loans", *options)
    assert whole.returncode == 0, whole.stderr
    assert "holds sensitive attributes: name" in whole.stdout
    assert CANARY.encode() in out.read_bytes()
    logged = world.gateway.run("dataset", "loans", *options, "--log-to", "training")
    assert logged.returncode != 0
    assert "--with-sensitive and --log-to" in logged.stderr


def test_a_name_that_is_no_input_is_refused_since_nothing_would_be_kept_apart(world):
    model = with_text(world.gateway.folder / "other.onnx")
    with pytest.raises(RequestRefused) as refused:
        world.operator.apply(route("typo", ("champion", model, 1), record={"sensitive": ["nmae"]}), reason="test")
    assert [(one["path"], one["code"]) for one in refused.value.problems] == [("record.sensitive[0]", "input_unknown")]


def test_who_is_forgotten_leaves_no_attribute(world):
    mark = GROUPS[0]
    reply = world.operator.forget(f"unit-{mark}", reason="asked")
    assert reply["deleted"]["sensitive"] == 4
    assert {row[0] for row in world.gateway.lake("SELECT attribute_name FROM sensitive")} == {GROUPS[1]}
