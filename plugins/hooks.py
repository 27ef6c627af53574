"""The hook specifications: everything that the engine asks of a plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from .handler import Handler

ENTRY_POINT_GROUP = "workflow_engine"

hookspec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)
hookimpl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)


class HookSpecifications:
    """The specifications, as pluggy reads them."""

    @hookspec
    def workflow_engine_handlers(self, settings: Mapping[str, Any]) -> Iterable[Handler]:  # type: ignore[empty-body]
        """Return the handlers of this plugin.

        `settings` are the runtime's effective settings by lower-case name (`demo_mode`,
        `llm_base_url`, ...), read-only. Called once, when the runtime is built.
        """
