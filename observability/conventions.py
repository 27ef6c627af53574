"""The names of spans and attributes.

There is no convention for workflows yet: names that begin with `workflow.` follow the proposal for one
(open-telemetry/semantic-conventions, pull request 2387) where it has them, and are our own otherwise. `error.type` is
of the registry.
"""

from __future__ import annotations

SERVICE_NAME = "service.name"
ERROR_TYPE = "error.type"

DEFINITION_NAME = "workflow.definition.name"
DEFINITION_VERSION = "workflow.definition.version"
EXECUTION_ID = "workflow.execution.id"
EXECUTION_STATE = "workflow.execution.state"
NODE_ID = "workflow.node.id"
NODE_HANDLER = "workflow.node.handler"
NODE_ATTEMPT = "workflow.node.attempt"
NODE_STATE = "workflow.node.state"
RETRY_AT = "workflow.node.retry_at"

SCOPE = "workflow_engine"
"""The instrumentation scope of the engine's own spans."""

EXECUTION_SPAN = "workflow {name}"
ATTEMPT_SPAN = "node {node_id}"
QUEUE_SPAN = "queue"
RUN_SPAN = "run {handler}"
