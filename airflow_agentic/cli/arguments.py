"""Arguments of the commands. Airflow reads them for every one of its commands: nothing else is loaded."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from datetime import timedelta

from airflow.cli.cli_config import Arg, positive_int

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?")
_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400}
_KINDS = ("request", "response", "notification", "error", "heartbeat")
_HIGHEST_PRIORITY = 9
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_CATEGORIES = (
    "transient",
    "permanent",
    "configuration",
    "resource_exhaustion",
    "cancelled",
    "deadline_exceeded",
)
FAULT_KINDS = ("latency", "error", "sigkill", "drop", "duplicate", "corrupt", "slow_store", "clock_jump")
"""What fault injection can do."""


def span(text: str) -> timedelta:
    """Read a length of time: ``90``, ``90s``, ``15m``, ``2h``, ``14d``.

    Raises:
        ArgumentTypeError: It is none.
    """
    found = _SPAN.fullmatch(text.strip())
    try:
        if found is not None:
            return timedelta(seconds=float(found[1]) * _UNITS[found[2] or "s"])
    except OverflowError:
        pass
    raise ArgumentTypeError(f"{text!r} is no length of time: write 90 (seconds), 15m, 2h or 14d")


def priority(text: str) -> int:
    """Read a priority.

    Raises:
        ArgumentTypeError: It is not of 0 to 9.
    """
    if not text.isdecimal() or int(text) > _HIGHEST_PRIORITY:
        raise ArgumentTypeError(f"{text!r} is no priority: write a number from 0 to {_HIGHEST_PRIORITY}")
    return int(text)


def rate(text: str) -> float:
    """Read how many a second.

    Raises:
        ArgumentTypeError: It is no positive number.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"{text!r} is no rate: write a positive number, as in 10 or 0.5")
    return number


def name(text: str) -> str:
    """Read the name of something that is declared.

    Raises:
        ArgumentTypeError: It cannot be one.
    """
    if not _NAME.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is no name: write letters, digits, '_', '-' and '.', at most 200")
    return text


CONN_ID = Arg(
    ("--conn-id",),
    metavar="CONN_ID",
    help="Airflow connection of type agentic, postgres or redis that names the store. Default: agentic_default if\n"
    # Brackets are markup to the printer of the help.
    "it exists, else the option store_url of section agentic, else agentic.db under AIRFLOW_HOME",
)
STORE_URL = Arg(
    ("--store-url",),
    metavar="URL",
    help="The store itself: sqlite:////var/lib/airflow/agentic.db, postgresql://user@host/db, redis://host:6379/0;\n"
    "asks no Airflow connection",
)
AGENT = Arg(("name",), metavar="NAME", help="Name of the agent")
MAILBOX = Arg(("mailbox",), metavar="MAILBOX", help="Name of the mailbox")
MAILBOX_OPTIONAL = Arg(("mailbox",), metavar="MAILBOX", nargs="?", help="Only this mailbox; default all")
STATE = Arg(
    ("--state",),
    choices=("ready", "leased", "done", "dead"),
    help="Only deliveries in this state; default those that have not ended (ready, leased)",
)
LIMIT_PEEK = Arg(
    ("--limit",),
    type=positive_int(allow_zero=False),
    default=20,
    help="At most so many, oldest first (default: 20)",
)
LIMIT_DEAD = Arg(
    ("--limit",),
    type=positive_int(allow_zero=False),
    default=100,
    help="At most so many, oldest first (default: 100)",
)
IDENTIFIER = Arg(
    ("identifier",),
    metavar="ID",
    help='Id of any message of the conversation, or a correlation id; that of a DAG run is "dag_id:run_id"',
)
SOURCE = Arg(("--source",), required=True, help="Who says it: the name of an agent, or yours")
DATA = Arg(("--data",), required=True, metavar="JSON", help="What it says: any JSON value")
TYPE = Arg(
    ("--type",), default="agentic.message", help="What happened or is wanted (default: agentic.message)"
)
DELIVERY = Arg(
    ("delivery_id",), metavar="ID", type=int, help="Number of the delivery, as `dead-letters list` shows it"
)
DELIVERIES = Arg(
    ("delivery_ids",),
    metavar="ID",
    type=int,
    nargs="*",
    help="Numbers of the deliveries, as `dead-letters list` shows them",
)
REDRIVE_MAILBOX = Arg(
    ("--mailbox",), metavar="MAILBOX", help="Instead of numbers: all dead letters of this mailbox"
)
REASON = Arg(("--reason",), required=True, metavar="TEXT", help="Why; kept in the history")
ACTOR = Arg(
    ("--actor",), metavar="NAME", help="Who does it; kept in the history (default: the user of the shell)"
)

