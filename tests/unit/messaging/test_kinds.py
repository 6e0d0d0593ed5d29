"""The rules of each kind of message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from mailbox_steps import BOX, message, one

from airflow_agentic.errors import (
    ErrorReply,
    InvalidMessage,
    InvalidOption,
    MailboxFull,
    ProjectInvalid,
    ServiceError,
    ServiceRefused,
    StoreUnavailable,
    UnknownAgent,
)
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.messaging.kinds import answer, category_of, checked, error_data, refusal, time_to_live

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001  # that is the point
DEADLINE = timedelta(seconds=300)


def request(data=None, **values):
    return message(data, kind=Kind.REQUEST, **{"reply_to": "scanner", **values})


def raised(make):
    try:
        make()
    except Exception as error:  # noqa: BLE001  # it is what the test is about
        return error
    raise AssertionError("it did not raise")


class TestRequest:
    def test_needs_a_mailbox_for_its_answer(self, bus):
        with pytest.raises(InvalidMessage, match=r"a request needs reply_to=.*bus\.request"):
            bus.send(request(reply_to=None))
        assert bus.mailboxes() == []

    def test_gets_a_deadline_if_it_has_none(self, bus):
        before = datetime.now(UTC)
        bus.send(request())
        ends = one(bus).message.expires_at
        assert before + DEADLINE <= ends <= datetime.now(UTC) + DEADLINE

    def test_keeps_the_deadline_it_has(self, bus):
        ends = datetime.now(UTC) + timedelta(seconds=7)
        bus.send(request(expires_at=ends))
        assert one(bus).message.expires_at == ends


class TestAnswer:
    def test_goes_to_whoever_asked_in_the_same_conversation_and_by_the_same_deadline(self):
        asked = checked(
            request("?", correlation_id="dag:run", traceparent=f"00-{'1' * 32}-{'2' * 16}-01"), DEADLINE
        )
        said = answer(asked, "auditor", {"ok": True}, subject="s")
        assert (said.source, said.recipient, said.kind) == ("auditor", "scanner", Kind.RESPONSE)
        assert (said.correlation_id, said.causation_id) == ("dag:run", asked.id)
        assert (said.expires_at, said.traceparent) == (asked.expires_at, asked.traceparent)
        assert (said.data, said.subject) == ({"ok": True}, "s")

    def test_to_nobody_is_refused(self):
        for make in (lambda m: answer(m, "auditor", 1), lambda m: refusal(m, "auditor", ValueError("x"))):
            with pytest.raises(InvalidMessage, match="has no reply_to: nobody waits for an answer"):
                make(message())

    def test_that_answers_nothing_is_refused(self, bus):
        with pytest.raises(InvalidMessage, match="a response needs causation_id="):
            bus.send(message(kind=Kind.RESPONSE))

    def test_can_be_an_error_which_is_raised_where_it_is_wanted(self):
        said = refusal(request(), "auditor", ServiceError("the registry is down"))
        with pytest.raises(
            ErrorReply, match="auditor answered with an error: the registry is down"
        ) as caught:
            said.raise_for_error()
        assert (caught.value.category, caught.value.retry_helps) == ("transient", True)
        fine = answer(request(), "auditor", 1)
        assert fine.raise_for_error() is fine


class TestError:
    def test_carries_its_category_its_type_and_the_chain_of_its_causes(self):
        def fail():
            try:
                try:
                    {}["name"]
                except KeyError as error:
                    raise ValueError("no name") from error
            except ValueError:
                raise ServiceRefused("bad record")  # noqa: B904  # led to it all the same

        assert error_data(raised(fail)) == {
            "category": "permanent",
            "type": "ServiceRefused",
            "message": "bad record",
            "causes": [
                {"type": "ValueError", "message": "no name"},
                {"type": "KeyError", "message": "'name'"},
            ],
        }

    def test_what_was_hidden_on_purpose_stays_hidden(self):
        def fail():
            try:
                int("password=hunter2")
            except ValueError:
                raise ServiceError("the login was refused") from None

        assert error_data(raised(fail))["causes"] == []

    def test_every_text_is_made_discreet(self):
        error = ServiceError("token hunter2")
        error.__cause__ = ValueError("also hunter2")
        said = error_data(error, lambda text: text.replace("hunter2", "***"))
        assert "hunter2" not in str(said)
        assert said["message"] == "token ***"

    def test_causes_that_go_round_end(self):
        one_error, other = ValueError("a"), ValueError("b")
        one_error.__cause__, other.__cause__ = other, one_error
        assert [cause["message"] for cause in error_data(one_error)["causes"]] == ["b"]

    def test_a_very_long_chain_is_cut(self):
        error = ValueError("first")
        for number in range(1_000):
            following = ValueError(str(number))
            following.__cause__ = error
            error = following
        assert len(error_data(error)["causes"]) == 20

    @pytest.mark.parametrize(
        ("error", "category"),
        [
            (ServiceError("x"), "transient"),
            (StoreUnavailable("x"), "transient"),
            (MailboxFull("x"), "resource_exhaustion"),
            (ErrorReply("x", category="transient"), "transient"),
            (ErrorReply("x", category="permanent"), "permanent"),
            (ServiceRefused("x"), "permanent"),
            (InvalidMessage("x"), "permanent"),
            (InvalidOption("x"), "configuration"),
            (UnknownAgent("x"), "configuration"),
            (ProjectInvalid([]), "configuration"),
            (ZeroDivisionError("x"), "transient"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
    )
    def test_the_category_says_whether_a_retry_helps(self, error, category):
        assert category_of(error) == category

    @pytest.mark.parametrize(
        ("data", "missing"),
        [
            (None, "it"),
            ("it broke", "it"),
            ({}, "category, message"),
            ({"category": "permanent"}, "message"),
            ({"category": "permanent", "message": "x", "causes": [{"type": "E"}]}, r"causes\.0\.message"),
        ],
    )
    def test_that_does_not_say_what_happened_is_refused(self, bus, data, missing):
        with pytest.raises(InvalidMessage, match=rf"the data of an error must be .*: {missing} does not fit"):
            bus.send(message(data, kind=Kind.ERROR))

    def test_may_say_more(self, bus):
        data = {**error_data(ValueError("x")), "hint": "try again"}
        bus.send(message(data, kind=Kind.ERROR))
        assert one(bus).message.data == data

    def test_of_an_old_writer_can_be_raised_whatever_it_says(self):
        for data in (None, "it broke", {"message": "x"}):
            with pytest.raises(ErrorReply) as caught:
                message(data, kind=Kind.ERROR).raise_for_error()
            assert caught.value.category == "permanent"


class TestHeartbeat:
    @pytest.mark.parametrize("address", [{"recipient": BOX}, {"topic": "a.b"}, {"audience": "all"}])
    def test_is_for_nobody(self, bus, address):
        beat = Message(source="scanner", kind=Kind.HEARTBEAT, **address)
        with pytest.raises(InvalidMessage, match=r"for nobody.*subscribes to agentic\.heartbeat\.missed"):
            bus.send(beat)
        assert bus.heartbeats() == []
        assert bus.mailboxes() == []

    @pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.HEARTBEAT])
    def test_nothing_else_is_for_nobody(self, kind):
        with pytest.raises(
            InvalidMessage, match=r"say whom it is for: recipient= \(a mailbox\), topic= or audience="
        ):
            Message(source="scanner", kind=kind)


class TestTimes:
    @pytest.mark.parametrize("name", ["time", "expires_at"])
    def test_a_time_without_a_zone_is_refused_by_its_name(self, name):
        with pytest.raises(InvalidMessage, match=f"{name}: Input should have timezone info"):
            message(**{name: NAIVE})

    def test_what_is_left_is_counted_from_now(self):
        assert time_to_live(message()) is None
        left = time_to_live(message(expires_at=datetime.now(UTC) + timedelta(seconds=60)))
        assert timedelta(seconds=55) < left <= timedelta(seconds=60)
        assert time_to_live(message(expires_at=datetime.now(UTC) - DEADLINE)) < timedelta(0)

    def test_the_end_of_time_can_be_waited_for_by_every_store(self, bus):
        sent = message(expires_at=datetime.max.replace(tzinfo=UTC))
        bus.send(sent)
        assert one(bus).message == sent
