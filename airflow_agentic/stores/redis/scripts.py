"""The scripts that run in the server; their text is in ``lua/``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources

from airflow_agentic.messaging.ports import EXPIRED
from airflow_agentic.messaging.state import INBOX

_CONSTANTS = f"local EXPIRED, INBOX = {json.dumps(EXPIRED)}, {json.dumps(INBOX)}"


@dataclass(frozen=True)
class Script:
    """A script, made of files that follow each other.

    Attributes:
        parts: Names of the files.
        flags: What the server may let it do: ``no-writes``, or ``allow-oom`` for what must go on when the memory is full,
            so that the work can drain.
        again: Whether it may be asked again when the answer was lost.
    """

    parts: tuple[str, ...]
    flags: str = ""
    again: bool = field(default=False, kw_only=True)

    @cached_property
    def text(self) -> bytes:
        """What the server is given."""
        folder = resources.files(__package__) / "lua"
        texts = [(folder / f"{part}.lua").read_text("utf-8") for part in ("base", *self.parts)]
        return "\n".join(
            [f"#!lua flags={self.flags}" if self.flags else "#!lua", _CONSTANTS, *texts]
        ).encode()

    @cached_property
    def sha(self) -> str:
        """What the server knows it by."""
        return hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


_ENDING = ("deliveries", "ending")
_SENDING = ("admitting", "sending")
_COMMIT = (*_ENDING, "claiming", *_SENDING, "values", "settling", "commit")

APPEND = Script(("deliveries", *_SENDING, "append"))
CLAIM = Script((*_ENDING, "claiming", "claim"), "allow-oom", again=True)
SETTLE = Script((*_ENDING, "settling", "settle"), "allow-oom")
COMMIT = Script(_COMMIT)
COMMIT_WITHOUT_MORE = Script(_COMMIT, "allow-oom")
EXTEND = Script(("deliveries", "extend"), "allow-oom", again=True)
DUE = Script(("due",), "no-writes", again=True)

FIND = Script(("deliveries", "selecting", "find"), "no-writes", again=True)
STATS = Script(("deliveries", "stats"), "allow-oom", again=True)
REDRIVE = Script((*_ENDING, *_SENDING, "selecting", "redrive"))
PURGE = Script((*_ENDING, "purge"), "allow-oom")

ENTRIES = Script(("entries",), "no-writes", again=True)
UNSUBSCRIBE = Script(("unsubscribe",), "allow-oom")
BEAT = Script(("beat",), again=True)
HEARTBEATS = Script(("heartbeats",), "no-writes", again=True)
REPORTED = Script(("reported",), "allow-oom", again=True)

REGISTER = Script(("register",))
REPORT = Script(("report",), "allow-oom")
AGENTS = Script(("agents",), "no-writes", again=True)

READ_DOCUMENTS = Script(("documents", "documents_read"), "no-writes", again=True)
# The work that ends could not give its slots back if it were refused when the memory is full.
CHANGE_DOCUMENTS = Script(("documents", "documents_change"), "allow-oom")
LIST_DOCUMENTS = Script(("documents", "documents_list"), "no-writes", again=True)
PURGE_DOCUMENTS = Script(("documents", "documents_purge"), "allow-oom")

APPEND_RECORDS = Script(("deliveries", *_SENDING, "runs", "runs_append"))
INDEX_RECORDS = Script(("runs_index",), "no-writes", again=True)
READ_SNAPSHOT = Script(("runs_snapshot",), "no-writes", again=True)
PRUNE_RECORDS = Script(("runs", "runs_prune"), "allow-oom")
READ_RUNS = Script(("runs_read",), "no-writes", again=True)
NEWEST_RUNS = Script(("runs_newest",), "no-writes", again=True)
# A run could not be given back if it were refused when the memory is full.
HOLD_RUN = Script(("runs_hold",), "allow-oom", again=True)
MARK_RUN = Script(("runs", "runs_mark"), "allow-oom", again=True)
FORGET_RUN = Script(("runs", "runs_forget"), "allow-oom")

SCHEMA = Script(("schema",), again=True)
PROBE = Script(("probe",), again=True)
