"""What the project file says about mailboxes, as the bus takes it; and what is wrong with it."""

from __future__ import annotations

import textwrap

import pytest

from airflow_agentic.config.project import assemble
from airflow_agentic.errors import ProjectInvalid
from airflow_agentic.messaging import BusOptions, MailboxRules, Message, MessageBus, Subscription
from airflow_agentic.messaging.declared import (
    check_routes,
    declared_subscriptions,
    mailbox_rules,
    require_usable,
)
from airflow_agentic.stores.memory import memory_bus_store


def project(text, **layers):
    return assemble([("agentic.yaml", textwrap.dedent(text).strip().encode())], **layers)


def bus(text):
    declared = project(text)
    options = BusOptions(
        subscriptions=declared_subscriptions(declared), mailboxes=mailbox_rules(declared), max_attempts=5
    )
    return MessageBus(memory_bus_store(), options)


def faults(text):
    declared = project(text)
    return [str(declared.fault(*found)) for found in check_routes(declared)]


class TestSubscriptions:
    def test_each_says_where_it_is_declared(self):
        declared = project("""
            agents:
              triage:
                role: clerk
                tags: [billing, eu]
                subscriptions:
                  - orders.*.created
                  - topic: audit.#
                    filter: msg.data.total > 100
                    max_attempts: 2
            mailboxes:
              log:
                subscriptions: ['#']
              night-shift: {tags: [billing]}
              plain: {limit: 3}
            routes:
              large: {filter: msg.priority > 7, to: night-shift}
            roles: {clerk: {}}
        """)
        assert declared_subscriptions(declared) == (
            Subscription("triage", role="clerk", tags=("billing", "eu"), origin="agentic.yaml:2"),
            Subscription("triage", "orders.*.created", origin="agentic.yaml:6"),
            Subscription(
                "triage", "audit.#", "msg.data.total > 100", max_attempts=2, origin="agentic.yaml:7"
            ),
            Subscription("log", "#", origin="agentic.yaml:12"),
            Subscription("night-shift", tags=("billing",), origin="agentic.yaml:13"),
            Subscription("night-shift", "#", "msg.priority > 7", origin="agentic.yaml:16"),
        )

    def test_one_that_is_laid_over_the_files_names_what_laid_it(self):
        variable = "AGENTIC__AGENTS__TRIAGE__SUBSCRIPTIONS"
        declared = project("agents: {triage: {}}", env={variable: '["orders.#"]'})
        assert declared_subscriptions(declared)[1].origin == f"environment variable {variable}"

    def test_nothing_declared_is_no_subscription(self):
        assert declared_subscriptions(project("flags: {a: 1}")) == ()
        assert mailbox_rules(project("agents: {triage: {}}")) == {}


class TestAtWork:
    TEXT = """
        agents:
          triage: {role: clerk, tags: [eu], subscriptions: [{topic: orders.*, max_attempts: 2}]}
          accountant: {tags: [eu, us], policy: patient, mailbox: {limit: 2}}
          auditor: {subscriptions: [{topic: orders.*, filter: msg.data.total > 100}]}
        mailboxes:
          log: {subscriptions: [audit.#], max_attempts: 9}
          night-shift: {tags: [us], overflow: dead-letter}
        routes:
          complaints: {topic: orders.refused, to: log}
        policies: {patient: {retry: {max_attempts: 7}}}
        roles: {clerk: {}}
    """

    @pytest.mark.parametrize(
        ("message", "reached"),
        [
            ({"topic": "orders.created", "data": {"total": 1}}, ["triage"]),
            ({"topic": "orders.created", "data": {"total": 101}}, ["auditor", "triage"]),
            ({"topic": "orders.refused", "data": {"total": 1}}, ["log", "triage"]),
            ({"topic": "audit.a.b"}, ["log"]),
            ({"audience": "role:clerk"}, ["triage"]),
            ({"audience": "tag:us"}, ["accountant", "night-shift"]),
        ],
    )
    def test_a_message_reaches_those_who_are_declared_for_it(self, message, reached):
        assert bus(self.TEXT).publish(Message(source="shop", **message)) == reached

    def test_a_message_for_all_reaches_every_declared_agent(self):
        reached = bus(self.TEXT).publish(Message(source="shop", audience="all"))
        assert {"triage", "accountant", "auditor"} <= set(reached)

    def test_attempts_are_those_of_the_subscription_then_the_policy_then_the_mailbox_then_the_options(self):
        ours = bus(self.TEXT)
        ours.publish(Message(source="shop", topic="orders.refused", data={"total": 1}))
        ours.publish(Message(source="shop", audience="tag:eu"))
        ours.send(Message(source="shop", recipient="night-shift"))
        counts = {
            (delivery.mailbox, delivery.max_attempts)
            for mailbox in ("triage", "accountant", "log", "night-shift")
            for delivery in ours.receive(mailbox, max_messages=9)
        }
        assert counts == {("triage", 2), ("triage", 5), ("accountant", 7), ("log", 9), ("night-shift", 5)}

    def test_the_room_of_a_mailbox_is_what_is_declared(self):
        assert mailbox_rules(project(self.TEXT)) == {
            "accountant": MailboxRules(max_attempts=7, limit=2),
            "log": MailboxRules(max_attempts=9),
            "night-shift": MailboxRules(overflow="dead-letter"),
        }


class TestFaults:
    def test_every_filter_that_does_not_compile_is_told_with_its_line(self):
        found = faults("""
            agents:
              triage:
                subscriptions:
                  - topic: a.b
                    filter: msg.data.total >
            mailboxes:
              log: {subscriptions: [{filter: '1 + 1'}]}
            routes:
              r: {to: log, filter: msg.data ==}
        """)
        assert [
            fault.partition(" does not compile")[0].partition(" is no condition")[0] for fault in found
        ] == [
            "agentic.yaml:5: agents.triage.subscriptions.0.filter: the filter 'msg.data.total >'",
            "agentic.yaml:7: mailboxes.log.subscriptions.0.filter: the filter '1 + 1'",
            "agentic.yaml:9: routes.r.filter: the filter 'msg.data =='",
        ]

    def test_one_that_asks_for_what_no_message_has_is_told_with_the_nearest_name(self):
        (found,) = faults("mailboxes: {log: {subscriptions: [{filter: msg.tpoic == 'a'}]}}")
        assert found.endswith("asks for msg.tpoic, and a message has none (did you mean 'topic'?)")
        (found,) = faults("mailboxes: {log: {subscriptions: [{filter: msg.zzz > 1}]}}")
        assert "what was sent stands under msg.data" in found

    @pytest.mark.parametrize(
        "text",
        [
            "msg.data.msg.nothing == 'msg.nothing'",
            r"msg.type == \"say \\\"msg.nothing\\\"\"",
            "msg.kind == 'request' && has(msg.data.total)",
            "msg.data.items.exists(item, item.price > 3)",
        ],
    )
    def test_good_ones_have_none(self, text):
        assert faults(f'mailboxes: {{log: {{subscriptions: [{{filter: "{text}"}}]}}}}') == []

    def test_at_run_time_they_are_refused_with_their_place_before_anything_is_led_by_them(self):
        declared = project("""
            agents:
              triage:
                subscriptions: [{filter: msg.data >}, fine.topic]
        """)
        with pytest.raises(ProjectInvalid) as refused:
            require_usable(declared_subscriptions(declared))
        assert "\nagentic.yaml:3: the filter 'msg.data >' does not compile" in str(refused.value)
        assert refused.value.retry_helps is False
        require_usable(declared_subscriptions(project("agents: {triage: {subscriptions: [fine.topic]}}")))
