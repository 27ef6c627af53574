"""Waiting for an execution's end at a server, and showing what it came to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from ..clock import SystemClock, block
from ..core.problem import printable
from .errors import CANCELLED, FAILURE, NOT_ENDED, UsageError, report
from .http_client import HttpClient
from .server import in_path
from .terminal import print_json

LONGEST_WAIT_SECONDS = 60.0
LEAST_WAIT_SECONDS = 0.2
EXIT_CODES = {"COMPLETED": 0, "FAILED": FAILURE, "CANCELLED": CANCELLED}


def wait_for_results(server: HttpClient, execution_id: str, timeout_seconds: float | None) -> Mapping[str, Any]:
    """The results once the execution has ended, or as they stand after the timeout (None: no such)."""
    try:
        return _wait(server, execution_id, timeout_seconds)
    except KeyboardInterrupt:
        report(f"the execution goes on: workflow-engine results --wait {execution_id}")
        raise


def _wait(server: HttpClient, execution_id: str, timeout_seconds: float | None) -> Mapping[str, Any]:
    clock = SystemClock()
    began = clock.monotonic()
    while True:
        asked = clock.monotonic()
        left = LONGEST_WAIT_SECONDS if timeout_seconds is None else max(timeout_seconds - (asked - began), 0.0)
        wait = min(left, LONGEST_WAIT_SECONDS)
        results: Mapping[str, Any] = read_results(server, execution_id, wait)
        if results["state"] in EXIT_CODES or (wait >= left and timeout_seconds is not None):
            return results
        if clock.monotonic() - asked < LEAST_WAIT_SECONDS:
            # A server that shuts down answers at once.
            block(LEAST_WAIT_SECONDS)


def read_results(server: HttpClient, execution_id: str, wait_seconds: float = 0.0) -> Any:
    """The results as they stand after so many seconds, or at the end if that comes first."""
    path = f"/v1/workflows/{in_path(execution_id)}/results"
    query = {"wait": f"{wait_seconds:.3f}"} if wait_seconds else None
    return server.get(path, query, wait_seconds=wait_seconds)


def show_results(results: Mapping[str, Any], *, as_json: bool) -> int:
    """Print the whole document, or the output alone and the rest as a message. Returns the exit code."""
    state = str(results["state"])
    if as_json:
        print_json(results)
    elif state == "COMPLETED":
        print_json(results["output_data"])
    elif state == "FAILED":
        report(failure(results.get("error")))
    else:
        report(f"{results['id']} is {state}")
    return EXIT_CODES.get(state, NOT_ENDED)


def failure(error: Any) -> str:
    """The error of an execution in one line."""
    if not isinstance(error, Mapping):
        return "it failed"
    try:
        return printable("node {node_id} failed at attempt {attempt}: {type}: {message}".format_map(error))
    except KeyError:
        return json.dumps(error)


def check_wait(options: argparse.Namespace) -> None:
    """Raise `UsageError` for `--timeout` without `--wait`."""
    if options.timeout is not None and not options.wait:
        raise UsageError("--timeout goes with --wait")


def follow_up(server: HttpClient, started: Mapping[str, Any], options: argparse.Namespace) -> int:
    """After a start: print the execution's id, or wait for its results. Returns the exit code."""
    execution_id = str(started["execution_id"])
    if options.wait:
        return show_results(wait_for_results(server, execution_id, options.timeout), as_json=options.json)
    if options.json:
        print_json(started)
        return 0
    print(printable(execution_id))
    report(f"started; follow it: workflow-engine status --follow {execution_id}")
    return 0
