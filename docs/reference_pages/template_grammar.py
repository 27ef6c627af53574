"""The grammar of templates, from the docstring of the module that parses them."""

from __future__ import annotations

import inspect
import re

from workflow_engine.runtime.core import template

from .limits import shown


def render() -> str:
    """The grammar and what is bounded."""
    bounds = (
        f"An expression has at most {shown(template.MAX_EXPRESSION_CHARACTERS)} characters and "
        f"{template.MAX_REFERENCE_SEGMENTS} steps below its name, a node at most "
        f"{shown(template.MAX_TEMPLATES_PER_NODE)} templates; what they put into texts grows a configuration by at "
        f"most {shown(template.MAX_RENDERED_TEXT_CHARACTERS)} characters."
    )
    return f"```text\n{grammar()}\n```\n\n{bounds}"


def grammar() -> str:
    """The lines of the grammar, without their indent."""
    documented = inspect.getdoc(template) or ""
    block = re.search(r"^    text .*?(?=\n\n)", documented, re.DOTALL | re.MULTILINE)
    if block is None:
        raise ValueError("the docstring of the template module has no grammar")
    return inspect.cleandoc(block[0])
