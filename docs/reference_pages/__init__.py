"""The reference, read from the code: one module for each part, each a function that returns Markdown.

A page names a part where it wants it: `<!-- generated: errors -->`. The tests read the same functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from . import (
    attempt_errors,
    commands,
    definition,
    endpoints,
    errors,
    handlers,
    hooks,
    limits,
    migrations,
    states,
    template_grammar,
    variables,
)

PARTS: Mapping[str, Callable[[], str]] = {
    "attempt-errors": attempt_errors.render,
    "commands": commands.render,
    "definition": definition.render,
    "endpoints": endpoints.render,
    "errors": errors.render,
    "handlers": handlers.render,
    "hooks": hooks.render,
    "limits": limits.render,
    "migrations": migrations.render,
    "states": states.render,
    "template-grammar": template_grammar.render,
    "variables": variables.render,
}

_MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)


def fill(text: str) -> str:
    """The page with its generated parts put in. Raises `KeyError` for a part that does not exist."""
    return _MARKER.sub(lambda match: PARTS[match[1]](), text)
