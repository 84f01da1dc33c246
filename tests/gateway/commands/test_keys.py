import json

import pytest

from gateway.commands.keys import seconds_of
from gateway.commands.talk import CommandFailed
from gateway.keys.key import id_of
from tests.kit.gateway import run


@pytest.fixture
def keys(tmp_path):
    """`runoff keys … --local` on a state directory of its own."""

    def act(verb, *arguments):
        return run("keys", verb, *arguments, "--local", "--state-dir", str(tmp_path / "var"), cwd=tmp_path)

    return act


def test_the_first_key_needs_no_gateway_and_may_do_everything(keys, tmp_path):
    done = keys("create")
    assert done.returncode == 0, done.stderr
    key = done.stdout.strip()
    assert id_of(key) is not None, "the key alone is on standard output, so that it can be piped"
    assert "keys:write" in done.stderr
    (row,) = json.loads(keys("list", "--json").stdout)
    assert (row["id"], row["state"], row["created_by"].split(":")[0]) == (id_of(key), "good", "local")
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "var").iterdir())


def test_a_key_is_rotated_into_a_file_and_revoked(keys, tmp_path):
    made = json.loads(
        keys("create", "app", "-s", "predict:phishing", "--expires", "90d", "--rate", "5", "--json").stdout
    )
    done = keys("rotate", made["id"], "-m", "old", "--overlap", "30m", "--out", str(tmp_path / "app.key"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    path = tmp_path / "app.key"
    assert (id_of(path.read_text().strip()) is not None, path.stat().st_mode & 0o777) == (True, 0o600)
    done = keys("revoke", made["id"], "-m", "leaked")
    assert "is revoked" in done.stdout
    rows = json.loads(keys("list", "--json").stdout)
    assert {row["id"]: row["state"] for row in rows}[made["id"]] == "revoked"
    assert "app" in keys("list").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "a b"], "name: wanted"),
        (["create", "a", "-s", "fly"], "unknown scope"),
        (["create", "a", "--expires", "soon"], "wanted a duration"),
        (["create", "a", "--out", "no/such/folder"], "a folder that exists"),
        (["revoke", "0" * 12, "-m", "x"], "no key of this id"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(keys, arguments, words):
    done = keys(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_key_over_the_network_needs_scopes(tmp_path):
    done = run("keys", "create", "app", "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert (done.returncode, "wanted --scope" in done.stderr) == (1, True)


def test_durations_are_plain():
    assert [seconds_of(text) for text in ("90d", "12h", "30m", "0s", None)] == [7776000, 43200, 1800, 0, None]
    for text in ("", "1", "-1h", "1.5h", "1w"):
        with pytest.raises(CommandFailed):
            seconds_of(text)
