from gateway.state.difference import differences


def variants(*named):
    return {"variants": [{"name": name, "weight": weight} for name, weight in named]}


def test_equal_documents_have_no_difference():
    assert differences(variants(("a", 1)), variants(("a", 1))) == []


def test_members_are_matched_by_name_whatever_their_order():
    assert differences(variants(("a", 1), ("b", 2)), variants(("b", 3), ("a", 1))) == ["variants.b.weight: 2 → 3"]


def test_added_and_removed_members_are_named():
    before, after = variants(("a", 1), ("b", 2)), variants(("a", 1), ("c", 2))
    assert differences(before, after) == [
        "variants.b: removed (name b, weight 2)",
        "variants.c: added (name c, weight 2)",
    ]


def test_a_new_and_a_deleted_document_differ_in_every_key():
    assert differences(None, {"salt": "x"}) == ["salt: added (x)"]
    assert differences({"salt": "x"}, None) == ["salt: removed (x)"]
