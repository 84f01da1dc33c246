import pytest

from gateway.features.fit import fit
from gateway.features.frames import Described, Feature, Key
from models.signature import Signature, TensorSpec
from routing.traffic import Features

KEY = Key("customer_id", "INT64", "INT64")
KINDS = {"FP64": "DOUBLE", "FP32": "FLOAT", "INT64": "INT64", "INT32": "INT32", "BYTES": "STRING", "BOOL": "BOOL"}


def spec(name, datatype="FP64", *shape):
    return TensorSpec(name=name, datatype=datatype, shape=shape or (-1, 1))


def feature(name, datatype="FP64", view="stats", *, is_list=False, is_online=True):
    return Feature(name, f"{view}__{name}", view, datatype, is_list, KINDS.get(datatype, "IMAGE"), is_online)


def problems(specs, features, *, keys=(KEY,), requested=(), **route):
    described = Described(1, tuple(keys), tuple(features), tuple(requested))
    signature = Signature(inputs=tuple(specs), outputs=())
    compiled, found = fit(described, Features(service="credit", **route), signature)
    return compiled, [(one.path, one.code) for one in found]


def test_inputs_are_filled_by_the_features_of_their_names_and_the_rest_is_the_callers():
    compiled, found = problems(
        [spec("amount"), spec("income"), spec("shop__income")],
        [feature("income"), feature("income", view="shop"), feature("unused")],
    )
    assert found == []
    assert [(one.name, one.full) for one in compiled.inputs] == [
        ("income", "stats__income"),
        ("shop__income", "shop__income"),
    ]
    assert [(key.name, key.datatype, key.shape, key.optional) for key in compiled.keys] == [
        ("customer_id", "INT64", (-1, 1), True)
    ]


@pytest.mark.parametrize(
    ("specs", "features", "more", "code"),
    [
        ([spec("a")], [feature("a"), feature("a", view="other")], {}, "feature_ambiguous"),
        ([spec("a")], [feature("b")], {}, "features_unused"),
        ([spec("a")], [feature("a", "BYTES")], {}, "feature_type_differs"),
        ([spec("a", "FP32")], [feature("a", "FP64")], {}, "feature_type_differs"),
        ([spec("a", "FP64")], [feature("a", "INT64")], {}, "feature_type_differs"),
        ([spec("a")], [feature("a", None)], {}, "feature_type_differs"),
        ([spec("a", "FP64", -1, 3)], [feature("a")], {}, "feature_shape_differs"),
        ([spec("a")], [feature("a", is_list=True)], {}, None),
        ([spec("a", "FP64", -1, -1)], [feature("a", is_list=True)], {}, "feature_shape_differs"),
        ([spec("a", "FP64", 4, 1)], [feature("a")], {}, "feature_shape_differs"),
        ([spec("a")], [feature("a", is_online=False)], {}, "view_offline"),
        ([spec("a")], [feature("a")], {"keys": ()}, "keys_missing"),
        ([spec("a")], [feature("a")], {"keys": [Key("k", None, "BYTES")]}, "key_type_unsupported"),
        ([spec("a"), spec("customer_id", "BYTES")], [feature("a")], {}, "key_type_differs"),
        ([spec("a")], [feature("a")], {"requested": ["now"]}, "request_data_wanted"),
        ([spec("a", "FP64")], [feature("a", "FP32")], {}, None),
        ([spec("a", "FP64", -1, 3)], [feature("a", "FP32", is_list=True)], {}, None),
        ([spec("a", "FP64", -1)], [feature("a", "INT32")], {}, None),
        ([spec("a"), spec("customer_id", "INT64")], [feature("a")], {}, None),
    ],
)
def test_what_does_not_fit_is_told_by_its_own_code(specs, features, more, code):
    _, found = problems(specs, features, **more)
    assert found == ([] if code is None else [("features.service", code)])


@pytest.mark.parametrize(
    ("datatype", "good", "bad"),
    [
        ("FP64", [0, 1.5, -3], ["x", True]),
        ("BYTES", ["x", ""], [1, True]),
        ("BOOL", [True], [1, "true"]),
        ("INT32", [2**31 - 1, -(2**31), 3.0], [2**31, 1.5, "1", True]),
    ],
)
def test_a_default_is_a_value_of_its_input(datatype, good, bad):
    for value in good:
        assert problems([spec("a", datatype)], [feature("a", datatype)], defaults=(("a", value),))[1] == []
    for value in bad:
        _, found = problems([spec("a", datatype)], [feature("a", datatype)], defaults=(("a", value),))
        assert found == [("features.defaults.a", "default_impossible")]


def test_all_problems_are_told_at_once():
    _, found = problems(
        [spec("a"), spec("b", "FP32")],
        [feature("a", "BYTES", is_online=False), feature("b")],
        keys=[Key("k", None, "BYTES")],
        defaults=(("c", 1), ("a", "x")),
    )
    assert found == [
        ("features.service", "key_type_unsupported"),
        ("features.service", "feature_type_differs"),
        ("features.service", "view_offline"),
        ("features.service", "feature_type_differs"),
        ("features.defaults.c", "default_unknown"),
        ("features.defaults.a", "default_impossible"),
    ]


@pytest.mark.parametrize(
    ("sensitive", "features", "attributes", "found"),
    [
        (["sex"], [feature("sex", "BYTES")], [("sex", "stats__sex", "BYTES")], []),
        (["stats__sex"], [feature("sex", "BYTES")], [("stats__sex", "stats__sex", "BYTES")], []),
        (["a"], [], [], []),
        (["nobody"], [feature("sex", "BYTES")], [], []),
        (["sex"], [feature("sex"), feature("sex", view="v")], [], [("record.sensitive[0]", "feature_ambiguous")]),
        (["a", "sex"], [feature("sex", None)], [], [("record.sensitive[1]", "feature_type_differs")]),
        (["sex"], [feature("sex", is_list=True)], [], [("record.sensitive[0]", "feature_type_differs")]),
    ],
)
def test_a_sensitive_feature_that_no_model_sees_is_looked_up_to_be_kept_apart(sensitive, features, attributes, found):
    described = Described(1, (KEY,), (feature("a"), *features))
    signature = Signature(inputs=(spec("a"),), outputs=())
    compiled, problems = fit(described, Features(service="credit"), signature, sensitive)
    assert [(one.name, one.full, one.datatype) for one in compiled.attributes] == attributes
    assert [(one.path, one.code) for one in problems] == found
