import pyarrow as pa

from gateway.streams.schema import PREDICTIONS, Naming


def test_a_name_that_is_taken_by_another_type_gets_the_datatype_added():
    naming = Naming(PREDICTIONS)
    assert naming.name("input", "x", "FP64", pa.float64()) == "input_x"
    assert naming.name("input", "x", "FP64", pa.float64()) == "input_x"
    assert naming.name("input", "x", "INT64", pa.int64()) == "input_x__INT64"
    assert naming.name("input", "x", "FP64", pa.list_(pa.float64())) == "input_x__FP64"
    assert naming.name("input", "x", "FP64", pa.float64()) == "input_x"


def test_names_that_differ_in_case_only_are_kept_apart():
    naming = Naming([])
    assert naming.name("input", "Age", "FP32", pa.float32()) == "input_Age"
    assert naming.name("input", "age", "FP32", pa.float32()) == "input_age__FP32"


def test_datatypes_of_one_type_share_a_column():
    naming = Naming([])
    assert naming.name("output", "p", "FP16", pa.float32()) == naming.name("output", "p", "FP32", pa.float32())


def test_lists_are_the_same_list_whatever_their_items_are_called():
    naming = Naming([pa.field("input_v", pa.list_(pa.field("item", pa.int64())))])
    assert naming.name("input", "v", "INT64", pa.list_(pa.field("element", pa.int64()))) == "input_v"
