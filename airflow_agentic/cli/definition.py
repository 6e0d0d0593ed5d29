"""Commands of ``airflow agentic``. Airflow reads it for every one of its commands: nothing else is loaded."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    CLICommand,
    GroupCommand,
    lazy_load_command,
)

from airflow_agentic.cli import arguments as arg
from airflow_agentic.cli.run_commands import RUNS

_COMMANDS = "airflow_agentic.cli.commands"

_STORE = (arg.CONN_ID, arg.STORE_URL, arg.PROJECT, arg.SET, ARG_VERBOSE)
_LISTING = (*_STORE, ARG_OUTPUT)
_PROJECT = (arg.PROJECT, arg.SET, ARG_VERBOSE, ARG_OUTPUT)

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
        args=(arg.AGENT, *_LISTING),
    ),
)
_MESSAGES = (
    ActionCommand(
        name="stats",
        help="Count the deliveries of mailboxes",
        func=lazy_load_command(f"{_COMMANDS}.messages.mailbox_stats"),
        args=(arg.MAILBOX_OPTIONAL, *_LISTING),
    ),
    ActionCommand(
        name="peek",
        help="Look into a mailbox without touching it",
        func=lazy_load_command(f"{_COMMANDS}.messages.peek_mailbox"),
        args=(arg.MAILBOX, arg.STATE, arg.LIMIT_PEEK, *_LISTING),
    ),
    ActionCommand(
        name="show",
        help="Show a message in full, and what became of it in every mailbox",
        func=lazy_load_command(f"{_COMMANDS}.messages.show_message"),
        args=(arg.MESSAGE, *_LISTING),
    ),
    ActionCommand(
        name="trace",
        help="Show a conversation: which message caused which, and what became of each",
        description="Show a conversation as a tree, across DAGs: which message caused which, which task sent and which\n"
        "handled each, and what became of it.",
        func=lazy_load_command(f"{_COMMANDS}.messages.trace_conversation"),
        args=(arg.IDENTIFIER, *_LISTING),
    ),
    ActionCommand(
        name="send",
        help="Send a message to a mailbox, to subscribers of a topic, or to a group",
        func=lazy_load_command(f"{_COMMANDS}.messages.send_message"),
        args=(
            arg.RECIPIENT,
            arg.TOPIC,
            arg.AUDIENCE,
            arg.SOURCE,
            arg.DATA,
            arg.TYPE,
            arg.KIND,
            arg.SUBJECT,
            arg.REPLY_TO,
            arg.ORDERING_KEY,
            arg.PRIORITY,
            arg.DELAY,
            arg.EXPIRES_IN,
            *_LISTING,
        ),
    ),
    ActionCommand(
        name="purge",
        help="Forget old messages that are done everywhere, and bury what has expired",
        description="Forget old messages that are done in every mailbox, with their claim checks, and put what has\n"
        "expired into the dead letters. Dead letters stay. What guards know and nobody changed for long is forgotten, too.",
        func=lazy_load_command(f"{_COMMANDS}.messages.purge_messages"),
        args=(arg.OLDER_THAN, *_LISTING),
    ),
)
_ROUTES = (
    ActionCommand(
        name="list",
        help="List subscriptions, and where each is declared",
        func=lazy_load_command(f"{_COMMANDS}.routes.list_routes"),
        args=(arg.MAILBOX_OPTIONAL, *_LISTING),
    ),
    ActionCommand(
        name="explain",
        help="Say who would get a message, who would not, and why; nothing is sent",
        func=lazy_load_command(f"{_COMMANDS}.routes.explain_routes"),
        args=(
            arg.TOPIC,
            arg.TO,
            arg.AUDIENCE,
            arg.DATA_ANY,
            arg.TYPE,
            arg.SOURCE_ANY,
            arg.KIND,
            arg.SUBJECT,
            arg.ORDERING_KEY,
            arg.PRIORITY,
            *_LISTING,
        ),
    ),
    ActionCommand(
        name="subscribe",
        help="Let a mailbox hear what is published",
        description="Let a mailbox hear what is published. Better declare it in the project file, if it shall last.",
        func=lazy_load_command(f"{_COMMANDS}.routes.subscribe"),
        args=(
            arg.MAILBOX,
            arg.PATTERN,
            arg.FILTER,
            arg.ROLE,
            arg.TAG,
            arg.MAX_ATTEMPTS,
            *_LISTING,
        ),
    ),
    ActionCommand(
        name="unsubscribe",
        help="End subscriptions of a mailbox",
        description="End subscriptions of a mailbox that were made by API or by `subscribe`. Those of the project file\n"
        "end there.",
        func=lazy_load_command(f"{_COMMANDS}.routes.unsubscribe"),
        args=(arg.MAILBOX, arg.PATTERN_ONLY, arg.FILTER_ONLY, ARG_YES, *_LISTING),
    ),
)
_HEARTBEATS = (
    ActionCommand(
        name="list",
        help="List the last sign of life of every source, and which are late",
        func=lazy_load_command(f"{_COMMANDS}.heartbeats.list_heartbeats"),
        args=_LISTING,
    ),
)
_DEAD_LETTERS = (
    ActionCommand(
        name="list",
        help="List dead letters",
        func=lazy_load_command(f"{_COMMANDS}.dead_letters.list_dead_letters"),
        args=(arg.MAILBOX_OPTIONAL, arg.LIMIT_DEAD, *_LISTING),
    ),
    ActionCommand(
        name="show",
        help="Show a dead letter: envelope, reason and history",
        func=lazy_load_command(f"{_COMMANDS}.dead_letters.show_dead_letter"),
        args=(arg.DELIVERY, *_LISTING),
    ),
    ActionCommand(
        name="redrive",
        help="Give dead letters another chance",
        description="Make dead letters ready again, with no attempts counted. Who did it and why is kept.",
        func=lazy_load_command(f"{_COMMANDS}.dead_letters.redrive_dead_letters"),
        args=(
            arg.DELIVERIES,
            arg.REDRIVE_MAILBOX,
            arg.FILTER_DEAD,
            arg.REDRIVE_ALL,
            arg.REDRIVE_TO,
            arg.RATE,
            arg.REASON,
            arg.ACTOR,
            ARG_YES,
            *_LISTING,
        ),
    ),
)
_BREAKERS = (
    ActionCommand(
        name="list",
        help="List breakers: how each stands, and why",
        func=lazy_load_command(f"{_COMMANDS}.breakers.list_breakers"),
        args=(arg.PREFIX, *_LISTING),
    ),
    ActionCommand(
        name="show",
        help="Show all that is known of a breaker, with its history",
        func=lazy_load_command(f"{_COMMANDS}.breakers.show_breaker"),
        args=(arg.BREAKER, *_LISTING),
    ),
    ActionCommand(
        name="trip",
        help="Open a breaker by hand: stop all calls",
        description="Open a breaker by hand: no call of any worker goes until it is reset, or for a time. Workers know it\n"
        "within a second. Who did it and why is kept.",
        func=lazy_load_command(f"{_COMMANDS}.breakers.trip_breaker"),
        args=(arg.BREAKER, arg.REASON, arg.LASTS, arg.ACTOR, *_LISTING),
    ),
    ActionCommand(
        name="reset",
        help="Close a breaker by hand, and forget all results",
        description="Close a breaker by hand, also one that a person opened or held closed, and forget all results: it\n"
        "judges anew. Who did it and why is kept.",
        func=lazy_load_command(f"{_COMMANDS}.breakers.reset_breaker"),
        args=(arg.BREAKER, arg.REASON, arg.ACTOR, *_LISTING),
    ),
    ActionCommand(
        name="force-closed",
        help="Hold a breaker closed by hand: let all calls go",
        description="Hold a breaker closed by hand: all calls go, whatever becomes of them, until it is reset, or for a\n"
        "time. Who did it and why is kept.",
        func=lazy_load_command(f"{_COMMANDS}.breakers.force_breaker_closed"),
        args=(arg.BREAKER, arg.REASON, arg.LASTS, arg.ACTOR, *_LISTING),
    ),
)
_LIMITS = (
    ActionCommand(
        name="list",
        help="List rate limits and bulkheads: what is in use, and when the next call may go",
        func=lazy_load_command(f"{_COMMANDS}.limits.list_limits"),
        args=(arg.PREFIX, *_LISTING),
    ),
)
_BUDGETS = (
    ActionCommand(
        name="list",
        help="List what is spent, and what may be",
        func=lazy_load_command(f"{_COMMANDS}.budgets.list_budgets"),
        args=(arg.PAST, *_LISTING),
    ),
    ActionCommand(
        name="show",
        help="Show a budget: what is spent, set aside and left, for everybody who has one",
        func=lazy_load_command(f"{_COMMANDS}.budgets.show_budget"),
        args=(arg.BUDGET, arg.PAST, *_LISTING),
    ),
)
_POLICIES = (
    ActionCommand(
        name="list",
        help="List the policies that are declared, and who has them",
        func=lazy_load_command(f"{_COMMANDS}.policies.list_policies"),
        args=_PROJECT,
    ),
    ActionCommand(
        name="explain",
        help="Say in words what a policy does to a call, in its order and with its numbers",
        func=lazy_load_command(f"{_COMMANDS}.policies.explain_policy"),
        args=(arg.POLICY, *_PROJECT),
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
_FAULTS = (
    ActionCommand(
        name="list",
        help="List the rules of fault injection, and how often each was obeyed",
        func=lazy_load_command(f"{_COMMANDS}.faults.list_faults"),
        args=_LISTING,
    ),
    ActionCommand(
        name="add",
        help="Let all workers inject a fault from now on",
        description="Let all workers inject a fault from now on, until it is cleared or has happened often enough. They\n"
        "obey only with the option fault_injection; in production it is refused.",
        func=lazy_load_command(f"{_COMMANDS}.faults.add_fault"),
        args=(
            arg.FAULT,
            arg.FAULT_WHERE,
            arg.FAULT_WHAT,
            arg.FAULT_CATEGORY,
            arg.FAULT_SECONDS,
            arg.FAULT_PROBABILITY,
            arg.FAULT_COUNT,
            arg.FAULT_AFTER,
            arg.FAULT_FROM,
            arg.FAULT_FOR,
            arg.FAULT_SEED,
            arg.ACTOR,
            *_LISTING,
        ),
    ),
    ActionCommand(
        name="clear",
        help="End rules that were added",
        description="End rules that were added. Those of the project file end there; of them, the counts are forgotten.",
        func=lazy_load_command(f"{_COMMANDS}.faults.clear_faults"),
        args=(arg.FAULTS, arg.FAULTS_ALL, *_LISTING),
    ),
    ActionCommand(
        name="plan",
        help="Run a drill: a DAG with each kind of fault, and whether the promises held",
        description="Run a DAG once without faults and then once with each kind of fault, and say which promise held.\n"
        "It runs on the Airflow whose scheduler is alive, else in processes of its own. Exits with 1 if a promise broke.",
        func=lazy_load_command(f"{_COMMANDS}.faults.plan_faults"),
        args=(
            arg.DAG_ID,
            arg.DRILL_RULES,
            arg.DRILL_KINDS,
            arg.DRILL_TIMEOUT,
            arg.DRILL_IN_PROCESS,
            *_LISTING,
        ),
    ),
)
_CONFIG = (
    ActionCommand(
        name="show",
        help="List declared values with their sources",
        func=lazy_load_command(f"{_COMMANDS}.config.show_values"),
        args=(arg.KEY_OPTIONAL, arg.ALL, *_PROJECT),
    ),
    ActionCommand(
        name="explain",
        help="Say where a value comes from, and what it overrode",
        func=lazy_load_command(f"{_COMMANDS}.config.explain_key"),
        args=(arg.KEY, *_PROJECT),
    ),
    ActionCommand(
        name="validate",
        help="Check project files, or the configured project",
        description="Check everything, also what needs the code of agents and services. Every fault is printed as\n"
        "file:line: key: message. Exits with 1 if there is one.",
        func=lazy_load_command(f"{_COMMANDS}.config.validate_files"),
        args=(arg.FILES, *_PROJECT),
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
                GroupCommand(name="routes", help="Who gets which messages, and why", subcommands=_ROUTES),
                GroupCommand(name="runs", help="Durable runs: what they did, and going on", subcommands=RUNS),
                GroupCommand(name="heartbeats", help="Signs of life", subcommands=_HEARTBEATS),
                GroupCommand(
                    name="dead-letters", help="Messages that nobody could handle", subcommands=_DEAD_LETTERS
                ),
                GroupCommand(name="policies", help="How work is guarded", subcommands=_POLICIES),
                GroupCommand(
                    name="breakers", help="Circuit breakers that all workers share", subcommands=_BREAKERS
                ),
                GroupCommand(
                    name="limits", help="Rates and slots that all workers share", subcommands=_LIMITS
                ),
                GroupCommand(name="budgets", help="What may be spent, and what is", subcommands=_BUDGETS),
                GroupCommand(name="faults", help="Fault injection, and drills", subcommands=_FAULTS),
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
