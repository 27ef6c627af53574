"""What the functions of a deployment add to the OpenAPI document: an operation for each, with its schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..ports import HandlerRecord

PATH = "/v1/functions/{name}"
TAG = "functions here"

_JSON = "application/json"


def with_functions(document: Mapping[str, Any], records: Iterable[HandlerRecord]) -> dict[str, Any]:
    """The document with the call of each function as an operation of its own: as that of any, with its schemas."""
    paths, schemas = dict(document["paths"]), dict(document["components"]["schemas"])
    for record in records:
        paths[PATH.format(name=record.name)] = {"post": _operation(document["paths"][PATH]["post"], record, schemas)}
    return {
        **document,
        "tags": [*document["tags"], {"name": TAG, "description": "The functions of this deployment"}],
        "paths": paths,
        "components": {**document["components"], "schemas": schemas},
    }


def _operation(call: Mapping[str, Any], record: HandlerRecord, schemas: dict[str, Any]) -> dict[str, Any]:
    """The call of one function; its schemas are put into `schemas`."""
    config = _reference(f"function.{record.name}.config", record.config_schema, schemas)
    output = _reference(f"function.{record.name}.output", record.output_schema, schemas)
    answer = call["responses"]["200"]
    return {
        **call,
        "operationId": f"call_{record.name}",
        "tags": [TAG],
        "summary": f"Call {record.name}",
        "description": "\n\n".join(filter(None, [record.description, f"Scope: `{call['x-scope']}`."])),
        "parameters": [each for each in call["parameters"] if each["in"] != "path"],
        "requestBody": {**call["requestBody"], "content": {_JSON: {"schema": config or {"type": "object"}}}},
        "responses": {**call["responses"], "200": {**answer, "content": {_JSON: {"schema": output or {}}}}},
    }


def _reference(name: str, text: str | None, schemas: dict[str, Any]) -> dict[str, Any] | None:
    """A reference to a schema, which is put into `schemas` under this name; None without one."""
    if text is None:
        return None
    place = f"#/components/schemas/{name}"
    schemas[name] = _moved(json.loads(text), place)
    return {"$ref": place}


def _moved(value: Any, place: str) -> Any:
    """A schema as it is where it stands at `place` of a document: what refers to itself does so from there."""
    if isinstance(value, list):
        return [_moved(each, place) for each in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _moved(each, place) for key, each in value.items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:]
    mapping = moved.get("mapping")
    if "propertyName" in moved and isinstance(mapping, dict):  # of a discriminator
        moved["mapping"] = {
            key: place + each[1:] if isinstance(each, str) and each.startswith("#") else each
            for key, each in mapping.items()
        }
    return moved
