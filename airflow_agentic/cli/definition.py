"""Arguments of ``airflow agentic``. Airflow reads it for every one of its commands: nothing else is loaded."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    Arg,
    CLICommand,
    GroupCommand,
    lazy_load_command,
    positive_int,
)

_COMMANDS = "airflow_agentic.cli.commands"

ARG_CONN_ID = Arg(
    ("--conn-id",),
    metavar="CONN_ID",
    help="Airflow connection of type agentic that names the store. Default: agentic_default if it exists,\n"
    # Brackets are markup to the printer of the help.
    "else the option store_url of section agentic, else agentic.db under AIRFLOW_HOME",
)
ARG_STORE_URL = Arg(
    ("--store-url",),
    metavar="URL",
    help="The store itself, sqlite:////var/lib/airflow/agentic.db or postgresql://user@host/db; asks no Airflow\nconnection",
)
ARG_AGENT = Arg(("name",), metavar="NAME", help="Name of the agent")
ARG_MAILBOX = Arg(("mailbox",), metavar="MAILBOX", help="Name of the mailbox")
ARG_MAILBOX_OPTIONAL = Arg(("mailbox",), metavar="MAILBOX", nargs="?", help="Only this mailbox; default all")
ARG_STATE = Arg(
    ("--state",),
    choices=("ready", "leased", "done", "dead"),
    help="Only deliveries in this state; default those that have not ended (ready, leased)",
)
ARG_LIMIT_PEEK = Arg(
    ("--limit",),
    type=positive_int(allow_zero=False),
    default=20,
    help="At most so many, oldest first (default: 20)",
)
ARG_LIMIT_DEAD = Arg(
    ("--limit",),
    type=positive_int(allow_zero=False),
    default=100,
    help="At most so many, oldest first (default: 100)",
)
ARG_IDENTIFIER = Arg(
    ("identifier",),
    metavar="ID",
    help='Id of any message of the conversation, or a correlation id; that of a DAG run is "dag_id:run_id"',
)
ARG_SOURCE = Arg(("--source",), required=True, help="Who says it: the name of an agent, or yours")
ARG_DATA = Arg(("--data",), required=True, metavar="JSON", help="What it says: any JSON value")
ARG_TYPE = Arg(
    ("--type",), default="agentic.message", help="What happened or is wanted (default: agentic.message)"
)
ARG_DELIVERY = Arg(
    ("delivery_id",), metavar="ID", type=int, help="Number of the delivery, as `dead-letters list` shows it"
)
ARG_DELIVERIES = Arg(
    ("delivery_ids",),
    metavar="ID",
    type=int,
    nargs="*",
    help="Numbers of the deliveries, as `dead-letters list` shows them",
)
ARG_REDRIVE_MAILBOX = Arg(
    ("--mailbox",), metavar="MAILBOX", help="Instead of numbers: all dead letters of this mailbox"
)
ARG_REASON = Arg(("--reason",), required=True, metavar="TEXT", help="Why; kept in the history")
ARG_ACTOR = Arg(
    ("--actor",), metavar="NAME", help="Who does it; kept in the history (default: the user of the shell)"
)

ARG_PROJECT = Arg(
    ("--project",),
    action="append",
    metavar="PATH",
    help="Project file or directory, in place of the option project_file of section agentic; may be given again:\n"
    "later over earlier",
)
ARG_SET = Arg(
    ("--set",),
    dest="overrides",
    action="append",
    metavar="KEY=VALUE",
    help="Lay a value over everything that is written down, as in agents.triage.config.pause_seconds=0.5;\n"
    "may be given again",
)
ARG_KEY = Arg(
    ("key",),
    metavar="KEY",
    help="Dotted key, such as agents.triage.config; the bare name of an option is one too: max_attempts",
)
ARG_KEY_OPTIONAL = Arg(
    ("key",), metavar="KEY", nargs="?", help="Only what is at or below this key; default everything"
)
ARG_ALL = Arg(("--all",), action="store_true", help="Coded defaults too, not only what is declared")
ARG_FILES = Arg(
    ("files",),
    metavar="FILE",
    nargs="*",
    help="Project files or directories, checked together, later over earlier; default the configured project",
)

_STORE = (ARG_CONN_ID, ARG_STORE_URL, ARG_PROJECT, ARG_SET, ARG_VERBOSE)
_LISTING = (*_STORE, ARG_OUTPUT)
_PROJECT = (ARG_PROJECT, ARG_SET, ARG_VERBOSE, ARG_OUTPUT)

_AGENTS = (
    ActionCommand(
        name="list",
        help="List agents with their state and numbers",
        func=lazy_load_command(f"{_COMMANDS}.agents.list_agents"),
        args=_LISTING,
    ),
    ActionCommand(
        name="describe",
        help="Show all that is known of an agent",
        func=lazy_load_command(f"{_COMMANDS}.agents.describe_agent"),
        args=(ARG_AGENT, *_LISTING),
    ),
)
_MESSAGES = (
    ActionCommand(
        name="stats",
        help="Count the deliveries of mailboxes",
        func=lazy_load_command(f"{_COMMANDS}.messages.mailbox_stats"),
        args=(ARG_MAILBOX_OPTIONAL, *_LISTING),
    ),
    ActionCommand(
        name="peek",
        help="Look into a mailbox without touching it",
        func=lazy_load_command(f"{_COMMANDS}.messages.peek_mailbox"),
        args=(ARG_MAILBOX, ARG_STATE, ARG_LIMIT_PEEK, *_LISTING),
    ),
    ActionCommand(
        name="trace",
        help="Show a conversation: which message caused which, and what became of each",
        func=lazy_load_command(f"{_COMMANDS}.messages.trace_conversation"),
        args=(ARG_IDENTIFIER, *_LISTING),
    ),
    ActionCommand(
        name="send",
        help="Send a message to a mailbox",
        func=lazy_load_command(f"{_COMMANDS}.messages.send_message"),
        args=(ARG_MAILBOX, ARG_SOURCE, ARG_DATA, ARG_TYPE, *_LISTING),
    ),
)
_DEAD_LETTERS = (
    ActionCommand(
        name="list",
        help="List dead letters",
        func=lazy_load_command(f"{_COMMANDS}.dead_letters.list_dead_letters"),
        args=(ARG_MAILBOX_OPTIONAL, ARG_LIMIT_DEAD, *_LISTING),
    ),
    ActionCommand(
        name="show",
        help="Show a dead letter: envelope, reason and history",
        func=lazy_load_command(f"{_COMMANDS}.dead_letters.show_dead_letter"),
        args=(ARG_DELIVERY, *_LISTING),
    ),
    ActionCommand(
        name="redrive",
        help="Give dead letters another chance",
        description="Make dead letters ready again, with no attempts counted. Who did it and why is kept.",
        func=lazy_load_command(f"{_COMMANDS}.dead_letters.redrive_dead_letters"),
        args=(ARG_DELIVERIES, ARG_REDRIVE_MAILBOX, ARG_REASON, ARG_ACTOR, ARG_YES, *_LISTING),
    ),
)
_DATABASE = (
    ActionCommand(
        name="check",
        help="Compare the schema of the store with what this version needs",
        func=lazy_load_command(f"{_COMMANDS}.database.check_schema"),
        args=_LISTING,
    ),
    ActionCommand(
        name="upgrade",
        help="Create the store, or bring its schema to this version",
        func=lazy_load_command(f"{_COMMANDS}.database.upgrade_schema"),
        args=_STORE,
    ),
)
_CONFIG = (
    ActionCommand(
        name="show",
        help="List declared values with their sources",
        func=lazy_load_command(f"{_COMMANDS}.config.show_values"),
        args=(ARG_KEY_OPTIONAL, ARG_ALL, *_PROJECT),
    ),
    ActionCommand(
        name="explain",
        help="Say where a value comes from, and what it overrode",
        func=lazy_load_command(f"{_COMMANDS}.config.explain_key"),
        args=(ARG_KEY, *_PROJECT),
    ),
    ActionCommand(
        name="validate",
        help="Check project files, or the configured project",
        description="Check everything, also what needs the code of agents and services. Every fault is printed as\n"
        "file:line: key: message. Exits with 1 if there is one.",
        func=lazy_load_command(f"{_COMMANDS}.config.validate_files"),
        args=(ARG_FILES, *_PROJECT),
    ),
    ActionCommand(
        name="schema",
        help="Print the JSON Schema of a project file, for editors",
        description="Print the JSON Schema of a project file. An editor completes and checks with it: write it to\n"
        "agentic.schema.json, and begin the YAML with\n"
        "# yaml-language-server: $schema=agentic.schema.json",
        func=lazy_load_command(f"{_COMMANDS}.config.print_schema"),
        args=(ARG_VERBOSE,),
    ),
)


def get_agentic_cli_commands() -> list[CLICommand]:
    """Return the command group of this provider, for Airflow's command line."""
    return [
        GroupCommand(
            name="agentic",
            help="Agents, their messages and their store",
            subcommands=(
                GroupCommand(name="agents", help="State and numbers of agents", subcommands=_AGENTS),
                GroupCommand(name="messages", help="Mailboxes and messages", subcommands=_MESSAGES),
                GroupCommand(
                    name="dead-letters", help="Messages that nobody could handle", subcommands=_DEAD_LETTERS
                ),
                GroupCommand(
                    name="config", help="What is declared, and where it comes from", subcommands=_CONFIG
                ),
                GroupCommand(name="db", help="The schema of the store", subcommands=_DATABASE),
                ActionCommand(
                    name="doctor",
                    help="Check the installation and the store, and say what to do",
                    func=lazy_load_command(f"{_COMMANDS}.doctor.examine"),
                    args=_LISTING,
                ),
            ),
        )
    ]
