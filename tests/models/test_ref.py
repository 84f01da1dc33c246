"""References: one canonical spelling each, and refusals that carry their remedy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ReferenceInvalid
from models.ref import ModelRef, parse_ref


@pytest.mark.parametrize(
    ("text", "kind", "name", "detail", "canonical"),
    [
        ("models:/phishing/3", "version", "phishing", "3", "models:/phishing/3"),
        ("models:/phishing/007", "version", "phishing", "7", "models:/phishing/7"),
        ("models:/main.team.churn/12", "version", "main.team.churn", "12", "models:/main.team.churn/12"),
        ("models:/my model@champion", "alias", "my model", "champion", "models:/my model@champion"),
        ("models:/a@b@champion", "alias", "a@b", "champion", "models:/a@b@champion"),
        ("models:/m-0a1b2c", "model_id", "m-0a1b2c", "", "models:/m-0a1b2c"),
        ("models:/m-0a1b2c/2", "version", "m-0a1b2c", "2", "models:/m-0a1b2c/2"),
        ("runs:/0123abc/model", "run", "0123abc", "model", "runs:/0123abc/model"),
        ("runs:/0123abc/deep//model/", "run", "0123abc", "deep/model", "runs:/0123abc/deep/model"),
        ("file:///srv/models/iris", "file", "/srv/models/iris", "", "file:///srv/models/iris"),
        ("file:///srv/my%20model", "file", "/srv/my model", "", "file:///srv/my%20model"),
        ("/srv/models/iris/", "file", "/srv/models/iris", "", "file:///srv/models/iris"),
        ("./models/iris", "file", "models/iris", "", "./models/iris"),
        ("iris.onnx", "file", "iris.onnx", "", "./iris.onnx"),
    ],
)
def test_a_reference_has_one_canonical_spelling(text: str, kind: str, name: str, detail: str, canonical: str) -> None:
    ref = parse_ref(text)

    assert (ref.kind, ref.name, ref.detail) == (kind, name, detail)
    assert str(ref) == canonical
    assert parse_ref(str(ref)) == ref


@pytest.mark.parametrize("text", ["models:/phishing/latest", "models:/phishing/Production", "models:/phishing@latest"])
def test_latest_and_stages_are_refused_with_the_alias_command(text: str) -> None:
    with pytest.raises(ReferenceInvalid, match=r'set_registered_model_alias\("phishing", "champion", <version>\)'):
        parse_ref(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "models:phishing/1",
        "models://host/phishing/1",
        "models:/phishing",
        "models:/phishing/0",
        "models:/phishing/1/extra",
        "models:/phishing@",
        "models:/@champion",
        "runs:/abc",
        "runs:/abc/../secrets",
        "file://elsewhere/srv/model",
        "file:///",
        "s3://bucket/model",
        "phishing",
        "a\nb/c",
        "file:///a%00b",
        "x" * 5000,
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ReferenceInvalid, match="model"):
        parse_ref(text)


def test_a_bare_word_is_refused_with_both_spellings_it_may_mean() -> None:
    with pytest.raises(ReferenceInvalid, match=r"models:/phishing@champion .* \./phishing"):
        parse_ref("phishing")


@given(st.text(max_size=60) | st.text(max_size=60).map("models:/".__add__) | st.text(max_size=60).map("runs:/".__add__))
def test_any_text_is_either_refused_or_spelled_so_that_it_reads_back(text: str) -> None:
    try:
        ref = parse_ref(text)
    except ReferenceInvalid:
        return
    assert parse_ref(str(ref)) == ref


def test_aliases_and_files_may_change_and_all_else_is_pinned() -> None:
    moving = [
        ref
        for ref in ("models:/a@b", "./a/b", "models:/a/1", "models:/m-1", "runs:/a/b")
        if not parse_ref(ref).is_pinned
    ]

    assert moving == ["models:/a@b", "./a/b"]


def test_a_reference_is_hashable() -> None:
    assert {parse_ref("models:/a/1"), ModelRef(kind="version", name="a", detail="1")} == {parse_ref("models:/a/01")}
