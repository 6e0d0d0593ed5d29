"""Who gets a message, and why, on every store."""

from __future__ import annotations

import pytest
from mailbox_steps import BOX, OTHER, counts, message, one
from message_strategies import Counted

from airflow_agentic.errors import InvalidFilter, InvalidMessage, MessageTooLarge, Unroutable
from airflow_agentic.messaging import BusOptions, MailboxRules, Message, MessageBus, Subscription
from airflow_agentic.messaging.routing import UNROUTABLE, Router


def news(data=None, **values):
    return Message(**{"source": "shop", "topic": "orders.eu.created", "data": data, **values})


def broadcast(audience, data=None):
    return Message(source="shop", audience=audience, data=data)


def with_options(store, **options):
    return MessageBus(store.bus._store, BusOptions(**options))


class TestTopics:
    def test_every_mailbox_that_subscribed_gets_a_copy_of_its_own(self, bus):
        bus.subscribe(BOX, "orders.*.created")
        bus.subscribe(OTHER, "orders.#")
        bus.subscribe("elsewhere", "audit.#")
        assert bus.publish(news("order 1")) == [BOX, OTHER]
        mine, theirs = one(bus, BOX), one(bus, OTHER)
        assert mine.message == theirs.message
        assert mine.delivery_id != theirs.delivery_id
        mine.ack()
        theirs.reject("no")
        assert (counts(bus)["done"], counts(bus, OTHER)["dead"]) == (1, 1)
        assert bus.receive("elsewhere") == []

    def test_receivers_of_one_mailbox_compete_for_its_copies(self, bus):
        bus.subscribe(BOX, "orders.#")
        for number in range(3):
            bus.publish(news(number))
        assert [one(bus).message.data for _ in range(3)] == [0, 1, 2]
        assert bus.receive(BOX) == []

    def test_a_mailbox_that_subscribed_twice_gets_one_copy(self, bus):
        bus.subscribe(BOX, "orders.#")
        bus.subscribe(BOX, "orders.*.created")
        bus.subscribe(BOX, "#", "true")
        assert bus.publish(news()) == [BOX]
        assert counts(bus)["ready"] == 1

    def test_send_leads_by_topic_too(self, bus):
        bus.subscribe(BOX, "orders.#")
        assert bus.send(news()) is True
        assert counts(bus)["ready"] == 1

    def test_content_decides_where_there_is_a_filter(self, bus):
        bus.subscribe(BOX, "orders.#", "msg.data.total > 100")
        bus.subscribe(OTHER, "orders.#", "msg.data.total <= 100")
        assert bus.publish(news({"total": 120})) == [BOX]
        assert bus.publish(news({"total": 100})) == [OTHER]

    def test_a_filter_without_a_topic_is_asked_for_every_topic(self, bus):
        subscribed = bus.subscribe(BOX, filter="msg.type == 'urgent'")
        assert subscribed.topic == "#"
        assert bus.publish(news(type="urgent")) == [BOX]

    def test_a_subscription_may_have_attempts_of_its_own(self, bus):
        bus.subscribe(BOX, "orders.#", max_attempts=7)
        bus.subscribe(OTHER, "orders.#")
        bus.publish(news())
        assert (one(bus).max_attempts, one(bus, OTHER).max_attempts) == (7, 3)

    def test_of_several_subscriptions_of_a_mailbox_the_first_that_fits_counts(self, store):
        declared = (
            Subscription(BOX, "orders.#", "msg.data > 5", max_attempts=2),
            Subscription(BOX, "orders.eu.created", max_attempts=8),
        )
        bus = with_options(store, subscriptions=declared, mailboxes={BOX: MailboxRules(max_attempts=4)})
        bus.publish(news(9))
        bus.publish(news(1))
        assert [one(bus).max_attempts, one(bus).max_attempts] == [2, 8]

    def test_a_message_that_was_published_before_reaches_nobody(self, bus):
        bus.subscribe(BOX, "orders.#")
        first = news(id="m-1")
        assert bus.publish(first) == [BOX]
        bus.subscribe(OTHER, "orders.#")
        assert bus.publish(first) == []
        assert bus.stats(OTHER).total == 0

    def test_who_subscribes_later_gets_what_is_published_then(self, bus):
        bus.publish(news("too early"))
        bus.subscribe(BOX, "orders.#")
        bus.publish(news("in time"))
        assert one(bus).message.data == "in time"
        assert bus.receive(BOX) == []

    def test_who_ends_a_subscription_gets_nothing_more(self, bus):
        bus.subscribe(BOX, "orders.#")
        bus.subscribe(BOX, "audit.#")
        assert bus.unsubscribe(BOX, "orders.#") == 1
        assert bus.publish(news()) == []
        assert bus.publish(news(topic="audit")) == [BOX]


