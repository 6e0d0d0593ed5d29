"""What content rules and routing cost."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

from airflow_agentic.messaging import Message
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.filters import attributes, compiled
from airflow_agentic.messaging.routing import Router, Subscription
from benchmarks.bus.ours import message, opened
from benchmarks.bus.rounds import Trial, Unavailable, interleaved
from benchmarks.bus.section import Plan, Section

_RULE = (
    "msg.kind == 'notification' && msg.priority >= 4 && msg.data.total > 100.0 "
    "&& msg.data.country in ['DE', 'FR', 'IT'] && msg.data.customer.tier == 'gold'"
)
_ORDER = {"total": 250.5, "country": "FR", "customer": {"tier": "gold", "since": 2019}, "lines": 3}
_BOMB = "msg.data.all(a, msg.data.all(b, msg.data.all(c, a + b + c >= 0)))"
_PATTERN = "msg.data.matches('^(a+)+$')"
_TOPIC = "orders.shop-5.created"
_MANY = 1_000

_PYTHON, _CEL, _STOPPED, _MATCHED = "Python", "CEL rule", "cost bomb", "regular expression"
_EXACT, _MIXED = f"{_MANY:,} topics, one fits", f"{_MANY:,} patterns, 100 of them with a rule"


def rules(plan: Plan) -> Section:
    """Measure CEL."""
    section = Section(
        "CEL: one evaluation of a compiled rule with five conditions; and rules that are meant to hurt"
    )
    values = attributes(Message(source="shop", topic=_TOPIC, data=_ORDER))
    numbers = attributes(Message(source="shop", topic=_TOPIC, data=list(range(300))))
    text = attributes(Message(source="shop", topic=_TOPIC, data="a" * 50 + "!"))
    assert compiled(_RULE).matches(values) == (True, None)
    held, fault = compiled(_BOMB).matches(numbers)
    assert not held
    assert fault is not None
    count = plan.some(5_000)
    trials = [
        _repeated(_PYTHON, count, lambda: _in_python(values)),
        _repeated(_CEL, count, lambda: compiled(_RULE).matches(values)),
        _repeated(_STOPPED, 3, lambda: compiled(_BOMB).matches(numbers)),
        _repeated(_MATCHED, count, lambda: compiled(_PATTERN).matches(text)),
    ]
    section.rounds = interleaved(trials, plan.disk, plan.rounds, say=plan.say)
    section.skipped.update(section.rounds.failed)
    section.add("a rule", "the same in Python", _PYTHON, "µs", note="by hand: no text, no limits")
    section.add("a rule", "CEL", _CEL, "µs", _PYTHON)
    section.add("meant to hurt", "300³ steps, until stopped", _STOPPED, "ms", note=fault)
    section.add("meant to hurt", "(a+)+ on 50 letters", _MATCHED, "ms")
    section.within("CEL rule", 10, "µs", _CEL)
    section.within("CEL cost bomb, until stopped", 50, "ms", _STOPPED)
    return section


def routing(plan: Plan) -> Section:
    """Measure routing through a thousand subscriptions, without a store and with one."""
    section = Section(f"Routing of a message through {_MANY:,} subscriptions")
    sent = Message(source="shop", topic=_TOPIC, data=_ORDER)
    one = [Subscription("box-5", _TOPIC)]
    exact = [Subscription(f"box-{number}", f"orders.shop-{number}.created") for number in range(_MANY)]
    mixed = [_mixed(number) for number in range(_MANY)]
    count = plan.some(1_000)
    trials = [
        _repeated(f"router, {name}", count, functools.partial(_routed, given, sent, takers))
        for name, given, takers in (("one", one, 1), (_EXACT, exact, 1), (_MIXED, mixed, 12))
    ]
    with contextlib.ExitStack() as stack:
        try:
            few, many = (
                stack.enter_context(opened(f"sqlite:///{plan.folder / name}.db")).bus
                for name in ("few", "many")
            )
        except Unavailable as reason:
            section.skipped["SQLite"] = str(reason)
        else:
            for bus, given in ((few, one), (many, exact)):
                for each in given:
                    bus.subscribe(each.mailbox, topic=each.topic)
            trials += _published(few, many, plan.some(200))
        section.rounds = interleaved(trials, plan.disk, plan.rounds, say=plan.say)
    section.skipped.update(section.rounds.failed)
    for name in ("one", _EXACT, _MIXED):
        section.add("Router.routes", name, f"router, {name}", "µs", "router, one")
    section.add("SQLite", "send to a mailbox", "send", "µs")
    section.add("SQLite", "publish, one subscription in the store", "publish to one", "µs", "send")
    section.add(
        "SQLite", f"publish, {_MANY:,} subscriptions in the store, one fits", "publish to many", "µs", "send"
    )
    return section


def _mixed(number: int) -> Subscription:
    if number % 10 == 0:
        rule = "msg.data.total > 100.0" if number % 100 == 0 else "msg.data.total > 1000.0"
        return Subscription(f"box-{number}", "orders.*.created", rule)
    topic = ("orders.shop-{}.*", "orders.shop-{}.#", "#.shop-{}.created")[number % 3]
    return Subscription(f"box-{number}", topic.format(5 if number in (1, 2) else number + _MANY))


def _routed(given: list[Subscription], sent: Message, takers: int) -> None:
    found = Router(given).routes(sent)
    assert len(found) == takers, f"{len(found)} mailboxes instead of {takers}"


def _published(few: MessageBus, many: MessageBus, count: int) -> list[Trial]:
    def publish(bus: MessageBus) -> None:
        assert bus.publish(Message(source="shop", topic=_TOPIC, data=_ORDER)) == ["box-5"]

    return [
        _repeated("send", count, lambda: few.send(message())),
        _repeated("publish to one", count, lambda: publish(few)),
        _repeated("publish to many", count, lambda: publish(many)),
    ]


def _in_python(values: dict[str, Any]) -> bool:
    data = values["data"]
    return bool(
        values["kind"] == "notification"
        and values["priority"] >= 4
        and data["total"] > 100.0
        and data["country"] in ("DE", "FR", "IT")
        and data["customer"]["tier"] == "gold"
    )


def _repeated(name: str, count: int, once: Callable[[], Any]) -> Trial:
    def work() -> float:
        began = time.perf_counter()
        for _ in range(count):
            once()
        return (time.perf_counter() - began) / count

    return Trial(name, work)
