"""What may stand in the configuration of `llm_service`, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from workflow_engine.handlers.llm_service import LlmServiceConfig


def test_defaults() -> None:
    config = LlmServiceConfig.model_validate({"prompt": "hello"})
    assert config.model_dump(exclude_none=True) == {"prompt": "hello", "model": "gpt-4"}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "hello", "model": "gpt-4", "temperature": 0.7, "max_tokens": 1000},
        {"prompt": "hello", "temperature": 0},
        {"prompt": "hello", "temperature": 2},
        {"prompt": "hello", "system": "be brief", "response_format": {"type": "json_object"}},
    ],
)
def test_accepted(fields: dict[str, Any]) -> None:
    assert LlmServiceConfig.model_validate(fields).model_dump(exclude_unset=True) == fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Field required"),
        ({"prompt": ""}, "at least 1 character"),
        ({"prompt": {"a": 1}}, "valid string"),
        ({"prompt": "p", "model": ""}, "at least 1 character"),
        ({"prompt": "p", "temperature": 2.1}, "less than or equal to 2"),
        ({"prompt": "p", "temperature": -0.1}, "greater than or equal to 0"),
        ({"prompt": "p", "temperature": "nan"}, "finite number"),
        ({"prompt": "p", "max_tokens": 0}, "greater than 0"),
        ({"prompt": "p", "max_tokens": 1.5}, "valid integer"),
        ({"prompt": "p", "response_format": "json"}, "valid dictionary"),
        ({"prompt": "p", "temprature": 1}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LlmServiceConfig.model_validate(fields)
    assert message in str(caught.value)
