"""What OpenAPI cannot read off the routes: two kinds of body, the token, and the refusals."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from taro_rt.runtime.service.asks import Kind
from taro_rt.runtime.service.documents import (
    ErrorDocument,
    GenerateForm,
    GenerateRequest,
    OnsetsForm,
    OnsetsRequest,
)
from taro_rt.runtime.service.guard import OPEN
from taro_rt.runtime.service.refusals import MEANINGS

PLACE = "#/components/schemas/"
RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse so."""
    return {code: {"model": ErrorDocument, "description": MEANINGS[code]} for code in codes}


def body_of(kind: Kind) -> dict[str, Any]:
    """What a route needs that takes JSON or a form with the video itself."""
    request, form = (
        ("GenerateRequest", "GenerateForm") if kind == "generate" else ("OnsetsRequest", "OnsetsForm")
    )
    parts = {
        "video": {"type": "string", "format": "binary", "description": "The video itself."},
        "request": {"$ref": f"{PLACE}{form}"},
    }
    answers = refusals(400, 401, 403, 404, 413, 415, 422, 429, 503)
    answers[429]["headers"] = RETRY
    return {
        "responses": answers,
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": f"{PLACE}{request}"}},
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "properties": parts,
                            "required": ["video"],
                            "additionalProperties": False,
                        },
                        "encoding": {"request": {"contentType": "application/json"}},
                    },
                },
            }
        },
    }


def describe(app: FastAPI) -> None:
    """Complete the application's OpenAPI document."""
    document = app.openapi()
    parts = document.setdefault("components", {})
    models = (GenerateRequest, GenerateForm, OnsetsRequest, OnsetsForm)
    _, shapes = models_json_schema(
        [(model, "validation") for model in models], ref_template=f"{PLACE}{{model}}"
    )
    parts.setdefault("schemas", {}).update(shapes["$defs"])
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    for path in set(OPEN) & document["paths"].keys():
        for operation in document["paths"][path].values():
            operation["security"] = []
