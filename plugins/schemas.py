"""The JSON Schemas of a handler's models, as others hear of them."""

from __future__ import annotations

import warnings
from functools import lru_cache

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from ..runtime.core.json_text import encode
from ..runtime.core.limits import MAX_CONFIG_SCHEMA_BYTES

CONFIG_MODE: JsonSchemaMode = "validation"
OUTPUT_MODE: JsonSchemaMode = "serialization"
"""A model looks different from each side: what it takes, and what it gives."""


class SchemaFault(Exception):
    """A model has no JSON Schema that others could use; the message is what follows the handler's name."""


@lru_cache(maxsize=1024)
def schema_text(model: type[BaseModel] | None, mode: JsonSchemaMode) -> str | None:
    """The JSON Schema of a model as text; None without a model. Raises `SchemaFault`."""
    if model is None:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of a default that is no JSON, and is left out
            schema = model.model_json_schema(mode=mode)
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "its top"
        raise SchemaFault(f"has no valid JSON Schema: at {where}: {error.message}; mend json_schema_extra") from error
    except Exception as error:
        raise SchemaFault(
            f"has no JSON Schema: {_first_line(error)}; annotate the field with WithJsonSchema({{...}}), or leave it "
            "out with SkipJsonSchema"
        ) from error
    try:
        return encode(schema, MAX_CONFIG_SCHEMA_BYTES).decode()
    except Exception as error:
        raise SchemaFault(f"has a JSON Schema that cannot be told to others: {error}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
