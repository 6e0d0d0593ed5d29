"""What a store can be held to: its capabilities, and checks that need some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from airflow_agentic.testing.conformance.bench import Bench


class Capability(StrEnum):
    """What a store may be able to do. What every store must do has no name here."""

    DURABLE = "durable"
    """What it took is there when it is opened again."""
    SHARED = "shared"
    """It can be opened several times, in several processes, and is one store."""
    THREADS = "threads"
    """Several threads can use what was opened once."""
    ORDERING = "ordering"
    """Deliveries of one mailbox with one ordering key are handed out in order, one at a time."""
    PRIORITIES = "priorities"
    """Higher priorities are handed out first."""
    DELAYS = "delays"
    """A message can be sent for later."""
    EXPIRY = "expiry"
    """What has expired goes to the dead letters and is handed out to nobody."""
    FAN_OUT = "fan_out"
    """One message goes to many mailboxes, and an address can be a dead letter from the start."""
    BACK_PRESSURE = "back_pressure"
    """A mailbox holds as many open deliveries as it may, and no more."""
    ONE_COMMIT = "one_commit"
    """Settling, sending and receiving are one transaction; so is changing state, where there is state."""
    DEDUP = "dedup"
    """A message is known by its source and id, and stored once."""
    REDRIVE = "redrive"
    """Dead letters can have another chance."""
    PURGE = "purge"
    """Old messages that are done everywhere are forgotten when that is asked for."""
    SUBSCRIPTIONS = "subscriptions"
    """It keeps who wants to hear what."""
    HEARTBEATS = "heartbeats"
    """It keeps the last sign of life of every source."""
    STATE = "state"
    """It keeps values with versions."""
    GUARDS = "guards"
    """It keeps documents of guards, in a store that is given to the bench beside that of the bus."""
    RUNS = "runs"
    """It keeps journals of durable runs, in a store that is given to the bench beside that of the bus. With ``one_commit``
    messages of that bus leave with the records."""
    WAKE_UP = "wake_up"
    """Who waits for a mailbox is told when something comes."""
    MOVABLE_CLOCK = "movable_clock"
    """A test can move its clock; a bench with a clock has this one by itself."""


EVERYTHING = frozenset(Capability)
"""All capabilities there are."""


@dataclass(frozen=True)
class Check:
    """One promise that a store is held to.

    Attributes:
        name: The promise in a few words, as an identifier.
        promise: The promise as a sentence.
        needs: Capabilities that a store must have, or else the check means nothing.
        on: Tries it on a bench; raises ``AssertionError`` if the promise is broken.
    """

    name: str
    promise: str
    needs: frozenset[Capability]
    on: Callable[[Bench], None]

    def __str__(self) -> str:
        return self.name


class Chapter:
    """Checks that belong together, in the order they are written.

    Attributes:
        checks: Those of the chapter.
    """

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def promise(self, *needs: Capability) -> Callable[[Callable[[Bench], None]], Check]:
        """Make a check of a function: its name and the first line of its docstring say what is promised."""

        def made(function: Callable[[Bench], None]) -> Check:
            text = (function.__doc__ or "").partition("\n")[0]
            check = Check(function.__name__, text, frozenset(needs), function)
            self.checks.append(check)
            return check

        return made


def able(checks: Iterable[Check], capabilities: Iterable[Capability | str]) -> list[Check]:
    """Return the checks that need nothing but these capabilities."""
    has = {Capability(each) for each in capabilities}
    return [check for check in checks if check.needs <= has]
