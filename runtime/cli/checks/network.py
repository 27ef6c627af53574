"""The address of the API: whether it is free, or who is there."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from ....config import Settings
from ....config.client import client_settings
from ...clock import SystemClock, block
from ..errors import UNREACHABLE, CommandError
from ..http_client import Connection, HttpClient
from .finding import Finding, error, ok, warning

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def check_port(settings: Settings) -> Iterator[Finding]:
    """Whether `serve` could listen there, or the engine that does is well."""
    host, (variable, port) = settings.api_host, settings.own_port
    if port is None:
        yield ok("port", "none: without the role api, and without HEALTH_PORT, it listens nowhere")
        return
    if port == 0:
        yield ok("port", "the system picks a free one")
        return
    try:
        _listen(host, port)
    except (OSError, UnicodeError) as bad:
        taken = getattr(bad, "errno", None) == errno.EADDRINUSE
        yield _taken(settings) if taken else _unusable(host, port, variable, bad)
    else:
        yield ok("port", f"{host}:{port} is free")


def check_server(_settings: Settings) -> Iterator[Finding]:
    """Whether the server of WORKFLOW_ENGINE_URL answers the client commands; nothing when that is not set."""
    url, api_key = client_settings()
    if url is None:
        return
    try:
        HttpClient(Connection(url, api_key, SystemClock(), block), attempts=1).get("/v1/functions")
    except CommandError as refused:
        # A server that is not started yet, or a key that is in a file, is no fault of the setup.
        level = warning if refused.code == UNREACHABLE or api_key is None else error
        yield level("server", str(refused), None)
    else:
        yield ok("server", f"{url} (WORKFLOW_ENGINE_URL) answers")


def engine_at(settings: Settings) -> Mapping[str, Any] | None:
    """Whether the engine at the settings' address is ready (`status`), and why not (`reason`); None without one."""
    host, (_, port) = _ANYWHERE.get(settings.api_host, settings.api_host), settings.own_port
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    try:
        answer = HttpClient(Connection(url, None, SystemClock(), block)).look("/readyz")
    except CommandError:
        return None
    return answer if isinstance(answer, dict) and answer.get("status") in ("ready", "not ready") else None


def _listen(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)


def _taken(settings: Settings) -> Finding:
    variable, port = settings.own_port
    place = f"{settings.api_host}:{port}"
    report = engine_at(settings)
    if report is None:
        return error("port", f"another program listens on {place}", f"Stop it, or set {variable} to another port.")
    if report["status"] != "ready":
        return error("port", f"the engine that listens on {place} is not ready: {report.get('reason')}", "See its log.")
    return ok("port", f"an engine listens on {place}, and is ready")


def _unusable(host: str, port: int, variable: str, bad: Exception) -> Finding:
    reason = getattr(bad, "strerror", None) or bad
    remedy = (
        "Use a port above 1023." if getattr(bad, "errno", None) == errno.EACCES else f"Set API_HOST and {variable}."
    )
    return error("port", f"cannot listen on {host}:{port}: {reason}", remedy)
