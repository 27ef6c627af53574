"""Query parameters, read by a route's model: what the model documents is what is taken."""

from __future__ import annotations

import json
import re
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from aiohttp import web
from pydantic import BaseModel, ValidationError

from ..core.problem import Problem, did_you_mean
from ..core.shape import describe_errors
from .errors import BadRequest

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")


class QueryReader:
    """Reads the query of requests to one route."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        kinds = {field.alias or name: _plain(field.annotation) for name, field in model.model_fields.items()}
        self._known = tuple(kinds)
        self._lists = {name for name, kind in kinds.items() if get_origin(kind) in (list, frozenset)}
        self._integers = {name for name, kind in kinds.items() if kind is int}
        needed = any(field.is_required() for field in model.model_fields.values())
        # Most requests have no query: they share one instance, which nobody changes.
        self._empty = None if needed else model()

    def read(self, request: web.Request) -> BaseModel:
        """The query as the model. Raises `BadRequest` naming every parameter that is unknown, twice or wrong."""
        if self._empty is not None and not request.rel_url.raw_query_string:
            return self._empty
        problems: list[Problem] = []
        found: dict[str, Any] = {}
        for name in dict.fromkeys(request.query):
            values = request.query.getall(name)
            if name not in self._known:
                allowed = f"; this route knows {', '.join(self._known)}" if self._known else "; this route takes none"
                problems.append(Problem(f"query.{name[:100]}", f"unknown{did_you_mean(name, self._known) or allowed}"))
            elif name in self._lists:
                found[name] = values
            elif len(values) > 1:
                problems.append(Problem(f"query.{name}", "stands twice"))
            else:
                found[name] = self._value(name, values[0])
        try:
            parsed = self._model.model_validate(found)
        except ValidationError as error:
            twice = {problem.path for problem in problems}
            problems += [p for p in describe_errors(error, self._model, "query") if p.path not in twice]
        if problems:
            raise BadRequest("the query is not valid", problems)
        return parsed

    def _value(self, name: str, text: str) -> Any:
        """Whole numbers as JSON writes them, anything else as text, which the model then refuses for a number."""
        return json.loads(text) if name in self._integers and _INTEGER.fullmatch(text) else text


def _plain(annotation: Any) -> Any:
    """An annotation without `Annotated` and `| None`."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        return _plain(parts[0]) if len(parts) == 1 else annotation
    return annotation
