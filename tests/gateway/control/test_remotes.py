import pytest

from gateway.control.remotes import Remotes
from gateway.settings import Remotes as RemoteSettings
from gateway.settings import Settings
from routing.errors import RouteInvalid
from routing.validate import validate
from tests.kit.control import ControlPlane, route


def document(endpoint="phishing", **remote):
    remote = {"url": "http://127.0.0.1:9000", "model": "m"} | remote
    return route(endpoint) | {"mirrors": [{"name": "staging", "remote": remote}]}


@pytest.fixture
def problems(tmp_path):
    """Code and path of what stands against a document; the gateway listens on 8080 and 8081 and may call two hosts."""

    def found(document, *others, environ=None, host="127.0.0.1"):
        allowed = RemoteSettings(allow=("127.0.0.1", "localhost", "staging.example"), auth_env=("STAGING_*",))
        settings = Settings(state_dir=str(tmp_path), host=host, remotes=allowed)
        routes = {other["endpoint"]: validate(other) for other in others}
        checked = Remotes(settings, environ or {}, lambda: routes).problems(validate(document))
        assert all(problem.message and problem.remedy for problem in checked)
        return [(problem.path, problem.code) for problem in checked]

    return found


def test_a_remote_that_may_be_called_has_nothing_against_it(problems):
    assert problems(document()) == []
    assert (
        problems(document(url="https://staging.example/base", auth="env:STAGING_KEY"), environ={"STAGING_KEY": "x"})
        == []
    )


@pytest.mark.parametrize("url", ["http://10.0.0.1:80", "http://169.254.169.254", "http://evil.example"])
def test_a_host_that_no_operator_allowed_is_refused(problems, url):
    assert problems(document(url=url)) == [("mirrors[0].remote.url", "remote_not_allowed")]


def test_only_named_variables_leave_the_machine_as_tokens(problems):
    environ = {"STAGING_KEY": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    away = document(url="https://staging.example", auth="env:AWS_SECRET_ACCESS_KEY")
    assert problems(away, environ=environ) == [("mirrors[0].remote.auth", "auth_not_allowed")]
    assert problems(document(auth="env:ANY"), environ={"ANY": "x"}) == []  # it stays on this machine


def test_a_variable_that_is_not_set_is_told_before_the_mirror_fails(problems):
    assert problems(document(auth="env:STAGING_KEY")) == [("mirrors[0].remote.auth", "auth_unset")]


@pytest.mark.parametrize(
    "remote",
    [
        {"url": "http://127.0.0.1:8080"},
        {"url": "http://localhost:8080/"},
        {"url": "http://127.0.0.1:8081", "protocol": "v2-grpc"},
        {"url": "http://localhost:8080/endpoints/phishing", "protocol": "mlflow", "model": "x"},
    ],
)
def test_a_mirror_of_the_endpoint_itself_over_its_own_listener_is_refused(problems, remote):
    assert problems(document(**{"model": "phishing"} | remote)) == [("mirrors[0].remote", "remote_cycle")]


def test_a_cycle_over_other_endpoints_is_refused_and_a_chain_is_not(problems):
    here = "http://127.0.0.1:8080"
    back = document("b", url=here, model="c"), document("c", url=here, model="phishing")
    onward = document("b", url=here, model="c"), document("c", url=here, model="d"), route("d")
    beside = document("b", url=here, model="c"), document("c", url=here, model="b")  # not through this endpoint
    mine = document(url=here, model="b")
    assert problems(mine, *back) == [("mirrors[0].remote", "remote_cycle")]
    assert problems(mine, *onward) == []
    assert problems(mine, *beside) == []


def test_a_listener_on_every_address_is_met_over_loopback_too(problems):
    assert problems(document(url="http://127.0.0.1:8080", model="phishing"), host="0.0.0.0")  # a setting
    assert not problems(document(url="http://127.0.0.1:8080", model="phishing"), host="10.1.1.1")


async def test_a_write_and_a_plan_both_say_it(tmp_path):
    async with ControlPlane(tmp_path / "var") as plane:
        away = document(url="http://evil.example")
        with pytest.raises(RouteInvalid, match=r"remotes\.allow"):
            await plane.put(away)
        plan = await plane.planner.plan("phishing", away)
        assert [problem.code for problem in plan["problems"]] == ["remote_not_allowed"]
        assert plane.store.endpoints() == []
