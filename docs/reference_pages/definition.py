"""The workflow definition, from the models that validate it."""

from __future__ import annotations

from pydantic import BaseModel

from workflow_engine.runtime.core.definition import Dag, NodeDefinition, RetryConfig, WorkflowDefinition

from .markdown import anchor
from .models import linked_type, schema_table

MODELS: tuple[type[BaseModel], ...] = (WorkflowDefinition, Dag, NodeDefinition, RetryConfig)


def render() -> str:
    """A section for each object of a definition."""
    return "\n\n".join(_section(model) for model in MODELS)


def _section(model: type[BaseModel]) -> str:
    name = model.__name__
    table = schema_table(model.model_json_schema(), lambda field: linked_type(field, "schema-"))
    return "\n\n".join((anchor(f"schema-{name}"), f"## {name}", model.__doc__ or "", table))
