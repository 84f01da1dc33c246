import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.scopes import EVERYTHING, SCOPES, Grant, Grants, ScopeInvalid

GRANTS = st.builds(Grant, st.sampled_from(SCOPES), st.none() | st.from_regex(r"[ab]{1,3}\*?", fullmatch=True))


@pytest.mark.parametrize(
    ("text", "endpoint", "is_allowed"),
    [
        ("predict", "phishing", True),
        ("predict:phishing", "phishing", True),
        ("predict:phishing", "phishing2", False),
        ("predict:ph*", "phishing", True),
        ("predict:ph*", "spam", False),
        ("predict:*", "spam", True),
        ("label", "phishing", False),
        ("records:read:phishing", "phishing", False),
    ],
)
def test_a_grant_is_for_its_scope_and_its_endpoints_alone(text, endpoint, is_allowed):
    assert Grants.parse([text]).allow("predict", endpoint) is is_allowed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "predikt",
        "predict:",
        "predict:a b",
        "predict:*a",
        "predict:a*b",
        "keys:write:phishing",
        "records",
        "Predict",
        "*",
    ],
)
def test_text_that_is_no_scope_is_refused(text):
    with pytest.raises(ScopeInvalid):
        Grant.parse(text)


@pytest.mark.parametrize("scope", SCOPES)
def test_every_scope_reads_back_as_it_is_written(scope):
    assert str(Grant.parse(scope)) == scope


def test_a_grant_for_one_endpoint_is_none_for_what_is_about_all():
    grants = Grants.parse(["read:phishing"])
    assert grants.allow_some("read")
    assert not grants.allow_all("read")
    assert EVERYTHING.allow_all("read")


@given(GRANTS, GRANTS, st.from_regex(r"[ab]{1,4}", fullmatch=True))
def test_what_covers_a_grant_reaches_every_endpoint_that_it_reaches(mighty, other, endpoint):
    if mighty.covers(other) and other.is_for(endpoint):
        assert mighty.is_for(endpoint)


@given(GRANTS)
def test_every_grant_covers_itself_and_everything_covers_it(grant):
    assert grant.covers(grant)
    assert EVERYTHING.missing([grant]) == []


def test_what_is_missing_is_named():
    own = Grants.parse(["predict:ph*", "read"])
    wanted = [Grant.parse(text) for text in ("predict:phishing", "predict", "read:spam", "label:phishing")]
    assert list(map(str, own.missing(wanted))) == ["predict", "label:phishing"]