RECIPIENT = Arg(
    ("mailbox",), metavar="MAILBOX", nargs="?", help="Name of the mailbox; or give --topic or --audience"
)
TOPIC = Arg(("--topic",), metavar="TOPIC", help="For whoever subscribed to this topic, as in orders.created")
AUDIENCE = Arg(
    ("--audience",),
    metavar="AUDIENCE",
    help="For a group: all, role:NAME or tag:NAME, of agents and mailboxes",
)
TO = Arg(("--to",), metavar="MAILBOX", help="For this mailbox")
KIND = Arg(("--kind",), choices=_KINDS, default="notification", help="What it is for (default: notification)")
SUBJECT = Arg(("--subject",), metavar="TEXT", help="What it is about, within the source")
REPLY_TO = Arg(("--reply-to",), metavar="MAILBOX", help="Mailbox for the answer to a request")
ORDERING_KEY = Arg(
    ("--ordering-key",),
    metavar="KEY",
    help="Messages of one mailbox with the same key are handled in order, one at a time",
)
PRIORITY = Arg(
    ("--priority",),
    type=priority,
    default=4,
    metavar="NUMBER",
    help="0 to 9; higher ones are received first (default: 4)",
)
DELAY = Arg(
    ("--delay",),
    type=span,
    default=timedelta(0),
    metavar="TIME",
    help="Nobody can receive it before: 90s, 15m, 2h, 1d",
)
EXPIRES_IN = Arg(
    ("--expires-in",),
    type=span,
    metavar="TIME",
    help="It is of no use after: 90s, 15m, 2h, 1d; default never",
)
SOURCE_ANY = Arg(
    ("--source",),
    default="somebody",
    metavar="SOURCE",
    help="Who says it, if a filter asks (default: somebody)",
)
DATA_ANY = Arg(
    ("--data",),
    default="null",
    metavar="JSON",
    help="What it says, if a filter asks: any JSON value (default: null)",
)
OLDER_THAN = Arg(
    ("--older-than",),
    type=span,
    metavar="TIME",
    help="Only what was sent longer ago: 12h, 14d. Default, and least: the option dedup_window_seconds",
)
MESSAGE = Arg(("message_id",), metavar="ID", help="Id of the message")
PATTERN = Arg(
    ("--topic",),
    metavar="PATTERN",
    help="Words with dots between them, * for one word and # for any number, as in orders.*.created or audit.#.\n"
    "Default: every topic, unless there is only a role or a tag",
)
PATTERN_ONLY = Arg(("--topic",), metavar="PATTERN", help="Only those of this pattern; default all")
FILTER = Arg(("--filter",), metavar="CEL", help="Only messages for which this holds: msg.data.total > 100")
FILTER_ONLY = Arg(("--filter",), metavar="CEL", help="Only the one with this filter; needs --topic")
FILTER_DEAD = Arg(
    ("--filter",),
    metavar="CEL",
    help="Instead of numbers: those for which this holds, as in msg.type == 'order'; of all mailboxes, or of --mailbox",
)
ROLE = Arg(("--role",), metavar="ROLE", help="Messages for the audience role:ROLE reach it")
TAG = Arg(
    ("--tag",),
    dest="tags",
    action="append",
    metavar="TAG",
    help="Messages for the audience tag:TAG reach it; may be given again",
)
MAX_ATTEMPTS = Arg(
    ("--max-attempts",),
    type=positive_int(allow_zero=False),
    metavar="NUMBER",
    help="How often a message that comes this way is handed out; default as the mailbox says",
)
REDRIVE_ALL = Arg(
    ("--all",), action="store_true", help="Instead of numbers: every dead letter of the store; needs --yes"
)
REDRIVE_TO = Arg(("--to",), metavar="MAILBOX", help="Mailbox that gets them instead of their own")
RATE = Arg(
    ("--rate",),
    type=rate,
    metavar="NUMBER",
    help="At most so many can be received a second; default all at once",
)

