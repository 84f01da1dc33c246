"""What the calls of the admin API read: parameters, headers and bodies, as `/openapi.json` describes them (JSON Schema)."""

from typing import Any, Final

Schema = dict[str, Any]

PARAMETERS: Final[dict[str, tuple[str, Schema, bool]]] = {
    "reason": (
        "why; shown in the history and kept in the audit",
        {"type": "string", "minLength": 1, "maxLength": 1000},
        False,
    ),
    "wait": ("seconds to wait for the revision to be live", {"type": "number", "minimum": 0, "maximum": 300}, False),
    "override": ("take versions past the checks that they fail; needs gate:override", {"type": "boolean"}, False),
    "limit": ("how many, newest first", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}, False),
    "before": ("only what is older than this number", {"type": "integer", "minimum": 0}, False),
    "endpoint": ("only of this endpoint", {"type": "string"}, False),
    "mirror": ("only this mirror", {"type": "string"}, False),
    "variant": ("whom mirrors are compared with; default: the champion", {"type": "string"}, False),
    "by": (
        "whose an answer is. assigned (default): the variant's that was drawn; answered: of who answered, pinned and ruled requests too",
        {"type": "string", "enum": ["assigned", "answered"]},
        False,
    ),
    "segment_by": (
        "a column of the predictions, such as input_age; or attribute_<name>, with sensitive:read",
        {"type": "string"},
        False,
    ),
    "since": ("only what arrived at or after this moment", {"type": "string", "format": "date-time"}, False),
    "until": ("only what arrived before this moment", {"type": "string", "format": "date-time"}, False),
    "If-Match": ("the ETag of the route as you saw it; required (428 without it)", {"type": "string"}, False),
    "If-None-Match": ("`*` to make a new endpoint", {"type": "string"}, False),
}

FORGET: Final[Schema] = {
    "type": "object",
    "required": ["unit"],
    "properties": {"unit": {"type": "string", "minLength": 1}, "reason": {"type": "string"}},
}
ROUTE: Final[Schema] = {"$ref": "#/components/schemas/Route"}
WEIGHTS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": "number"},
    "examples": [{"challenger": 20}],
}
PROMOTE: Final[Schema] = {
    "type": "object",
    "properties": {"variant": {"type": "string"}, "mirror": {"type": "string"}, "reason": {"type": "string"}},
}
ROLLBACK: Final[Schema] = {
    "type": "object",
    "properties": {"to": {"type": "integer"}, "move_alias": {"type": "boolean"}, "reason": {"type": "string"}},
}
KEY: Final[Schema] = {
    "type": "object",
    "required": ["name", "scopes"],
    "properties": {
        "name": {"type": "string", "description": "who it is for"},
        "scopes": {"type": "array", "items": {"type": "string"}, "examples": [["predict:phishing", "label:phishing"]]},
        "expires_s": {"type": "number", "description": "seconds from now; left out: it does not expire"},
        "rate_per_s": {"type": "number", "description": "requests a second in each worker; left out: no quota"},
        "burst": {"type": "integer", "minimum": 1},
        "reason": {"type": "string"},
    },
}
ROTATE: Final[Schema] = {
    "type": "object",
    "properties": {
        "overlap_s": {"type": "number", "minimum": 0, "default": 86400},
        "reason": {"type": "string"},
    },
}
FOLLOW: Final[Schema] = {
    "type": "object",
    "properties": {
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        "override": {"type": "boolean"},
        "reason": {"type": "string"},
    },
}
RESUME: Final[Schema] = {
    "type": "object",
    "properties": {"what": {"enum": ["following", "steps"]}, "reason": {"type": "string"}},
}
REASON: Final[Schema] = {"type": "object", "properties": {"reason": {"type": "string"}}}

TUNE: Final[Schema] = {
    "type": "object",
    "properties": {
        "target_ms": {
            "type": "number",
            "description": "the longest that one run may last; default: as before, at first 50",
        },
        "from_traffic": {"type": "string", "description": "an endpoint: on the rows that it was asked"},
        "int8": {
            "type": "boolean",
            "description": "whether the quantised form may be taken, where its certificate holds",
        },
        "score_tolerance": {"type": "number", "description": "of int8 scores, absolute and relative; at first 0.01"},
        "share_weights": {
            "type": "boolean",
            "description": "one copy of the weights for all workers, where the model has 64 MB or more; runs are slower",
        },
        "reason": {"type": "string"},
    },
}
