from gateway.commands.talk import about, change_lines, few, show_table
from runoff import Table


def test_a_line_of_the_audit_says_what_it_was_about_without_digests():
    assert about({"from": 3, "changes": ["variants.champion.weight: 90 → 80"]}) == "variants.champion.weight: 90 → 80"
    live = {"replaced": 3, "models": {"champion": "phishing/2"}, "split_sha256": "ab" * 32}
    assert about(live) == "champion phishing/2"
    assert about({"problems": [{"path": "variants[0].model", "message": "no such model"}]}) == "no such model"
    assert about({"key": "05d6", "name": "shop", "scopes": ["predict"]}) == "key 05d6, name shop, scopes predict"
    assert about({}) == ""


def test_a_cell_has_few_lines_and_says_how_many_it_leaves_out():
    assert few(["a", "b"]) == "a\nb"
    assert few(list("abcdef")) == "a\nb\nc\nd\n… and 2 more"


def test_moments_are_shown_as_people_read_them(capsys):
    show_table(Table([{"at": "2026-11-23T09:46:51.050Z", "until": "step 1 until 2026-11-23T09:46:51Z"}]), empty="")
    shown = capsys.readouterr().out
    assert "2026-11-23 09:46:51" in shown
    assert "step 1 until 2026-11-23 09:46:51" in shown


def test_a_revision_that_another_has_followed_already_is_told_as_live():
    reply = {
        "endpoint": "phishing",
        "revision": 3,
        "state": "superseded",
        "followed_by": 4,
        "changes": ["new endpoint"],
    }
    assert change_lines(reply) == ["phishing: revision 3 was made live, and followed by 4", "  new endpoint"]
