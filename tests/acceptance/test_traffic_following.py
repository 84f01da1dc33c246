"""The registry's aliases move, people promote and roll back, processes restart: what is served is what the contract says, at each step."""

import time

import pytest

from tests.kit.gateway import Gateway, eventually, route
from tests.kit.registry import NAME, MlflowServer, Registry

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(300)]

SECRET = "between registry and gateway"
CHAMPION = f"models:/{NAME}@champion"
CHALLENGER = f"models:/{NAME}@challenger"


def document(follow, challenger=True):
    variants = [("champion", CHAMPION, 1), *([("challenger", CHALLENGER, 0)] if challenger else [])]
    return route(NAME, *variants, follow=follow, allow_pin=True)


def served(gateway):
    """Who answers, asked as any application would."""
    reply = gateway.infer(NAME, [[1, 1, 1, 1]])
    assert reply.status_code == 200, reply.text
    return reply.headers["x-runoff-model"].rpartition("/")[2]


def following(gateway):
    return gateway.client.route(NAME)["status"]["following"]


def in_time(gateway, version, within_s=60):
    """A control process that has just started imports MLflow before its first look: 3 s alone, 15 s and more on a busy machine."""
    eventually(lambda: served(gateway) == version, within_s)


@pytest.fixture
def gateway(tmp_path, registry):
    registry.point("champion", "1")
    registry.point("challenger", "2")
    with Gateway(tmp_path, registry_uri=registry.uri, registry_poll_s=0.3) as running:
        yield running


def test_promote_alias_moves_rollback_and_restart_leave_what_the_contract_says(gateway, registry):
    gateway.apply(document("auto"))
    assert served(gateway) == "1"

    gateway.client.promote(NAME, variant="challenger", reason="better")
    assert served(gateway) == "2"
    eventually(lambda: registry.alias("champion") == "2")  # the alias follows the promotion
    assert gateway.client.route(NAME)["status"]["weights"] == {"champion": 1, "challenger": 0}

    registry.point("champion", "3")  # forth, and control dies over it
    gateway.kill("control")
    in_time(gateway, "3")
    eventually(lambda: gateway.is_managed)
    registry.point("champion", "2")  # and back
    in_time(gateway, "2")

    gateway.client.rollback(NAME, reason="worse")
    assert served(gateway) == "3"
    assert following(gateway)["state"] == "paused"
    assert registry.alias("champion") == "2"  # the alias stays where it is

    assert gateway.stop() == 0
    gateway.start()
    assert served(gateway) == "3"
    assert following(gateway)["state"] == "paused"

    registry.point("champion", "4")  # moved again: the pause is over
    in_time(gateway, "4")
    authors = [row["author"] for row in gateway.client.history(NAME)]
    assert authors[0] == "system:follow"
    assert authors.count("system:follow") == 3

    gateway.client.rollback(NAME, reason="worse again", move_alias=True)
    assert served(gateway) == "3"
    eventually(lambda: registry.alias("champion") == "3")
    eventually(lambda: following(gateway)["state"] == "current")


def test_a_proposal_is_shown_everywhere_and_taken_by_one_command(gateway, registry, tmp_path):
    gateway.apply(document("propose"))
    registry.point("champion", "3")
    eventually(lambda: (following(gateway)["summary"] or "").endswith("(passes)"), 60)
    assert served(gateway) == "1"
    for command in (("routes",), ("status", "--once")):
        assert "proposed: champion 1 → 3" in " ".join(gateway.run(*command).stdout.split())
    done = gateway.run("follow", NAME, "-m", "it passes")
    assert done.returncode == 0, done.stderr
    assert "is live" in done.stdout
    assert served(gateway) == "3"
    nothing = gateway.run("follow", NAME, "-m", "again")
    assert nothing.returncode == 1
    assert "every alias names the version that is served" in nothing.stderr


def test_a_version_that_does_not_fit_keeps_the_old_one_serving_and_says_why(gateway, registry):
    gateway.apply(document("auto"))
    registry.point("champion", "5")
    eventually(lambda: following(gateway)["state"] == "refused", 60)
    assert served(gateway) == "1"
    assert "FP32 [-1, 4], model wants FP32 [-1, 3]" in following(gateway)["problems"][0]["message"]
    seen = len(gateway.client.history(NAME))
    time.sleep(1.5)  # five looks
    assert len(gateway.client.history(NAME)) == seen  # it is not tried again
    assert gateway.run("follow", NAME, "-m", "meant so").returncode == 1
    assert served(gateway) == "1"


def test_a_registry_that_is_down_changes_nothing_and_a_rollback_needs_none(tmp_path):
    with MlflowServer(tmp_path / "server") as server:
        registry = Registry(tmp_path / "client", server.uri)
        registry.register(1.0)
        registry.register(2.0)
        with Gateway(
            tmp_path, registry_uri=server.uri, registry_poll_s=3600, webhook_secret=SECRET, webhook_port=0
        ) as gateway:
            registry.client.create_webhook(
                name="runoff",
                url=f"{gateway.client.status()['listeners']['webhook']}/admin/v1/webhooks/mlflow",
                events=["model_version_alias.created"],
                secret=SECRET,
            )
            registry.point("champion", "1")
            gateway.apply(document("auto", challenger=False))
            assert served(gateway) == "1"
            began = time.monotonic()
            registry.point("champion", "2")  # no poll for an hour: only the webhook tells
            in_time(gateway, "2")
            print(f"\nalias move to the first answer of the new version, by webhook: {time.monotonic() - began:.2f} s")
            server.stop()
            gateway.client.resume(NAME, reason="look now")
            eventually(lambda: gateway.client.status()["registry"]["problem"], 60)
            assert served(gateway) == "2"
            gateway.client.rollback(NAME, reason="worse")
            assert served(gateway) == "1"
