"""Workflow orchestration engine: DAGs in JSON, durable execution, handlers as plugins."""

__version__ = "0.1.0"
