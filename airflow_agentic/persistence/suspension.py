"""How a run says that it waits. These are no failures, so they are no exceptions that code catches by accident."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


class RunSuspended(BaseException):
    """The run waits; whoever called it gives it back, and calls it again when what it waits for is there.

    Attributes:
        key: The run.
        name: What it waits for has this name in its journal.
    """

    def __init__(self, text: str, key: str, name: str) -> None:
        super().__init__(text)
        self.key = key
        self.name = name


class Interrupted(RunSuspended):
    """A person is asked.

    Attributes:
        question: What is asked.
        schema: JSON Schema of the answer; ``None`` for any.
        deadline: When nobody needs to answer any more; ``None`` for never.
        details: What whoever answers should see, as Markdown; may be empty.
    """

    def __init__(
        self,
        key: str,
        name: str,
        question: str,
        schema: Mapping[str, Any] | None,
        deadline: datetime | None,
        details: str = "",
    ) -> None:
        super().__init__(f"the run {key!r} waits for an answer to {question!r}", key, name)
        self.question = question
        self.schema = schema
        self.deadline = deadline
        self.details = details


class Sleeping(RunSuspended):
    """A time is waited for.

    Attributes:
        until: Which.
    """

    def __init__(self, key: str, name: str, until: datetime) -> None:
        super().__init__(f"the run {key!r} sleeps until {until:%Y-%m-%d %H:%M:%S} UTC", key, name)
        self.until = until


class AwaitingMessage(RunSuspended):
    """A message is waited for.

    Attributes:
        mailbox: Where it will come.
        deadline: When it comes too late; ``None`` for never.
    """

    def __init__(self, key: str, name: str, mailbox: str, deadline: datetime | None) -> None:
        super().__init__(f"the run {key!r} waits for a message in {mailbox!r}", key, name)
        self.mailbox = mailbox
        self.deadline = deadline
