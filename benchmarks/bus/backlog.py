"""What a backlog costs: claims behind blocked keys, and every step at growing depth."""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from airflow_agentic.messaging.bus import MessageBus
from benchmarks.bus.ours import LEASE, message, opened
from benchmarks.bus.rounds import Trial, Unavailable, interleaved
from benchmarks.bus.section import Plan, Section
from benchmarks.bus.servers import Place, places

_FILL = 1_000
_LONG_LEASE = timedelta(days=1)
_BLOCKED = 100_000
_KEYS = 1_000
_CLAIMS = 50
# What we call flat; the disk's own noise is a third of it.
_FLAT = 1.5

_EMPTY = "finds nothing: empty mailbox"
_NONE_OF_ONE = "finds nothing: all blocked, one key"
_NONE_OF_MANY = f"finds nothing: all blocked, {_KEYS:,} keys"
_ALONE = "finds a keyed message: no other there"
_FREE = "finds a keyed message: the others blocked, one key"
_FREE_OF_MANY = f"finds a keyed message: the others blocked, {_KEYS:,} keys"
_COMPARED = {
    _EMPTY: None,
    _NONE_OF_ONE: _EMPTY,
    _NONE_OF_MANY: _EMPTY,
    _ALONE: None,
    _FREE: _ALONE,
    _FREE_OF_MANY: _ALONE,
}
_STEPS = (("send", 1), ("receive and ack", 1), ("send", 100), ("receive and ack", 100))


def keyed(plan: Plan) -> Section:
    """Measure claims in mailboxes where nearly everything is blocked by the leased first message of its key."""
    count = plan.some(_BLOCKED)
    section = Section(f"A claim where {count:,} messages are blocked by the leased first one of their key")
    trials: list[Trial] = []
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(places(plan.folder, section.skipped))
        for place in found:
            bus = _bus(stack, section, place, "keyed")
            if bus is not None:
                plan.say(f"{place.name}: filling two mailboxes with {count:,} blocked messages each")
                works = _keyed_works(bus, count)
                trials += [Trial(f"{place.name}: {what}", work) for what, work in works.items()]
        section.rounds = interleaved(trials, plan.disk, plan.rounds, _tidying(found), plan.say)
    section.skipped.update(section.rounds.failed)
    for place in found:
        for what, base in _COMPARED.items():
            than = base and f"{place.name}: {base}"
            section.add(f"{place.name}, a claim that", what, f"{place.name}: {what}", "ms", than)
    for name, bound in (("SQLite", 1.0), ("PostgreSQL", 2.0)):
        alone, free, empty, none = (f"{name}: {what}" for what in (_ALONE, _FREE, _EMPTY, _NONE_OF_ONE))
        section.within(f"{name}, keyed claim, {count:,} blocked", bound, "ms", free)
        section.slower(f"{name}, keyed claim, {count:,} blocked, of one alone", 2.0, free, alone)
        section.slower(
            f"{name}, claim that finds all {count:,} blocked, of an empty mailbox", 2.0, none, empty
        )
    return section


def depth(plan: Plan) -> Section:
    """Measure each step in mailboxes with more and more messages."""
    depths = [1_000, 10_000] if plan.quick else [1_000, 10_000, 100_000]
    if plan.long:
        depths.append(1_000_000)
    section = Section("Cost of a message by the depth of its mailbox, and of that in the shallowest")
    trials: list[Trial] = []
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(places(plan.folder, section.skipped))
        for place, each in itertools.product(found, depths):
            bus = _bus(stack, section, place, f"depth_{each}")
            if bus is not None:
                plan.say(f"{place.name}: filling a mailbox with {each:,} messages")
                _fill(bus, "deep", each)
                trials += _steps(place.name, bus, each)
        section.rounds = interleaved(trials, plan.disk, plan.rounds, _tidying(found), plan.say)
    section.skipped.update(section.rounds.failed)
    for place, (what, batch), each in itertools.product(found, _STEPS, depths):
        first, here = (_step(place.name, what, batch, number) for number in (depths[0], each))
        section.add(f"{place.name}, {what}, batch {batch}", f"depth {each:,}", here, "µs", first)
    for place, (what, batch) in itertools.product(found, _STEPS):
        first, last = (_step(place.name, what, batch, number) for number in (depths[0], depths[-1]))
        text = f"{place.name}, {what}, batch {batch}, depth {depths[-1]:,}, of {depths[0]:,} (flat)"
        section.slower(text, _FLAT, last, first)
    return section


