"""The plugin that registers the built-in handlers, as any other package would register its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import SecretStr

from ..plugins import Handler, hookimpl
from .demo import demo_external_service, demo_llm_service
from .external_service import call_external_service
from .input import input_handler
from .llm_service import llm_service
from .output import output_handler


@hookimpl
def workflow_engine_handlers(settings: Mapping[str, Any]) -> Iterable[Handler]:
    """Return the four built-in handlers; with `demo_mode` those that call a service only pretend to.

    Settings used: `demo_mode`, `llm_base_url` and `llm_api_key` (text or `SecretStr`).
    """
    if settings.get("demo_mode"):
        services = [demo_external_service, demo_llm_service]
    else:
        services = [call_external_service, _llm_service(settings)]
    return [input_handler, output_handler, *services]


def _llm_service(settings: Mapping[str, Any]) -> Handler:
    base_url, api_key = settings.get("llm_base_url"), settings.get("llm_api_key")
    if isinstance(api_key, SecretStr):
        api_key = api_key.get_secret_value()
    return llm_service(None if base_url is None else str(base_url), api_key)
