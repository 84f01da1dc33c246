import jsonschema_rs

from gateway.admin.calls import Call, calls
from gateway.admin.looking import not_built_yet
from gateway.admin.openapi import openapi
from gateway.admin.schemas import PARAMETERS
from routing.traffic import to_document
from routing.validate import validate
from tests.routing.documents import two

CALL = Call(
    method="PUT",
    path="/admin/v1/things/{thing}/parts/{part}",
    handler=not_built_yet,
    summary="Puts a part",
    tag="things",
    query=("reason",),
    headers=("If-Match",),
    body={"type": "object"},
    body_required=False,
    answers={200: "put", 404: "no such thing"},
)


def described(*made):
    return openapi(made)["paths"]["/admin/v1/things/{thing}/parts/{part}"]


def test_every_name_in_a_path_is_a_required_parameter_and_the_others_stand_where_they_are_sent():
    found = described(CALL)["put"]["parameters"]
    assert [(one["name"], one["in"], one["required"]) for one in found] == [
        ("thing", "path", True),
        ("part", "path", True),
        ("reason", "query", PARAMETERS["reason"][2]),
        ("If-Match", "header", PARAMETERS["If-Match"][2]),
    ]


def test_calls_of_one_path_are_described_together():
    get = Call(method="GET", path=CALL.path, handler=not_built_yet, summary="Looks", tag="things")
    paths = described(CALL, get)
    assert set(paths) == {"put", "get"}
    assert (paths["put"]["requestBody"]["required"], "requestBody" in paths["get"]) == (False, False)


def test_a_refusal_has_the_one_shape_of_errors():
    responses = described(CALL)["put"]["responses"]
    schemas = {status: one["content"]["application/json"]["schema"] for status, one in responses.items()}
    error = {"$ref": "#/components/schemas/Error"}
    assert schemas == {"200": {"type": "object"}, "404": error, "default": error}


def test_every_operation_of_the_table_has_a_name_of_its_own():
    document = openapi(calls())
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(calls())
    assert len(set(names)) == len(names)


def test_what_is_referred_to_is_there():
    document = openapi(calls())
    assert set(document["components"]["schemas"]) == {"Problem", "Error", "Route"}
    problems = document["components"]["schemas"]["Error"]["properties"]["problems"]
    assert problems["items"] == {"$ref": "#/components/schemas/Problem"}
    for call in (
        document["paths"]["/admin/v1/routes/{endpoint}"]["put"],
        document["paths"]["/admin/v1/routes/{endpoint}:plan"]["post"],
    ):
        body = call["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/Route"}


def test_what_a_get_answers_fits_the_schema_of_a_put():
    route = openapi(calls())["components"]["schemas"]["Route"]
    document = to_document(validate(two()))

    assert jsonschema_rs.is_valid(route, document | {"status": {"revision": 3}})
    assert not jsonschema_rs.is_valid(route, document | {"state": "live"})