def _bus(stack: contextlib.ExitStack, section: Section, place: Place, name: str) -> MessageBus | None:
    try:
        return stack.enter_context(opened(place.url(name))).bus
    except Unavailable as reason:
        section.skipped[place.name] = str(reason)
        return None


def _tidying(found: Sequence[Place]) -> Callable[[], None]:
    def tidy() -> None:
        for place in found:
            place.tidy()

    return tidy


def _fill(bus: MessageBus, mailbox: str, count: int, keys: int = 0) -> None:
    for first in range(0, count, _FILL):
        numbers = range(first, min(first + _FILL, count))
        bus.send_many([message(mailbox, f"key-{number % keys}" if keys else None) for number in numbers])


def _keyed_works(bus: MessageBus, count: int) -> dict[str, Callable[[], float]]:
    _fill(bus, "one-key", count, keys=1)
    _fill(bus, "many-keys", count, keys=_KEYS)
    assert len(bus.receive("one-key", max_messages=_KEYS, lease=_LONG_LEASE)) == 1
    assert len(bus.receive("many-keys", max_messages=_KEYS, lease=_LONG_LEASE)) == _KEYS
    return {
        _EMPTY: functools.partial(_nothing, bus, "nobody"),
        _NONE_OF_ONE: functools.partial(_nothing, bus, "one-key"),
        _NONE_OF_MANY: functools.partial(_nothing, bus, "many-keys"),
        _ALONE: functools.partial(_something, bus, "alone"),
        _FREE: functools.partial(_something, bus, "one-key"),
        _FREE_OF_MANY: functools.partial(_something, bus, "many-keys"),
    }


def _nothing(bus: MessageBus, mailbox: str) -> float:
    """Return the median time of a claim that must find nothing."""
    times = []
    for _ in range(_CLAIMS):
        began = time.perf_counter()
        deliveries = bus.receive(mailbox, lease=LEASE)
        times.append(time.perf_counter() - began)
        assert not deliveries, f"everything in {mailbox} was to be blocked"
    return statistics.median(times)


def _something(bus: MessageBus, mailbox: str) -> float:
    """Return the median time of a claim that must find the one message that is free."""
    times = []
    for number in range(_CLAIMS):
        bus.send(message(mailbox, f"free-{number}"))
        began = time.perf_counter()
        deliveries = bus.receive(mailbox, lease=LEASE)
        times.append(time.perf_counter() - began)
        assert [each.ordering_key for each in deliveries] == [f"free-{number}"]
        bus.ack(*deliveries)
    return statistics.median(times)


def _step(name: str, what: str, batch: int, number: int) -> str:
    return f"{name}, {what}, batch {batch}, depth {number}"


def _steps(name: str, bus: MessageBus, number: int) -> list[Trial]:
    works = {"send": _send, "receive and ack": _receive_and_ack}
    return [
        Trial(_step(name, what, batch, number), functools.partial(works[what], bus, batch))
        for what, batch in _STEPS
    ]


def _send(bus: MessageBus, batch: int) -> float:
    """Return the median time of a message; as many are sent as the other step takes."""
    times = []
    for _ in range(_times(batch)):
        began = time.perf_counter()
        bus.send_many([message("deep") for _ in range(batch)])
        times.append(time.perf_counter() - began)
    return statistics.median(times) / batch


def _receive_and_ack(bus: MessageBus, batch: int) -> float:
    """Return the median time of a message."""
    times = []
    for _ in range(_times(batch)):
        began = time.perf_counter()
        deliveries = bus.receive("deep", max_messages=batch, lease=LEASE)
        bus.ack(*deliveries)
        times.append(time.perf_counter() - began)
        assert len(deliveries) == batch, f"a claim found {len(deliveries)} of {batch}"
    return statistics.median(times) / batch


def _times(batch: int) -> int:
    return _CLAIMS if batch == 1 else 7
