"""Commands of ``airflow agentic runs``. Airflow reads it for every one of its commands: nothing else is loaded."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ARG_YES, ActionCommand, lazy_load_command

from airflow_agentic.cli import arguments as arg
from airflow_agentic.cli import run_arguments as run

_COMMANDS = "airflow_agentic.cli.commands"

_STORE = (arg.CONN_ID, arg.STORE_URL, arg.PROJECT, arg.SET, ARG_VERBOSE)
_LISTING = (*_STORE, ARG_OUTPUT)
_BY_HAND = (arg.REASON, arg.ACTOR, run.FORCE, *_LISTING)

RUNS = (
    ActionCommand(
        name="list",
        help="List runs: how far each is, what it waits for, why it failed",
        func=lazy_load_command(f"{_COMMANDS}.runs.list_runs"),
        args=(
            run.OF_AGENT,
            run.STATUS,
            run.CORRELATION,
            run.KEY_PREFIX,
            run.LIMIT_RUNS,
            run.ALL_RUNS,
            *_LISTING,
        ),
    ),
    ActionCommand(
        name="show",
        help="Show a run, or all runs of a DAG run or a conversation with their open messages",
        func=lazy_load_command(f"{_COMMANDS}.runs.show_run"),
        args=(run.RUN_OR_CORRELATION_OPTIONAL, run.ARCHIVE, *_LISTING),
    ),
    ActionCommand(
        name="events",
        help="List what happened in a run",
        func=lazy_load_command(f"{_COMMANDS}.runs.list_events"),
        args=(run.RUN_OPTIONAL, run.AFTER, run.EVENT_TYPE, run.LIMIT_EVENTS, run.ARCHIVE, *_LISTING),
    ),
    ActionCommand(
        name="watch",
        help="Show how runs go on, until all have ended",
        description="Show how runs go on, until all have finished, failed or been put into quarantine: in place on a\n"
        "terminal, else a line for each change. Exits with 1 if one did not finish.",
        func=lazy_load_command(f"{_COMMANDS}.runs.watch_runs"),
        args=(run.RUN_OR_CORRELATION, run.EVERY, run.TIMEOUT, *_STORE),
    ),
    ActionCommand(
        name="verify",
        help="Check journals against their seals",
        description="Check journals and snapshots against their seals. Each damage is named: run, version, what is wrong.\n"
        "Exits with 1 if there is one.",
        func=lazy_load_command(f"{_COMMANDS}.runs.verify_runs"),
        args=(run.RUN_OPTIONAL, run.VERIFY_ALL, run.ARCHIVE, *_LISTING),
    ),
    ActionCommand(
        name="resume",
        help="Let a run go on",
        description="Let a run go on: end the lease of somebody who is gone, or a quarantine whose cause was mended. With\n"
        "--clear its Airflow task is started again. Finished steps are not done again.",
        func=lazy_load_command(f"{_COMMANDS}.runs_by_hand.resume_run"),
        args=(run.RUN, run.CLEAR, *_BY_HAND),
    ),
    ActionCommand(
        name="retry-step",
        help="Let an ambiguous step be done again: its effect did not take place",
        func=lazy_load_command(f"{_COMMANDS}.runs_by_hand.retry_step"),
        args=(run.RUN, run.STEP, *_BY_HAND),
    ),
    ActionCommand(
        name="skip-step",
        help="Let a step count as done: its effect took place, or must not",
        func=lazy_load_command(f"{_COMMANDS}.runs_by_hand.skip_step"),
        args=(run.RUN, run.STEP, run.RESULT, *_BY_HAND),
    ),
    ActionCommand(
        name="set-state",
        help="Change the state of a run",
        func=lazy_load_command(f"{_COMMANDS}.runs_by_hand.set_state"),
        args=(run.RUN, run.PATCH, run.NEW_STATE, *_BY_HAND),
    ),
    ActionCommand(
        name="answer",
        help="Answer what a run asks",
        func=lazy_load_command(f"{_COMMANDS}.runs_by_hand.answer_question"),
        args=(run.RUN, run.QUESTION, run.ANSWER, arg.ACTOR, *_LISTING),
    ),
    ActionCommand(
        name="fork",
        help="Begin a new run from a past moment of another one",
        description="Begin a new run from a past moment of another one, which stays as it is. What was finished by then is\n"
        "finished in the new run; effects outside stay.",
        func=lazy_load_command(f"{_COMMANDS}.runs_by_hand.fork_run"),
        args=(run.RUN, run.AT, run.NEW_KEY, run.PATCH, arg.REASON, arg.ACTOR, *_LISTING),
    ),
    ActionCommand(
        name="export",
        help="Write a run to a file, for a bug report or another store",
        description="Write a run to a file, for a bug report or another store. Results, events, states, answers and texts\n"
        "of errors are left out unless --include-data is given: digests and sizes take their place.",
        func=lazy_load_command(f"{_COMMANDS}.runs_files.export_run"),
        args=(run.RUN, run.FILE_TO_WRITE, run.INCLUDE_DATA, ARG_YES, *_LISTING),
    ),
    ActionCommand(
        name="import",
        help="Make a run of such a file",
        func=lazy_load_command(f"{_COMMANDS}.runs_files.import_run"),
        args=(run.FILE_TO_READ, run.NEW_KEY, run.REASON_OPTIONAL, arg.ACTOR, *_LISTING),
    ),
    ActionCommand(
        name="prune",
        help="Forget of finished runs what nobody needs",
        description="Forget the events of finished runs that their persistence can spare (snapshot, checkpoint); with --whole\n"
        "the runs themselves.",
        func=lazy_load_command(f"{_COMMANDS}.runs_files.prune_runs"),
        args=(run.OF_AGENT, run.RUNS_OLDER_THAN, run.KEEP, run.WHOLE, ARG_YES, *_LISTING),
    ),
    ActionCommand(
        name="forget",
        help="Forget a run whole",
        func=lazy_load_command(f"{_COMMANDS}.runs_files.forget_run"),
        args=(run.RUN, arg.REASON, run.FORGET_FORCE, ARG_YES, *_LISTING),
    ),
)
