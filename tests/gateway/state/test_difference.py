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
        "variants.b: removed (weight 2)",
        "variants.c: added (weight 2)",
    ]


def test_a_new_endpoint_names_its_arms_and_a_deleted_one_nothing():
    assert differences(None, {"salt": "x"} | variants(("a", 1))) == ["new endpoint", "variants.a: added (weight 1)"]
    assert differences(variants(("a", 1)), None) == ["endpoint deleted"]


def test_plain_lists_are_compared_as_a_whole():
    assert differences({"sensitive": ["a"]}, {"sensitive": ["a", "b"]}) == ["sensitive: a → a, b"]


def test_a_list_that_was_empty_gains_its_members():
    assert differences({"mirrors": []}, {"mirrors": [{"name": "m", "model": "x"}]}) == ["mirrors.m: added (model x)"]


def test_the_first_of_a_kind_and_the_last_are_named_too():
    one = {"mirrors": [{"name": "m", "model": "models:/a/1"}]}
    assert differences({}, one) == ["mirrors.m: added (model models:/a/1)"]
    assert differences(one, {}) == ["mirrors.m: removed (model models:/a/1)"]