PROJECT = Arg(
    ("--project",),
    action="append",
    metavar="PATH",
    help="Project file or directory, in place of the option project_file of section agentic; may be given again:\n"
    "later over earlier",
)
SET = Arg(
    ("--set",),
    dest="overrides",
    action="append",
    metavar="KEY=VALUE",
    help="Lay a value over everything that is written down, as in agents.triage.config.pause_seconds=0.5;\n"
    "may be given again",
)
FAULT = Arg(("name",), type=name, metavar="NAME", help="Name of the rule")
FAULTS = Arg(("names",), metavar="NAME", nargs="*", help="Names of the rules, as `faults list` shows them")
FAULTS_ALL = Arg(("--all",), action="store_true", help="Instead of names: every rule that was added")
FAULT_WHERE = Arg(
    ("--where",),
    required=True,
    metavar="POINT",
    help="agent:NAME, call:KEY, send:MAILBOX, receive:MAILBOX or store; * stands for any characters",
)
FAULT_WHAT = Arg(("--what",), choices=FAULT_KINDS, required=True, help="What happens there")
FAULT_CATEGORY = Arg(
    ("--category",),
    choices=_CATEGORIES,
    help="What kind of failure an error at an agent or a call is (default: transient)",
)
FAULT_SECONDS = Arg(
    ("--seconds",),
    type=float,
    metavar="SECONDS",
    help="How much longer it takes; of clock_jump, how far ahead the clock is",
)
FAULT_PROBABILITY = Arg(
    ("--probability",),
    type=float,
    metavar="SHARE",
    help="Share of the attempts, above 0 and up to 1 (default: 1)",
)
FAULT_COUNT = Arg(
    ("--count",), type=int, metavar="NUMBER", help="At most so often in the whole fleet; default no limit"
)
FAULT_AFTER = Arg(("--after",), type=int, metavar="NUMBER", help="The first so many attempts are let alone")
FAULT_FROM = Arg(
    ("--from",), dest="begins", type=span, metavar="TIME", help="Begins so long from now: 90s, 15m"
)
FAULT_FOR = Arg(
    ("--for",), dest="lasts", type=span, metavar="TIME", help="Lasts so long: 90s, 15m, 2h; default for ever"
)
FAULT_SEED = Arg(
    ("--seed",), type=int, metavar="NUMBER", help="Picks the attempts; the same ones again (default: 0)"
)
DAG_ID = Arg(("dag_id",), metavar="DAG", help="The DAG to run")
DRILL_RULES = Arg(
    ("--rules",),
    metavar="FILE",
    help="Rules in YAML, as under faults: in a project file; default a few of each kind",
)
DRILL_KINDS = Arg(
    ("--kinds",), nargs="+", choices=FAULT_KINDS, metavar="KIND", help=f"Only these: {', '.join(FAULT_KINDS)}"
)
DRILL_TIMEOUT = Arg(
    ("--timeout",),
    type=span,
    default=timedelta(minutes=5),
    metavar="TIME",
    help="How long one run may take: 90s, 5m (default: 5m)",
)
DRILL_IN_PROCESS = Arg(
    ("--in-process",),
    action="store_true",
    help="Run the DAG in processes of its own, also if a scheduler is alive",
)

KEY = Arg(
    ("key",),
    metavar="KEY",
    help="Dotted key, such as agents.triage.config; the bare name of an option is one too: max_attempts",
)
KEY_OPTIONAL = Arg(
    ("key",), metavar="KEY", nargs="?", help="Only what is at or below this key; default everything"
)
ALL = Arg(("--all",), action="store_true", help="Coded defaults too, not only what is declared")
FILES = Arg(
    ("files",),
    metavar="FILE",
    nargs="*",
    help="Project files or directories, checked together, later over earlier; default the configured project",
)

BREAKER = Arg(("breaker",), metavar="KEY", help="What it protects, as `breakers list` shows it: conn:openai")
PREFIX = Arg(("--prefix",), default="", metavar="TEXT", help="Only those whose keys begin so, as in conn:")
LASTS = Arg(
    ("--for",),
    dest="lasts",
    type=span,
    metavar="TIME",
    help="It ends by itself after so long: 90s, 10m, 2h; default when somebody resets the breaker",
)
BUDGET = Arg(("budget",), metavar="NAME", help="Name of the budget, as `budgets list` shows it")
PAST = Arg(("--past",), action="store_true", help="Past periods too, as long as they are kept")
POLICY = Arg(("policy",), metavar="NAME", help="Name of the policy in the project file")
