"""What stands in `error.type` of a failed execution: the names that the engine and its handlers give.

The meanings and remedies are written here; `tests/documentation` compares the names with those in the code.
"""

from __future__ import annotations

from typing import NamedTuple

from .markdown import code, table


class AttemptError(NamedTuple):
    """One `error.type`. `retried` says whether the attempt may be tried again."""

    retried: bool
    meaning: str
    remedy: str


ATTEMPT_ERRORS: dict[str, AttemptError] = {
    "address_refused": AttemptError(
        False,
        "The call would have gone to an address that handlers may not reach.",
        "Call a public address, or set `HTTP_ALLOW_PRIVATE=true` when private services are meant.",
    ),
    "config_invalid": AttemptError(
        False,
        "The configuration does not fit the handler once its templates are resolved.",
        "Look at the field in the message, and at what the template brought.",
    ),
    "handler_unknown": AttemptError(
        False,
        "No process that runs has had the handler for `UNKNOWN_HANDLER_TIMEOUT`.",
        "Start a worker that has the handler's plugin, or correct `handler`; then start the workflow again.",
    ),
    "inputs_too_large": AttemptError(
        False,
        "The outputs that the attempt reads are too large together.",
        "Refer to the parts you need, or let the nodes before it return less.",
    ),
    "invalid_request": AttemptError(
        False, "The request cannot be encoded.", "Look at the value that the message names."
    ),
    "invalid_url": AttemptError(
        False,
        "The address is no http or https URL.",
        "Correct `url`, or what its template brought; for `llm_service`, `LLM_BASE_URL`.",
    ),
    "llm_answer_invalid": AttemptError(
        False,
        "The service answered with something that is no chat completion with text.",
        "Check that `LLM_BASE_URL` speaks the OpenAI protocol and ends where `/chat/completions` begins.",
    ),
    "llm_not_configured": AttemptError(
        False, "No language model is configured.", "Set `LLM_BASE_URL`, or `DEMO_MODE=true` for canned answers."
    ),
    "network_error": AttemptError(
        True, "The connection failed, or broke.", "See whether the service runs and can be reached from here."
    ),
    "open_failed": AttemptError(
        True,
        "The handler is a class, and its `open` failed, or its object could not be made. The next attempt tries again.",
        "The message has the cause, and the log its trace.",
    ),
    "output_invalid": AttemptError(
        False, "The handler's result is not JSON.", "Return only JSON values: no NaN, no dates, string keys."
    ),
    "output_too_large": AttemptError(
        False, "The handler's result is too large.", "Return less, or put it elsewhere and return where it is."
    ),
    "rate_limit_key_invalid": AttemptError(
        False,
        "The rate limit of the handler makes no key of the configuration: its function raised, or returned neither "
        "None nor a printable text of at most 512 characters.",
        "Correct the function `key` of the handler's `RateLimit`, or the field of the configuration that it uses.",
    ),
    "redirect_refused": AttemptError(
        False,
        "The service redirects to what is no http or https URL, or from https to http.",
        "Call the final address.",
    ),
    "response_invalid_json": AttemptError(
        False, "The service says that it answers in JSON, and does not.", "Mend the service."
    ),
    "response_too_large": AttemptError(
        False, "The answer is larger than allowed.", "Raise `max_response_bytes`, or ask for less."
    ),
    "process_died": AttemptError(
        True,
        "The attempt ended the process that ran it: that is what the lane `process` is for, and nobody else was hurt.",
        "Mend the handler, or what it calls: the log has the trace. `SIGKILL` mostly means that memory ran out.",
    ),
    "template_failed": AttemptError(
        False,
        "A template cannot be resolved: what it refers to is not there.",
        "The message says what was there instead; `default(...)` gives a value for what may be missing.",
    ),
    "timeout": AttemptError(
        True,
        "The attempt, or the call within it, took longer than it may.",
        "Raise `timeout_seconds` of the node or `HANDLER_TIMEOUT_<HANDLER>`, or make the work shorter.",
    ),
    "too_many_redirects": AttemptError(
        False, "The service redirects more often than allowed.", "Raise `max_redirects`, or call the final address."
    ),
    "worker_crashed": AttemptError(
        False,
        "The attempt ended the process that ran it. It had one of its own, since attempts before it were lost "
        "together with their worker.",
        "Mend the handler, or what it calls: the log has the trace. `SIGKILL` mostly means that memory ran out.",
    ),
    "worker_failed": AttemptError(
        True,
        "The worker that ran the attempt failed, or the thread or process that was to run it could not be started.",
        "The message says what there was none of. A fault of the engine or of the machine: the log has its trace.",
    ),
}


def render() -> str:
    """The table, with the two families of names that are made at run time."""
    rows = [
        (code(name), "yes" if error.retried else "no", error.meaning, error.remedy)
        for name, error in ATTEMPT_ERRORS.items()
    ]
    rows.append(
        (
            "`http_<status>`",
            "408, 429, 5xx",
            "The service answered with a status that is not expected.",
            "The message has the beginning of its answer; see also `expected_statuses`.",
        )
    )
    rows.append(
        (
            "the name of an exception",
            "by its class",
            "The handler raised it.",
            "The message is the exception's; see [Retries](../explanation/retries.md) for which ones are tried again.",
        )
    )
    return table(("`error.type`", "tried again", "meaning", "remedy"), rows)
