"""Ours against the published one, as NVIDIA's client carries it: every symbol of ours is there, with the same numbers and types."""

import pytest
from tritonclient.grpc import model_config_pb2 as published_config
from tritonclient.grpc import service_pb2 as published

from gateway.rpc import open_inference_pb2 as pb

OURS = {**pb.DESCRIPTOR.message_types_by_name}


def theirs(name):
    for module in (published, published_config):
        if name in module.DESCRIPTOR.message_types_by_name:
            return module.DESCRIPTOR.message_types_by_name[name]
    raise AssertionError(f"{name} is not published")


def form(field):
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return field.name, field.type, field.is_repeated, field.is_packed, kind.full_name if kind else None, oneof


def compare(mine, other):
    numbers = {field.number: field for field in other.fields}
    for field in mine.fields:
        assert form(field) == form(numbers[field.number]), f"{mine.full_name}.{field.name}"
    for nested in mine.nested_types:
        compare(nested, other.nested_types_by_name[nested.name])
    for enum in mine.enum_types:
        assert [(value.name, value.number) for value in enum.values] == [
            (value.name, value.number) for value in other.enum_types_by_name[enum.name].values
        ]


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_message_has_the_published_fields(name):
    compare(OURS[name], theirs(name))


@pytest.mark.parametrize("name", sorted(set(OURS) - {"ModelConfig", "ModelInput", "ModelOutput"}))
def test_a_message_outside_the_configuration_lacks_none(name):
    assert len(OURS[name].fields) == len(theirs(name).fields)


def test_datatypes_have_the_published_numbers():
    enum = pb.DESCRIPTOR.enum_types_by_name["DataType"]
    other = published_config.DESCRIPTOR.enum_types_by_name["DataType"]
    assert [(value.name, value.number) for value in enum.values] == [(value.name, value.number) for value in other.values]


def test_methods_take_and_give_what_the_published_ones_do():
    other = published.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        twin = other.methods_by_name[method.name]
        assert method.full_name == twin.full_name
        assert method.input_type.full_name == twin.input_type.full_name
        assert method.output_type.full_name == twin.output_type.full_name
        assert (method.client_streaming, method.server_streaming) == (twin.client_streaming, twin.server_streaming)


def test_both_stubs_live_in_one_process_and_read_each_others_bytes():
    mine = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\0"])
    mine.parameters["p"].double_param = 0.5
    assert published.ModelInferRequest.FromString(mine.SerializeToString()).parameters["p"].double_param == 0.5
