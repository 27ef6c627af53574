"""How the command line tells what went wrong: on standard error, in words, with an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.problem import Problem

FAILURE = 1
USAGE_ERROR = 2
UNREACHABLE = 3
NOT_ENDED = 4
CANCELLED = 130

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

EXIT_CODES = (
    (0, "it worked; a workflow that was waited for is COMPLETED"),
    (
        FAILURE,
        "it failed: the workflow is FAILED, a check of `doctor` or `plugin check` is an error, `audit` has found "
        "something, or the engine has a fault",
    ),
    (USAGE_ERROR, "what was given is at fault: arguments, a file, a setting, an id, an API key"),
    (UNREACHABLE, "the server cannot be reached, or says that it is not available now"),
    (NOT_ENDED, "the workflow has not ended yet"),
    (CANCELLED, "the workflow is CANCELLED, or the command was interrupted"),
)


class CommandError(Exception):
    """A command cannot do what it should. `problems` are its details, each with a place."""

    def __init__(self, message: str, code: int = FAILURE, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.problems = tuple(problems)


class UsageError(CommandError):
    """The command was called in a way that cannot work."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, USAGE_ERROR, problems)


def with_reported_errors(command: Callable[[], int]) -> int:
    """The command's exit code. Expected errors become a message; anything else is a fault and shows its trace."""
    _prepare_output()
    try:
        code = command()
        sys.stdout.flush()
        return code
    except CommandError as error:
        report_error(error)
        return error.code
    except KeyboardInterrupt:
        return CANCELLED
    except BrokenPipeError:
        # Whoever read the output has seen enough. What Python would still write at its end goes nowhere.
        _let_output_go()
        return FAILURE
    except Exception as error:
        from .engine_errors import as_command_error

        known = as_command_error(error)
        if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS and error.filename is None:
            _let_output_go()
            known = CommandError(f"the output cannot be written: {error.strerror}")
        if known is None:
            raise
        report_error(known)
        return known.code


def _prepare_output() -> None:
    """A closed output takes nothing; one that cannot hold a character gets its escape."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _let_output_go() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def report_error(error: CommandError) -> None:
    """The message, and a line for each problem."""
    from ..core.problem import printable

    report(str(error))
    for problem in error.problems:
        report(f"  {problem.path}: {printable(problem.message)}")


def report(message: str) -> None:
    """A message on standard error. What a terminal would act on is shown instead."""
    from ..core.problem import printable

    for line in message.split("\n"):
        print(printable(line), file=sys.stderr, flush=True)