class TestGroups:
    @pytest.fixture
    def staffed(self, bus):
        bus.subscribe("ana", role="auditor", tags=["eu"])
        bus.subscribe("bob", role="auditor", tags=["us", "gpu"])
        bus.subscribe("cem", tags=["eu", "gpu"])
        bus.subscribe("dashboard", "orders.#")
        return bus

    @pytest.mark.parametrize(
        ("audience", "who"),
        [
            ("all", ["ana", "bob", "cem", "dashboard"]),
            ("role:auditor", ["ana", "bob"]),
            ("tag:eu", ["ana", "cem"]),
            ("tag:gpu", ["bob", "cem"]),
        ],
    )
    def test_a_broadcast_reaches_all_or_those_with_a_role_or_tag(self, staffed, audience, who):
        assert staffed.publish(broadcast(audience, "hello")) == who
        assert [one(staffed, name).message.data for name in who] == ["hello"] * len(who)

    @pytest.mark.parametrize("audience", ["role:eu", "tag:auditor", "role:nobody", "tag:audit"])
    def test_roles_and_tags_are_not_mixed_up(self, staffed, audience):
        assert staffed.publish(broadcast(audience)) == []

    def test_one_that_only_takes_part_in_broadcasts_hears_no_topic(self, staffed):
        assert staffed.publish(news()) == ["dashboard"]

    @pytest.mark.parametrize("audience", ["everybody", "role:", "role:a b", "tag", "", "ALL"])
    def test_an_audience_that_can_be_nobody_is_refused(self, audience):
        with pytest.raises(InvalidMessage, match="audience"):
            broadcast(audience)


class TestThatLeadNowhere:
    def test_they_are_kept_in_the_dead_letters_and_counted(self, store):
        metrics = Counted()
        bus = MessageBus(store.bus._store, metrics=metrics)
        bus.subscribe(BOX, "audit.#")
        assert bus.publish(news("lost?", id="m-1")) == []
        [dead] = bus.dead_letters(UNROUTABLE)
        assert (dead.message.data, dead.attempts) == ("lost?", 0)
        assert dead.reason == "unroutable: nobody subscribed to topic orders.eu.created"
        assert metrics.counts == {("bus.unroutable",): 1}
        assert bus.receive(UNROUTABLE) == []
        assert bus.send(news(id="m-1")) is False

    def test_a_broadcast_says_to_whom(self, bus):
        bus.send(broadcast("role:auditor"))
        [dead] = bus.dead_letters()
        assert dead.reason == "unroutable: nobody subscribed to audience role:auditor"

    def test_a_mandatory_one_is_refused_and_not_kept(self, bus):
        with pytest.raises(
            Unroutable, match=r"nobody subscribed to topic orders.eu.created; `airflow agentic routes"
        ):
            bus.publish(news(id="m-1"), mandatory=True)
        assert bus.mailboxes() == []
        bus.subscribe(BOX, "orders.#")
        assert bus.publish(news(id="m-1"), mandatory=True) == [BOX]

    def test_what_handling_produced_does_not_fail_for_it(self, bus):
        bus.send(message())
        one(bus).ack(send=[news("result")])
        assert [dead.message.data for dead in bus.dead_letters(UNROUTABLE)] == ["result"]

    def test_a_message_to_an_unknown_mailbox_waits_there(self, bus):
        bus.send(message("early", recipient="not-yet-there"))
        assert one(bus, "not-yet-there").message.data == "early"


