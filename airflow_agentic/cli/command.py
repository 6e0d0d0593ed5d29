"""What surrounds every command: quiet logs, errors without tracebacks, and Airflow's own record of what people did."""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable

from airflow.utils.cli import action_cli, suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_agentic import runtime
from airflow_agentic.cli.access import completed
from airflow_agentic.cli.output import clean
from airflow_agentic.errors import AgenticError, ProjectInvalid

Command = Callable[[Namespace], None]

_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@]+@")


def command(run: Command) -> Command:
    """Make a function a command: logs stay out of its output, and an error of ours ends it with one line.

    An invalid project has a line of its own for each fault.

    Raises:
        SystemExit: With the text of the error; the exit code is 1.
    """
    quiet: Command = suppress_logs_and_warning(providers_configuration_loaded(run))

    @functools.wraps(run)
    def wrapper(args: Namespace) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal that has no letter for something in the data must not end the command.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with runtime.command_line(
                getattr(args, "overrides", None) or (), getattr(args, "project", None) or ()
            ):
                quiet(args)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read this has enough: `| head`. Python would complain again when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except AgenticError as error:
            lines = (_PASSWORD.sub(r"\1***@", clean(line)) for line in _told(error, args))
            raise SystemExit("\n  ".join(lines)) from None

    return wrapper


def recorded(run: Command) -> Command:
    """Enter the command in Airflow's audit log, as Airflow does with its own interventions.

    With ``--store-url`` nothing is entered: such a call must work without Airflow's metadata database.
    """
    logged: Command = action_cli(check_db=False)(run)

    @functools.wraps(run)
    def wrapper(args: Namespace) -> None:
        (run if args.store_url else logged)(args)

    return wrapper


def _told(error: AgenticError, args: Namespace) -> list[str]:
    # Commands that are about the project name no store.
    text = completed(str(error), args) if "store_url" in args else str(error)
    if not isinstance(error, ProjectInvalid):
        return [f"error: {text}"]
    head, _, _ = text.partition("\n")
    return [f"error: {head}", *map(str, error.errors)]
