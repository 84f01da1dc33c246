import io
import re

import pytest
from rich.console import Console

from gateway.commands.status import once, screen, watch
from runoff import RequestRefused, Runoff
from tests.kit.control import ServedControlPlane, route


class Enough(Exception):
    """Ends a watch."""


@pytest.fixture
def served(tmp_path):
    with ServedControlPlane(tmp_path / "var") as plane:
        yield plane


@pytest.fixture
def client(served):
    with Runoff(served.url) as opened:
        yield opened


def drawn(client):
    console = Console(file=io.StringIO(), width=200)
    console.print(screen(client))
    return console.file.getvalue()


def test_a_new_gateway_says_what_to_do_first(client):
    text = drawn(client)
    assert text.startswith("0 workers")
    assert "http://127.0.0.1:8080" in text
    assert "runoff apply route.yaml" in text


def test_each_endpoint_is_a_line_with_its_shares_and_versions(client):
    client.apply(route(champion=("models:/phishing@champion", 3), challenger=("models:/phishing/2", 1)), reason="new")
    (line,) = [line for line in drawn(client).splitlines() if line.startswith("phishing")]
    share = client.routes()[0]["shares"]["champion"]
    assert line.split()[:6] == ["phishing", "1", "champion", f"{share:.1%}", "challenger", f"{1 - share:.1%}"]
    assert "champion phishing/1, challenger phishing/2" in line


def test_a_change_that_failed_is_told_beside_the_revision_that_stays(client, served):
    client.apply(route(), reason="new")
    served.shelf.publish("phishing", "3", inputs=("x", "extra"))
    with pytest.raises(RequestRefused):
        client.apply(route(champion=("models:/phishing/3", 1)), reason="needs more")
    (line,) = [line for line in drawn(client).splitlines() if line.startswith("phishing")]
    assert line.split()[1] == "1"
    assert "extra" in line


def test_a_revision_on_its_way_stands_beside_the_live_one(client, served):
    client.apply(route(), reason="new")
    served.shelf.publish("phishing", "3")
    served._loop.call_soon_threadsafe(served._plane.fleet.hear, {"event": "workers", "live": ["w"]})
    client.apply(route(champion=("models:/phishing/3", 1)), reason="slow", wait_s=0)
    text = drawn(client)
    assert text.startswith("1 worker ")
    assert re.search(r"^phishing +1 → 2 (pending|loading|warming) ", text, re.MULTILINE)


def test_an_alias_that_waits_for_its_move_and_a_registry_that_is_away_are_shown(client, served):
    client.apply(route(champion=("models:/phishing@champion", 1), challenger=("models:/phishing/2", 1)), reason="new")
    client.promote("phishing", variant="challenger", reason="better")
    served.shelf.is_down = True
    served.look()
    text = drawn(client)
    assert "alias phishing@champion waits to move to version 2: soon" in text
    assert "aliases are not followed now: the registry does not answer" in text
    served.try_alias_move()
    assert "waits to move to version 2: the registry does not answer (1 try)" in drawn(client)
    served.shelf.is_down = False
    served.shelf.aliases["phishing", "champion"] = "3"
    served.shelf.withdraw("phishing", "2")
    served.try_alias_move()
    assert "alias phishing@champion was not moved to version 2: models:/phishing/2: there is no such version" in drawn(
        client
    )


def test_once_prints_the_screen_to_standard_output(client, capsys):
    once(client)
    assert "0 workers" in capsys.readouterr().out


def test_a_watch_outlives_a_gateway_that_goes_away(served, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    turns = []

    def sleep(seconds):
        turns.append(seconds)
        if len(turns) == 1:
            served.__exit__()
        else:
            raise Enough

    with Runoff(served.url, timeout_s=1) as client, pytest.raises(Enough):
        watch(client, every_s=0.5, sleep=sleep)
    assert turns == [0.5, 0.5]
    assert "no gateway answers" in capsys.readouterr().out
