"""Who may use the engine, and what it may use: API keys, production, the LLM service."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from ....config import Settings
from ...api.keys import is_usable
from ...clock import SystemClock
from ...errors import StoreUnusable
from ...store.sqlite_file import read_keys, read_schema
from .database import is_used
from .finding import Finding, error, ok, warning

CREATE = "workflow-engine keys create --name admin --scope admin"


def check_keys(settings: Settings) -> Iterator[Finding]:
    """Whether keys are asked for, and whether there are any."""
    if not settings.keys_required:
        if settings.listens_to_this_machine_only:
            yield ok("keys", "not needed: only this machine can connect")
        else:
            yield warning(
                "keys", f"everybody who reaches {settings.api_host} may do everything", "Unset API_KEYS_REQUIRED."
            )
        return
    if settings.backend != "embedded":
        yield ok("keys", "needed; workflow-engine keys list shows them")
        return
    try:
        complete = is_used(settings) and not read_schema(settings.sqlite_path).missing
        keys = read_keys(settings.sqlite_path) if complete else ()
    except StoreUnusable:
        # Its own check says so.
        return
    now = SystemClock().now()
    count = sum(is_usable(key, now) for key in keys)
    if count:
        yield ok("keys", f"needed, and there are {count}")
    else:
        yield error("keys", "needed, and there are none: nobody can use the API", f"Make the first one: {CREATE}")


def check_production(settings: Settings) -> Iterator[Finding]:
    """What is good for a demonstration, and not for production."""
    if settings.environment != "prod":
        return
    found = []
    if settings.demo_mode:
        found.append(warning("production", "DEMO_MODE mocks the handlers that call other services", "Unset it."))
    if settings.allow_private_addresses:
        message = "HTTP_ALLOW_PRIVATE lets workflows call services inside your network"
        found.append(warning("production", message, "Unset it, unless everybody who submits workflows is trusted."))
    if settings.retention_days == 0:
        message = "executions are kept for ever, and the database grows"
        found.append(warning("production", message, "Set RETENTION_DAYS."))
    yield from found or [ok("production", "nothing is left from a demonstration")]


def check_llm(settings: Settings) -> Iterator[Finding]:
    """Whether `llm_service` has what it needs."""
    if settings.demo_mode:
        yield ok("llm", "mocked")
        return
    if settings.llm_base_url is None:
        if settings.llm_api_key is not None:
            yield warning("llm", "LLM_API_KEY is set, and LLM_BASE_URL is not", "Set LLM_BASE_URL too.")
        else:
            yield ok("llm", "not set up: nodes with llm_service fail until LLM_BASE_URL is set")
        return
    if _is_private(settings.llm_base_url):
        if not settings.allow_private_addresses:
            message = "LLM_BASE_URL is a private address, which handlers may not call here"
            yield error("llm", message, "Set HTTP_ALLOW_PRIVATE=true, or use a public one.")
            return
    elif settings.llm_api_key is None:
        yield warning("llm", "LLM_BASE_URL is set, and LLM_API_KEY is not", "Set it, if the service asks for a key.")
        return
    yield ok("llm", settings.llm_base_url)


def _is_private(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".internal", ".local"))