class TestExplaining:
    def test_takers_come_first_and_everybody_has_a_reason(self, bus):
        bus.subscribe("a-late", "audit.#")
        bus.subscribe("b-small", "orders.#", "msg.data.total > 1000")
        bus.subscribe("c-big", "orders.#", "msg.data.total > 100")
        bus.subscribe("d-all", "#")
        bus.subscribe("e-group", role="auditor")
        told = [(route.mailbox, route.taken, route.why) for route in bus.routes(news({"total": 120}))]
        assert told == [
            ("c-big", True, "it subscribed to orders.#, and the filter msg.data.total > 100 holds"),
            ("d-all", True, "it subscribed to #"),
            ("a-late", False, "the topic does not match audit.#"),
            (
                "b-small",
                False,
                "it subscribed to orders.#, and the filter msg.data.total > 1000 does not hold",
            ),
            ("e-group", False, "it takes part in broadcasts only"),
        ]
        assert bus.mailboxes() == []

    def test_a_broadcast_is_explained(self, bus):
        bus.subscribe("ana", role="auditor")
        bus.subscribe("bob", tags=["eu"])
        told = [(route.mailbox, route.taken, route.why) for route in bus.routes(broadcast("role:auditor"))]
        assert told == [
            ("ana", True, "it has the role auditor"),
            ("bob", False, "it is not in the audience role:auditor"),
        ]

    def test_a_direct_message_is_explained(self, bus):
        bus.subscribe(OTHER, "#")
        [route] = bus.routes(message())
        assert (route.mailbox, route.taken, route.why) == (BOX, True, "the message names it as its recipient")

    def test_declared_subscriptions_count_as_those_by_api_do(self, store):
        declared = Subscription(BOX, "orders.#", origin="agentic.yaml:7")
        bus = with_options(store, subscriptions=(declared,))
        bus.subscribe(OTHER, "orders.#")
        assert [each.origin for each in bus.subscriptions()] == ["agentic.yaml:7", "api"]
        assert bus.publish(news()) == [BOX, OTHER]
        assert [route.subscription.origin for route in bus.routes(news())] == ["agentic.yaml:7", "api"]

    def test_where_it_goes_is_where_it_is_said_to_go(self):
        known = [
            Subscription("b", "#"),
            Subscription("a", "orders.#", "msg.data > 1"),
            Subscription("b", "orders.#"),
        ]
        router = Router(known)
        for data in (1, 2):
            takers = {route.mailbox for route in router.explain(news(data)) if route.taken}
            assert [route.mailbox for route in router.routes(news(data))] == sorted(takers)


class TestBadInput:
    @pytest.mark.parametrize(
        ("values", "error", "said"),
        [
            ({"mailbox": "not a mailbox"}, InvalidMessage, "recipient"),
            ({"mailbox": ""}, InvalidMessage, "recipient"),
            ({"topic": "orders..created"}, InvalidMessage, "topic pattern"),
            ({"topic": ""}, InvalidMessage, "topic pattern"),
            ({"filter": "msg.data.total >"}, InvalidFilter, "does not compile"),
            ({"filter": "1 + 1"}, InvalidFilter, "never true or false"),
            ({"role": "an auditor"}, InvalidMessage, "audience"),
            ({"role": ""}, InvalidMessage, "audience"),
            ({"tags": ["gpu", "a b"]}, InvalidMessage, "audience"),
            ({"max_attempts": 0}, InvalidMessage, "max_attempts must be positive"),
            ({"max_attempts": -1}, InvalidMessage, "max_attempts must be positive"),
        ],
    )
    def test_a_subscription_that_cannot_be_one_is_refused_and_not_kept(self, bus, values, error, said):
        with pytest.raises(error, match=said):
            bus.subscribe(**{"mailbox": BOX, **values})
        assert bus.subscriptions() == []

    def test_one_tag_may_be_said_as_a_text(self, bus):
        assert bus.subscribe(BOX, tags="gpu").tags == ("gpu",)
        assert bus.publish(broadcast("tag:gpu")) == [BOX]

    def test_a_direct_message_is_not_published(self, bus):
        with pytest.raises(InvalidMessage, match="use send for a recipient"):
            bus.publish(message())
        assert bus.mailboxes() == []

    @pytest.mark.parametrize(
        "values",
        [{"recipient": BOX}, {"audience": "all"}, {"topic": "a b"}, {"topic": "a.*"}, {"topic": "#"}],
    )
    def test_a_message_has_one_address_that_can_be_one(self, values):
        with pytest.raises(InvalidMessage):
            news(**values)

    def test_a_payload_over_the_limit_reaches_nobody(self, store):
        bus = with_options(store, max_message_bytes=2_000)
        bus.subscribe(BOX, "orders.#")
        with pytest.raises(
            MessageTooLarge, match=r"to 'topic orders.eu.created' is .* bytes; the limit is 2,000"
        ):
            bus.publish(news("x" * 2_000))
        assert bus.mailboxes() == []
