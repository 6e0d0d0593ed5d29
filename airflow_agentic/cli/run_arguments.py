"""Arguments of ``airflow agentic runs``. Airflow reads them for every one of its commands: nothing else is loaded."""

from __future__ import annotations

from datetime import timedelta

from airflow.cli.cli_config import Arg, positive_int

from airflow_agentic.cli.arguments import span

STATUSES = ("running", "waiting", "failed", "finished", "quarantined")
"""How runs stand."""

RUN = Arg(("key",), metavar="KEY", help="Key of the run, as `runs list` shows it")
RUN_OPTIONAL = Arg(("key",), metavar="KEY", nargs="?", help="Key of the run, as `runs list` shows it")
RUN_OR_CORRELATION = Arg(
    ("key",),
    metavar="KEY",
    help="Key of a run; or what runs belong to: a DAG run as dag_id:run_id, a conversation, a message",
)
RUN_OR_CORRELATION_OPTIONAL = Arg((*RUN_OR_CORRELATION.flags,), **{**RUN_OR_CORRELATION.kwargs, "nargs": "?"})
STEP = Arg(("step",), metavar="STEP", help="The step, as `runs events` shows it: name or name#2")
QUESTION = Arg(
    ("question",),
    metavar="QUESTION",
    help="Which question, as `runs show` shows it; without question: is fine",
)
ANSWER = Arg(("answer",), metavar="JSON", help="The answer: any JSON that fits the schema of the question")
FILE_TO_READ = Arg(("file",), metavar="FILE", help="The archive, as `runs export` wrote it")
FILE_TO_WRITE = Arg(("file",), metavar="FILE", help="Where to write it; a zip")
ARCHIVE = Arg(("--file",), metavar="FILE", help="An archive that `runs export` wrote, in place of a key")

OF_AGENT = Arg(("--agent",), metavar="NAME", help="Only runs of this agent")
STATUS = Arg(
    ("--status",),
    action="append",
    choices=STATUSES,
    help="Only runs that stand so; may be given again",
)
CORRELATION = Arg(
    ("--correlation",),
    metavar="ID",
    help="Only runs that belong to this DAG run (dag_id:run_id) or conversation",
)
KEY_PREFIX = Arg(("--prefix",), default="", metavar="TEXT", help="Only runs whose keys begin so")
LIMIT_RUNS = Arg(
    ("--limit",),
    type=positive_int(allow_zero=False),
    help="At most so many, those that changed last first (default: 100)",
)
ALL_RUNS = Arg(("--all",), action="store_true", help="All of them, however many there are")
LIMIT_EVENTS = Arg(
    ("--limit",),
    type=positive_int(allow_zero=False),
    default=1_000,
    help="At most so many, oldest first (default: 1000)",
)
AFTER = Arg(
    ("--after",),
    type=positive_int(allow_zero=True),
    default=0,
    metavar="VERSION",
    help="Only what came after this version",
)
EVENT_TYPE = Arg(
    ("--type",), metavar="TYPE", help="Only events of this type: step.done; or of all below one: step"
)
EVERY = Arg(
    ("--every",), type=span, default=timedelta(seconds=1), metavar="TIME", help="Look so often (default: 1s)"
)
TIMEOUT = Arg(
    ("--timeout",), type=span, metavar="TIME", help="Give up after so long: 90s, 15m; default never"
)
VERIFY_ALL = Arg(("--all",), action="store_true", help="Every run of the store")

REASON_OPTIONAL = Arg(("--reason",), metavar="TEXT", help="Why; kept in the run")
CLEAR = Arg(
    ("--clear",),
    action="store_true",
    help="Start its Airflow task again, too: clear it, with what comes after it in its DAG run",
)
FORCE = Arg(
    ("--force",),
    action="store_true",
    help="Take the run from whoever works on it: that one stops, and writes nothing more",
)
RESULT = Arg(("--result",), metavar="JSON", help="What the step returns from now on (default: null)")
PATCH = Arg(("--patch",), metavar="JSON", help="Merged into the state (RFC 7396): null removes a key")
NEW_STATE = Arg(("--state",), metavar="JSON", help="In place of the state")
AT = Arg(
    ("--at",),
    metavar="MOMENT",
    help="A version, the name of a checkpoint, or a time such as 2026-11-23T14:00:00Z; default as it is now",
)
NEW_KEY = Arg(("--to",), metavar="KEY", help="Key of the new run; default one that is made of the old one's")
INCLUDE_DATA = Arg(
    ("--include-data",),
    action="store_true",
    help="With results, events, states, answers and texts of errors, also what is secret or classified",
)
RUNS_OLDER_THAN = Arg(
    ("--older-than",), type=span, metavar="TIME", help="Only runs that finished longer ago: 12h, 14d"
)
KEEP = Arg(
    ("--keep",),
    type=positive_int(allow_zero=True),
    metavar="NUMBER",
    help="The newest so many of each agent stay as they are",
)
WHOLE = Arg(
    ("--whole",),
    action="store_true",
    help="The runs themselves, not only events that their persistence can spare",
)
FORGET_FORCE = Arg(("--force",), action="store_true", help="Also if somebody works on it")
