"""The built-in plugin: which handlers it registers under which settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pluggy
import pytest

from workflow_engine.handlers import demo, plugin
from workflow_engine.handlers.external_service import call_external_service
from workflow_engine.plugins import ENTRY_POINT_GROUP, Handler
from workflow_engine.plugins.hooks import HookSpecifications

NAMES = {"input", "output", "call_external_service", "llm_service"}


def registered(**settings: Any) -> dict[str, Handler]:
    """Return the handlers by name, as the runtime gets them."""
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(HookSpecifications)
    manager.register(plugin)
    manager.check_pending()
    (handlers,) = manager.hook.workflow_engine_handlers(settings=settings)
    return {handler.name: handler for handler in handlers}


@pytest.mark.parametrize("settings", [{}, {"demo_mode": False}, {"demo_mode": True}])
def test_the_four_handlers(settings: dict[str, Any]) -> None:
    handlers = registered(**settings)
    assert set(handlers) == NAMES
    assert all(handler.description for handler in handlers.values())


def test_demo_mode_replaces_the_services() -> None:
    handlers = registered(demo_mode=True)
    assert handlers["call_external_service"] is demo.demo_external_service
    assert handlers["llm_service"] is demo.demo_llm_service


def test_without_demo_mode_services_are_real() -> None:
    assert registered()["call_external_service"] is call_external_service


def test_demo_and_real_handlers_take_the_same_configuration() -> None:
    real, mocked = registered(), registered(demo_mode=True)
    for name in NAMES:
        assert real[name].config_model is mocked[name].config_model


def test_importing_it_does_not_import_the_http_client() -> None:
    program = "import sys, workflow_engine.handlers.plugin; sys.exit(bool({'aiohttp', 'yarl'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
