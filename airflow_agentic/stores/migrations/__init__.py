"""Alembic migrations of the SQL stores, run from code: no alembic.ini is needed."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def run_upgrade(connection: Connection, revision: str, version_table: str) -> None:
    """Run the missing steps up to ``revision`` on a connection whose transaction the caller holds."""
    config = _config()
    config.attributes["connection"] = connection
    config.attributes["version_table"] = version_table
    command.upgrade(config, revision)


def head() -> str:
    """Return the newest revision that there is a step for."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
