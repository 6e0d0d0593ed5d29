from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from airflow._shared.module_loading import import_string
from airflow.cli.cli_config import ActionCommand, GroupCommand

from airflow_agentic.cli.definition import get_agentic_cli_commands

COMMANDS = {
    "agents list",
    "agents describe",
    "messages stats",
    "messages peek",
    "messages trace",
    "messages send",
    "dead-letters list",
    "dead-letters show",
    "dead-letters redrive",
    "config show",
    "config explain",
    "config validate",
    "config schema",
    "db check",
    "db upgrade",
    "doctor",
}


def _actions(command: Any, above: str = "") -> Iterator[tuple[str, ActionCommand]]:
    if isinstance(command, GroupCommand):
        for sub in command.subcommands:
            yield from _actions(sub, f"{above} {sub.name}".strip())
    else:
        yield above, command


def _all() -> dict[str, ActionCommand]:
    (group,) = get_agentic_cli_commands()
    assert group.name == "agentic"
    return dict(_actions(group))


def test_the_commands_are_these() -> None:
    assert set(_all()) == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_be_loaded_and_names_a_store_or_is_about_the_project(name: str) -> None:
    command = _all()[name]
    (path,) = (cell.cell_contents for cell in command.func.__closure__ or ())

    assert callable(import_string(path))
    flags = {flag for arg in command.args for flag in arg.flags}
    wanted = {"--verbose"} if name == "config schema" else {"--verbose", "--project", "--set", "--output"}
    assert (wanted if name.startswith("config ") else {"--conn-id", "--store-url", "--verbose"}) <= flags


def test_the_definition_loads_no_other_part_of_the_package() -> None:
    program = (
        "import sys, airflow_agentic.cli.definition as d; d.get_agentic_cli_commands();"
        "print(*sorted(m for m in sys.modules if m.startswith('airflow_agentic.')))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) <= {
        "airflow_agentic.cli",
        "airflow_agentic.cli.definition",
        # Read by Airflow itself when it starts.
        "airflow_agentic.cluster_policy",
        "airflow_agentic.config",
        "airflow_agentic.config.options",
        "airflow_agentic.get_provider_info",
    }


def test_the_help_shows_every_word(agentic: Any) -> None:
    shown = agentic("messages", "stats", "--help")

    assert shown.code == 0
    assert "store_url of section agentic" in shown.out
