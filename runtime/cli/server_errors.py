"""What a server refuses, told by the command line: problem documents (RFC 9457) as messages with exit codes."""

from __future__ import annotations

from typing import Any

from ..core.problem import Problem, printable
from .errors import FAILURE, UNREACHABLE, USAGE_ERROR, CommandError

MAX_SHOWN_CHARACTERS = 2000


def refusal(url: str, status: int, document: Any) -> CommandError:
    """The error that a status and its problem document stand for."""
    if not isinstance(document, dict) or not isinstance(document.get("title"), str):
        return foreign_answer(url, status)
    message = _shown(document["title"])
    if isinstance(document.get("detail"), str):
        message += f": {_shown(document['detail'])}"
    if status in (401, 403):
        message += (
            ". Give an API key that allows it with --api-key-file or WORKFLOW_ENGINE_API_KEY; "
            "workflow-engine keys create makes one"
        )
    return CommandError(message, _exit_code(status), _problems(document.get("errors")))


def foreign_answer(url: str, status: int) -> CommandError:
    """The error for an answer that is none of a workflow engine."""
    message = (
        f"what answers at {printable(url)} is no workflow engine, or one behind a proxy in trouble (HTTP {status})"
    )
    return CommandError(message, UNREACHABLE)


def _exit_code(status: int) -> int:
    if status in (408, 429, 502, 503, 504):
        return UNREACHABLE
    return USAGE_ERROR if status < 500 else FAILURE


def _problems(listed: Any) -> list[Problem]:
    found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return [Problem(_shown(each.get("path", "")), _shown(each.get("message", ""))) for each in found]


def _shown(value: Any) -> str:
    return printable(str(value)[:MAX_SHOWN_CHARACTERS])
