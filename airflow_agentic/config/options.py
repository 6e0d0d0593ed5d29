"""The one table of options of section ``[agentic]``.

It feeds the provider info (Airflow's own configuration reference and ``airflow config``), the settings and
the docs. Only the standard library may be imported here: Airflow reads it before its configuration exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SECTION = "agentic"


@dataclass(frozen=True)
class Option:
    """One option of ``[agentic]``.

    Attributes:
        key: Name in ``airflow.cfg``; the environment variable is ``AIRFLOW__AGENTIC__<KEY>``.
        type: ``string``, ``integer``, ``float`` or ``boolean``.
        default: Value when nothing sets it.
        text: What it does, with its unit.
        example: A value that somebody might set.
        minimum: Smallest value allowed, for numbers.
        choices: All values allowed, for texts; empty if any is.
        sensitive: It may hold a password: Airflow hides it, and takes it from a command or a secrets backend too.
    """

    key: str
    type: Literal["string", "integer", "float", "boolean"]
    default: str | int | float | bool
    text: str
    example: str | None = None
    minimum: float | None = None
    choices: tuple[str, ...] = ()
    sensitive: bool = False

    @property
    def indirect_keys(self) -> tuple[str, ...]:
        """Keys under which Airflow takes a sensitive option from a command or a secrets backend."""
        return (f"{self.key}_cmd", f"{self.key}_secret") if self.sensitive else ()


OVERFLOW = ("block", "refuse", "dead-letter")
"""What can happen to a message for a mailbox that is full."""

MODES = ("development", "production")
"""What a deployment can be."""

OPTIONS: tuple[Option, ...] = (
    Option(
        "store_url",
        "string",
        "",
        "Store of messages and agents, used when no Airflow connection is named: sqlite:////path/agentic.db, or "
        "postgresql://user@host:5432/database with the extra [postgres], or redis://host:6379/0 with the extra [redis]. "
        "Empty means the embedded SQLite file agentic.db under AIRFLOW_HOME.",
        example="sqlite:////var/lib/airflow/agentic.db",
        sensitive=True,
    ),
    Option(
        "project_file",
        "string",
        "",
        "The project file: agents, policies, services and more, declared. Several files with commas between them, "
        "later over earlier; a directory stands for its *.yaml, *.yml and *.toml files in the order of their names. "
        "A relative path is relative to AIRFLOW_HOME. Empty means that there is none.",
        example="/etc/agentic/agentic.yaml,/etc/agentic/production.yaml",
    ),
    Option(
        "max_message_bytes",
        "integer",
        1_048_576,
        "Largest encoded message, in bytes. A larger one is refused when it is sent.",
        example="262144",
        minimum=1_024,
    ),
    Option(
        "claim_check_path",
        "string",
        "",
        "Where data is kept that is too large to travel: the URL of a directory that every worker reaches, in an object "
        "storage (with its Airflow connection before the @, if it needs one) or on a shared disk: file:///mnt/agentic. "
        "The message has the place and a digest. Empty means that all data travels.",
        example="s3://aws_default@bucket/agentic",
    ),
    Option(
        "claim_check_bytes",
        "integer",
        65_536,
        "Messages above this size, in bytes, leave their data under claim_check_path, if there is one. 0 means never.",
        example="262144",
        minimum=0,
    ),
    Option(
        "lease_seconds",
        "float",
        60.0,
        "How long a received message belongs to its receiver, in seconds. Agents renew the lease while they "
        "work; after a crash the message is handed to somebody else when the lease ends.",
        example="300",
        minimum=0.1,
    ),
    Option(
        "max_attempts",
        "integer",
        5,
        "How often a message is handed out before it goes to the dead letters.",
        example="3",
        minimum=1,
    ),
    Option(
        "retry_base_seconds",
        "float",
        1.0,
        "A failed message comes back after a random time up to this many seconds, doubled with each attempt.",
        example="0.5",
        minimum=0.0,
    ),
    Option(
        "retry_max_seconds",
        "float",
        300.0,
        "Upper bound of that time, in seconds.",
        example="60",
        minimum=0.0,
    ),
    Option(
        "poll_seconds",
        "float",
        0.5,
        "How often a trigger or a waiting receiver looks into its mailbox, in seconds.",
        example="2",
        minimum=0.01,
    ),
    Option(
        "remind_seconds",
        "float",
        30.0,
        "A mailbox whose messages nobody has taken since they were announced is announced again after this "
        "many seconds, and then after twice as long each time, up to ten minutes.",
        example="60",
        minimum=1.0,
    ),
    Option(
        "request_timeout_seconds",
        "float",
        300.0,
        "How long a request waits for its answer when it has no deadline of its own, in seconds.",
        example="30",
        minimum=0.1,
    ),
    Option(
        "heartbeat_seconds",
        "float",
        60.0,
        "When the next heartbeat of a source is late, in seconds after the last one, unless that one said.",
        example="15",
        minimum=0.1,
    ),
    Option(
        "dedup_window_seconds",
        "float",
        604_800.0,
        "How long a message is known by its source and id, so that it is not taken twice, in seconds. Messages that are "
        "done are kept at least so long.",
        example="86400",
        minimum=0.0,
    ),
    Option(
        "mailbox_limit",
        "integer",
        0,
        "Largest number of messages in a mailbox that are neither done nor dead. 0 means that there is none.",
        example="10000",
        minimum=0,
    ),
    Option(
        "mailbox_overflow",
        "string",
        "refuse",
        "What happens to one more: its sender waits for room (block), gets an error (refuse), or it becomes a dead "
        "letter (dead-letter).",
        example="block",
        choices=OVERFLOW,
    ),
    Option(
        "block_seconds",
        "float",
        30.0,
        "How long a sender waits for room before it gets that error, in seconds.",
        example="120",
        minimum=0.0,
    ),
    Option(
        "mode",
        "string",
        "development",
        "What this deployment is. Fault injection is refused in production: with fault_injection on, or with rules "
        "under faults: in the project file, the configuration is invalid and nothing runs.",
        example="production",
        choices=MODES,
    ),
    Option(
        "fault_injection",
        "boolean",
        False,
        "Whether the rules under faults: in the project file, and those of `airflow agentic faults add`, are obeyed: for "
        "tests of what happens when things fail. While it is off nobody looks for rules. It must be the same for all "
        "workers.",
        example="True",
    ),
)

BOOTSTRAP = frozenset({"project_file"})
"""Options that say where the project file is, and so cannot be set in it."""

DEPLOYMENT = frozenset({"mode", "fault_injection"})
"""Options that hold for a whole deployment, and so cannot be set in a connection."""


def config_section(version_added: str) -> dict[str, Any]:
    """Return the ``config`` value of the provider info: Airflow's own form of the table above.

    Args:
        version_added: Version shown for every option, for example ``"0.1.0"``.
    """
    return {
        SECTION: {
            "description": "Settings of the agentic provider.",
            "options": {
                option.key: {
                    "description": option.text + "\n",
                    "version_added": version_added,
                    "type": option.type,
                    "example": option.example,
                    "default": str(option.default),
                    "sensitive": option.sensitive,
                }
                for option in OPTIONS
            },
        }
    }
