from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from typing import Any

import pytest
from airflow._shared.module_loading import import_string
from airflow.cli.cli_config import ActionCommand, GroupCommand

from airflow_agentic.cli import arguments
from airflow_agentic.cli.definition import get_agentic_cli_commands
from airflow_agentic.cli.run_arguments import STATUSES
from airflow_agentic.messaging import Kind
from airflow_agentic.persistence import RunStatus

COMMANDS = {
    "agents list",
    "agents describe",
    "messages stats",
    "messages peek",
    "messages show",
    "messages trace",
    "messages send",
    "messages purge",
    "routes list",
    "routes explain",
    "routes subscribe",
    "routes unsubscribe",
    "faults add",
    "faults clear",
    "faults list",
    "faults plan",
    "heartbeats list",
    "dead-letters list",
    "dead-letters show",
    "dead-letters redrive",
    "policies list",
    "policies explain",
    "breakers list",
    "breakers show",
    "breakers trip",
    "breakers reset",
    "breakers force-closed",
    "limits list",
    "budgets list",
    "budgets show",
    "config show",
    "config explain",
    "config validate",
    "config schema",
    "runs list",
    "runs show",
    "runs events",
    "runs watch",
    "runs verify",
    "runs resume",
    "runs retry-step",
    "runs skip-step",
    "runs set-state",
    "runs answer",
    "runs fork",
    "runs export",
    "runs import",
    "runs prune",
    "runs forget",
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
    assert (
        wanted if name.startswith(("config ", "policies ")) else {"--conn-id", "--store-url", "--verbose"}
    ) <= flags


def test_the_definition_loads_no_other_part_of_the_package() -> None:
    program = (
        "import sys, airflow_agentic.cli.definition as d; d.get_agentic_cli_commands();"
        "print(*sorted(m for m in sys.modules if m.startswith('airflow_agentic.')))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) <= {
        "airflow_agentic.cli",
        "airflow_agentic.cli.arguments",
        "airflow_agentic.cli.definition",
        "airflow_agentic.cli.run_arguments",
        "airflow_agentic.cli.run_commands",
        # Read by Airflow itself when it starts.
        "airflow_agentic.cluster_policy",
        "airflow_agentic.config",
        "airflow_agentic.config.options",
        "airflow_agentic.get_provider_info",
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5s", 1.5),
        ("15m", 900),
        ("15min", 900),
        ("2h", 7200),
        ("14d", 1_209_600),
        (" 3 d ", 259_200),
    ],
)
def test_a_length_of_time_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert arguments.span(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3s", "3w", "d", "1e3", "99999999999d"])
def test_what_is_no_length_of_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="15m, 2h or 14d"):
        arguments.span(text)


@pytest.mark.parametrize("text", ["10", "-1", "4.5", "high", ""])
def test_a_priority_is_of_0_to_9(text: str) -> None:
    assert [arguments.priority(str(number)) for number in range(10)] == list(range(10))
    with pytest.raises(ArgumentTypeError, match="from 0 to 9"):
        arguments.priority(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast"])
def test_a_rate_is_positive(text: str) -> None:
    assert arguments.rate("0.5") == 0.5
    with pytest.raises(ArgumentTypeError, match="write a positive number"):
        arguments.rate(text)


def test_kinds_are_those_of_messages() -> None:
    assert arguments.KIND.kwargs["choices"] == tuple(Kind)


def test_statuses_are_those_of_runs() -> None:
    assert set(STATUSES) == set(RunStatus)


def test_the_help_shows_every_word(agentic: Any) -> None:
    shown = agentic("messages", "stats", "--help")

    assert shown.code == 0
    assert "store_url of section agentic" in shown.out
