"""The books of a storm: what its journals and its store say, and where they do not agree."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import journals
from workers import BOXES, MAIN, MIRROR

from airflow_agentic.messaging.delivery import DeliveryState
from airflow_agentic.messaging.ports import DeliveryQuery

ALL = 10_000_000


@dataclasses.dataclass(frozen=True)
class Books:
    """What became of the messages of a storm.

    Attributes:
        name: Of the storm.
        kills: Processes that were killed, those that ended with the storm among them.
        sent: Messages whose ``send`` returned.
        deliveries: What the store has.
        done: Acked.
        dead: Dead letters.
        handled: Deliveries that were handled at least once.
        lost: Messages that were sent, and neither handled nor made a dead letter; or whose effect is missing.
        ghosts: Messages that were handled or stored, and never sent by anybody.
        duplicates: Handlings after the first one, of all deliveries.
        expired: Leases that ended, as the store wrote it down.
        unexplained: Duplicates of deliveries that no lease ended of.
        twice: Effects that the store has more than once, and messages that were produced more than once.
        disorder: Ordering keys of a mailbox whose messages were not handled in order.
        miscounted: Messages that do not have the deliveries that they must have.
        open: Deliveries that have not ended.
        murdered: Dead letters that nobody rejected.
        late: Acks that came too late and were refused.
        conflicts: Acks that met another state than they had read.
        integrity: What the database says of itself.
        rates: Deliveries handled a second: in the first and in the last third of the storm.
    """

    name: str
    kills: int
    sent: int
    deliveries: int
    done: int
    dead: int
    handled: int
    lost: int
    ghosts: int
    duplicates: int
    expired: int
    unexplained: int
    twice: int
    disorder: int
    miscounted: int
    open: int
    murdered: int
    late: int
    conflicts: int
    integrity: str
    rates: tuple[float, float]

    def faults(self) -> dict[str, str]:
        """Return every promise that was broken, and how."""
        zero = ("lost", "ghosts", "unexplained", "twice", "disorder", "miscounted", "open", "murdered")
        broken = {name: f"{name} is {count}" for name in zero if (count := getattr(self, name))}
        if self.duplicates > self.kills + self.expired:
            broken["duplicates"] = (
                f"{self.duplicates} duplicates of {self.kills} kills and {self.expired} leases"
            )
        if self.done + self.dead != self.deliveries:
            broken["sum"] = f"{self.done} done and {self.dead} dead of {self.deliveries} deliveries"
        if self.conflicts > self.expired:
            broken["conflicts"] = f"{self.conflicts} conflicts, and {self.expired} leases ended"
        if self.integrity != "ok":
            broken["integrity"] = self.integrity
        return broken

    def __str__(self) -> str:
        return table([self])


def table(books: list[Books]) -> str:
    """Write books side by side, one storm a line."""
    titles = [field.name for field in dataclasses.fields(Books)]
    rows = [[_cell(getattr(each, title)) for title in titles] for each in books]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [titles, *rows]
    )


def _cell(value: Any) -> str:
    return "→".join(f"{each:.0f}" for each in value) if isinstance(value, tuple) else str(value)


def account(name: str, folder: Path, bus: Any, kills: int, integrity: str, ended: float) -> Books:
    """Read the journals and the store, when nothing moves any more.

    Args:
        name: Of the storm.
        folder: Of the journals.
        bus: On the store.
        kills: How many processes were killed.
        integrity: What the database says of itself.
        ended: When the storm ended, and only what it had left was still to be done.
    """
    journal = _Journal(folder)
    kept = _Kept(bus)
    totals = [each for each in bus.mailboxes() if each.mailbox in BOXES]
    return Books(
        name=name,
        kills=kills,
        sent=len(journal.sent),
        deliveries=len(kept.records),
        done=sum(each.done for each in totals),
        dead=sum(each.dead for each in totals),
        handled=len(journal.times),
        lost=len(_lost(journal, kept)),
        ghosts=len((set(journal.handled_ids) | set(kept.deliveries)) - journal.intended),
        duplicates=sum(journal.times.values()) - len(journal.times),
        expired=sum(kept.ended(record) for record in kept.records),
        unexplained=_unexplained(journal, kept),
        twice=sum(kept.effects.values()) - len(kept.effects) + sum(n > 1 for n in kept.children.values()),
        disorder=_disorder(journal, kept),
        miscounted=_miscounted(kept),
        open=sum(record.state not in (DeliveryState.DONE, DeliveryState.DEAD) for record in kept.records),
        murdered=sum(
            record.message.type != "poison" for record in kept.records if record.state == DeliveryState.DEAD
        ),
        late=journal.noted["stale"],
        conflicts=journal.noted["conflict"],
        integrity=integrity,
        rates=_rates([each.at for each in journal.handled if each.at <= ended]),
    )


class _Journal:
    def __init__(self, folder: Path):
        self.intended, self.sent = (set(journals.read(folder, name)) for name in ("intended", "sent"))
        self.handled = journals.read_handled(folder)
        self.handled_ids = {each.message_id for each in self.handled}
        self.times = Counter(each.delivery_id for each in self.handled)
        self.noted = Counter(line.split("\t")[0] for line in journals.read(folder, "noted"))


class _Kept:
    """What the store has."""

    def __init__(self, bus: Any):
        self.records = bus.find(DeliveryQuery(limit=ALL))
        self.deliveries = defaultdict(list)
        self.children: Counter[str] = Counter()
        for record in self.records:
            self.deliveries[record.message.id].append(record)
            if record.message.type == "child":
                self.children[record.message.causation_id] += 1
        self.effects: Counter[str] = Counter()
        self.lanes = {}
        for box in (MAIN, MIRROR):
            for entry in bus.state(box).entries(limit=ALL):
                what, _, which = entry.key.partition(" ")
                if what == "effect":
                    self.effects[which] += entry.version
                else:
                    self.lanes[box, which] = json.loads(entry.value)

    def ended(self, record: Any) -> int:
        return sum(entry.event == "lease-expired" for entry in record.history)

    def is_dead(self, message_id: str) -> bool:
        return any(record.state == DeliveryState.DEAD for record in self.deliveries.get(message_id, ()))


def _lost(journal: _Journal, kept: _Kept) -> set[str]:
    handled = journal.handled_ids & set(kept.effects)
    lost = {name for name in journal.sent if name not in handled and not kept.is_dead(name)}
    for name in kept.effects:
        [record, *_] = kept.deliveries.get(name, [None])
        if record is not None and record.message.type == "chain" and not kept.children[name]:
            lost.add(f"child of {name}")
    made = {record.message.id for record in kept.records if record.message.type == "child"}
    return lost | (made - journal.handled_ids)


def _unexplained(journal: _Journal, kept: _Kept) -> int:
    return sum(max(0, journal.times[each.delivery_id] - 1 - kept.ended(each)) for each in kept.records)


def _disorder(journal: _Journal, kept: _Kept) -> int:
    """Count lanes that were not handled in order, as the journal says, or as the store does."""
    first: dict[tuple[str, str], dict[int, None]] = defaultdict(dict)
    for each in journal.handled:
        if each.key:
            first[each.mailbox, each.key].setdefault(each.number)
    wrong = {lane for lane, numbers in first.items() if not _is_rising(list(numbers))}
    for lane, numbers in kept.lanes.items():
        if not _is_rising(numbers) or set(numbers) != set(first[lane]):
            wrong.add(lane)
    return len(wrong)


def _is_rising(numbers: list[int]) -> bool:
    return all(one < other for one, other in itertools.pairwise(numbers))


def _miscounted(kept: _Kept) -> int:
    return sum(
        len(records) != (2 if records[0].message.type == "mirrored" else 1)
        for records in kept.deliveries.values()
    )


def _rates(times: list[float]) -> tuple[float, float]:
    if len(times) < 2 or min(times) == max(times):
        return 0.0, 0.0
    third = (max(times) - min(times)) / 3
    early, late = min(times) + third, max(times) - third
    return sum(at <= early for at in times) / third, sum(at >= late for at in times) / third
