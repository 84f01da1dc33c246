"""`/openapi.json` (OpenAPI 3.1), written from the table of calls, so that it cannot say something else than the router does."""

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from gateway.admin.calls import Call
from gateway.admin.route_schema import DOCUMENT
from gateway.admin.schemas import PARAMETERS, Schema

_PROBLEM: Schema = {
    "type": "object",
    "required": ["path", "code", "message"],
    "properties": {name: {"type": "string"} for name in ("path", "code", "message", "remedy")},
}
_ROUTE: Schema = DOCUMENT | {
    "properties": DOCUMENT["properties"]
    | {
        "status": {
            "type": "object",
            "readOnly": True,
            "description": "what of it is served; an answer of GET, ignored where it is sent",
        }
    }
}
_ERROR: Schema = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "string"},
        "problems": {"type": "array", "items": {"$ref": "#/components/schemas/Problem"}},
    },
}


def openapi(calls: Iterable[Call]) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Runoff admin API", "version": version("runoff"), "description": __doc__},
        "paths": paths,
        "components": {"schemas": {"Problem": _PROBLEM, "Error": _ERROR, "Route": _ROUTE}},
    }


def _operation(call: Call) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", call.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    for place, given in (("query", call.query), ("header", call.headers)):
        for name in given:
            meaning, schema, required = PARAMETERS[name]
            parameters.append(
                {"name": name, "in": place, "required": required, "schema": schema, "description": meaning}
            )
    operation: dict[str, Any] = {
        "operationId": f"{call.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', call.path.removeprefix('/admin/v1/')).strip('_')}",
        "summary": call.summary,
        "tags": [call.tag],
        "parameters": parameters,
        "responses": {str(status): _response(status, text) for status, text in sorted(call.answers.items())},
    }
    operation["responses"]["default"] = _response(500, "refused")
    if call.body is not None:
        operation["requestBody"] = {
            "required": call.body_required,
            "content": {"application/json": {"schema": call.body}},
        }
    return operation


def _response(status: int, text: str) -> dict[str, Any]:
    schema: Schema = {"$ref": "#/components/schemas/Error"} if status >= 400 else {"type": "object"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
