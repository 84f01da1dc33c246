from gateway.state.difference import differences


def variants(*named):
    return {"variants": [{"name": name, "weight": weight} for name, weight in named]}


def test_equal_documents_have_no_difference():
    assert differences(variants(("a", 1)), variants(("a", 1))) == []


def test_members_are_matched_by_name_whatever_their_order():
    assert differences(variants(("a", 1), ("b", 2)), variants(("b", 3), ("a", 1))) == ["weights: b 2 → 3"]


def test_weights_stand_on_one_line_before_all_else():
    before = variants(("a", 90), ("b", 10)) | {"follow": "auto"}
    after = variants(("a", 80), ("b", 20)) | {"follow": "ignore", "explain": True}
    assert differences(before, after) == [
        "weights: a 90 → 80, b 10 → 20",
        "follow: auto → ignore",
        "explain: added (true)",
    ]


def rules(*names):
    return {"rules": [{"name": name, "variant": "champion"} for name in names]}


def test_rules_in_another_order_are_a_change_because_the_first_that_matches_wins():
    assert differences(rules("beta", "robots"), rules("robots", "beta")) == ["rules: order beta, robots → robots, beta"]


def test_a_rule_that_comes_before_others_says_so_and_one_behind_them_or_gone_does_not():
    added = "rules.robots: added (variant champion)"
    assert differences(rules("beta"), rules("robots", "beta")) == [added, "rules: order beta → robots, beta"]
    assert differences(rules("beta"), rules("beta", "robots")) == [added]
    assert differences(rules("beta", "robots", "old"), rules("beta", "old")) == [
        "rules.robots: removed (variant champion)"
    ]


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
