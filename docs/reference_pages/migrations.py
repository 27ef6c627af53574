"""The SQL that makes the database, file by file."""

from __future__ import annotations

from workflow_engine.sql import load_migrations


def render() -> str:
    """A section for each migration, in the order in which they are applied."""
    return "\n\n".join(
        f"### {title} {migration.number:04}_{migration.name}\n\n```sql\n{migration.text.strip()}\n```"
        for dialect, title in (("sqlite", "SQLite"), ("postgres", "PostgreSQL"))
        for migration in load_migrations(dialect)
    )
