"""The commands, one module each: `register` adds its parser, and imports nothing but options."""

from . import (
    cancel,
    completion,
    config,
    definitions,
    list_executions,
    results,
    run,
    serve,
    start,
    status,
    submit,
    trigger,
    validate,
)

COMMANDS = (
    serve,
    run,
    validate,
    submit,
    trigger,
    start,
    status,
    results,
    cancel,
    list_executions,
    definitions,
    config,
    completion,
)
