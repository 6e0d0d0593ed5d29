"""What every store and queue is asked to do: send, receive with a lease, and end a message of 1 KB, durably."""

from __future__ import annotations

import functools
import json
import random
import secrets
import time
from collections.abc import Sequence

from benchmarks.bus.rounds import Trial

MAILBOX = "bench"
LEASE_SECONDS = 60
_BYTES = 1_024
# Who has no batches need not show it with thousands of messages; a multiple of every batch.
_ONE_BY_ONE = 200


def body() -> dict[str, str]:
    """Return data that is 1,024 bytes as JSON and does not compress."""
    frame = len(json.dumps({"text": ""}))
    return {"text": random.Random(1).randbytes(_BYTES // 2).hex()[: _BYTES - frame]}  # noqa: S311


BODY = body()
CONTENT = json.dumps(BODY).encode()


def new_key() -> str:
    """Return an id in the order of time, as a careful sender makes them: random ones change a page of the index each."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


class Contender:
    """A way to pass messages.

    Attributes:
        name: Unique in its section.
        note: What it does more, or less, than ours.
        batches: Whether it can take many messages in one commit.
    """

    name = ""
    note = ""
    batches = True

    def setup(self) -> None:
        """Open it.

        Raises:
            Unavailable: It is not here; the text says why.
        """

    def refresh(self) -> None:
        """Tidy up before each trial, as its manual asks of its users; not timed."""

    def cycle(self, batch: int, count: int) -> int:
        """Send, receive and end messages, so many at a time; each step is on disk before the next one.

        Args:
            batch: How many at a time; ``count`` is a multiple of it.
            count: How many in all.

        Returns:
            How many were received and ended.
        """
        raise NotImplementedError

    def rest(self) -> None:
        """Stop what goes on by itself after each trial; not timed."""

    def close(self) -> None:
        """End it, and remove what it made; nothing happens if it never was open."""


def label(name: str, batch: int) -> str:
    """Return the name of a trial."""
    return f"{name}, batch {batch}"


def trials(contenders: Sequence[Contender], sizes: dict[int, int]) -> list[Trial]:
    """Return one trial for each contender and size of batch.

    Args:
        contenders: Open ones.
        sizes: How many messages a trial takes, by size of batch.
    """
    return [
        Trial(label(each.name, batch), functools.partial(_timed, each, batch, count))
        for each in contenders
        for batch, count in sizes.items()
    ]


def _timed(contender: Contender, batch: int, count: int) -> float:
    if not contender.batches:
        count = min(count, _ONE_BY_ONE)
    contender.refresh()
    began = time.perf_counter()
    ended = contender.cycle(batch, count)
    seconds = time.perf_counter() - began
    contender.rest()
    if ended != count:
        raise AssertionError(f"of {count} messages, {ended} came through")
    return seconds / count
