import json
from pathlib import Path

import httpx
import pytest

from gateway.commands.apply import apply_all
from runoff import GatewayUnreachable, Runoff
from tests.kit.control import ServedControlPlane, route

FILE = Path("route.yaml")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with ServedControlPlane(tmp_path_factory.mktemp("plane") / "var") as plane:
        yield plane


@pytest.fixture
def client(served):
    with Runoff(served.url) as opened:
        yield opened


@pytest.fixture
def apply(client):
    def act(*documents, dry_run=False, as_json=False):
        files = [(FILE, document) for document in documents]
        return apply_all(client, files, reason="why", wait_s=10, dry_run=dry_run, as_json=as_json)

    return act


def pair(endpoint, champion=1, challenger=1, version="1"):
    arms = {"champion": (f"models:/phishing/{version}", champion), "challenger": ("models:/phishing/2", challenger)}
    return route(endpoint, **arms)


def test_only_what_differs_is_changed(apply, client, capsys):
    assert apply(pair("same"))
    assert "same: revision" in capsys.readouterr().out
    before = len(client.history("same"))
    assert apply(pair("same"), pair("fresh"))
    shown = capsys.readouterr().out
    assert "same: unchanged" in shown
    assert "fresh: revision" in shown
    assert len(client.history("same")) == before


def test_a_document_that_is_refused_does_not_stop_those_after_it(apply, client, capsys):
    bad = pair("bad") | {"colour": "red"}
    lost = pair("lost", version="77")
    assert not apply(bad, lost, pair("good"))
    shown = capsys.readouterr().out
    assert "bad: refused" in shown
    assert "colour" in shown
    assert "lost: refused" in shown
    assert {"bad", "lost", "good"} & {one["endpoint"] for one in client.routes()} == {"good"}


def test_a_dry_run_says_what_would_be_and_changes_nothing(apply, client, capsys):
    assert apply(pair("dry", 3, 1))
    capsys.readouterr()
    assert apply(pair("dry", 1, 1), pair("unborn"), dry_run=True)
    shown = capsys.readouterr().out
    assert "dry: planned" in shown
    plan = client.plan(pair("dry", 1, 1))
    assert plan["moved"] == pytest.approx(0.25, abs=0.01)
    assert f"{plan['moved']:.1%} of units move" in shown
    assert f"    {plan['moved']:.1%} champion → challenger\n" in shown
    dry, unborn = shown.split("unborn: planned")
    assert "model of champion: phishing/1: to be loaded" in unborn  # it is staged for another endpoint
    assert "model of" not in dry
    now, then = plan["shares_now"]["champion"], plan["shares"]["champion"]
    assert f"shares: champion {now:.1%} → {then:.1%}  " in shown
    assert [one["weights"] for one in client.routes() if one["endpoint"] == "dry"] == [{"champion": 3, "challenger": 1}]
    assert "unborn" not in {one["endpoint"] for one in client.routes()}


def test_a_dry_run_of_a_bad_document_fails_with_its_problems(apply, capsys):
    assert not apply(pair("bad", version="77"), dry_run=True)
    assert "variants[0].model: " in capsys.readouterr().out


def test_a_document_that_json_cannot_carry_is_told_everything_that_is_wrong_with_it(apply, client, capsys):
    assert not apply(pair("bad", champion=float("nan"), challenger=-1), pair("after"))
    shown = capsys.readouterr().out
    assert "bad: refused: this cannot be sent as JSON" in shown
    assert "variants[0].weight: wanted 0 to" in shown
    assert "variants[1].weight: wanted 0 to" in shown
    assert "after: revision" in shown


def test_problems_come_with_their_remedy_in_a_dry_run_too(apply, capsys):
    assert not apply(pair("bad", version="77"), dry_run=True)
    assert "registry_uri" in capsys.readouterr().out


def test_for_programs_every_document_is_one_entry_with_its_file(apply, capsys):
    assert not apply(pair("told"), pair("bad") | {"colour": "red"}, as_json=True)
    good, bad = json.loads(capsys.readouterr().out)
    assert (good["file"], good["endpoint"], good["state"]) == (str(FILE), "told", "live")
    assert (bad["state"], bad["code"], bad["problems"][0]["path"]) == ("refused", "route_invalid", "colour")


def test_without_a_gateway_nothing_is_tried(capsys):
    def unanswered(request):
        raise httpx.ConnectError("refused", request=request)

    transport = httpx.MockTransport(unanswered)
    with Runoff("http://127.0.0.1:1", transport=transport) as client, pytest.raises(GatewayUnreachable):
        apply_all(client, [(FILE, pair("a"))], reason="x", wait_s=1, dry_run=False, as_json=False)
    assert capsys.readouterr().out == ""


def test_a_dry_run_notes_what_is_known_to_stand_against_a_version(apply, served, capsys):
    document = route("noted", champion=("models:/noted@champion", 1))
    served.shelf.publish("noted", "1", alias="champion")
    assert apply(document)
    served.shelf.publish("noted", "2", inputs=("x", "extra"), alias="champion")
    served.look()
    served.rehearsed()
    capsys.readouterr()
    apply(document, dry_run=True)
    shown = capsys.readouterr().out
    assert "noted/2 now (was noted/1)" in shown
    assert "note: variants[0].model" in shown
