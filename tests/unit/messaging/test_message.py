from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from airflow_agentic.errors import InvalidMessage, UndecodableMessage
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.messaging.codec import decode, encode, from_event, to_event
from airflow_agentic.messaging.delivery import reference


def message(data=None, **values):
    return Message(**{"source": "scanner", "recipient": "auditor", "data": data, **values})


def nested(depth):
    data: object = 1
    for _ in range(depth):
        data = [data]
    return data


class TestDefaults:
    def test_a_message_starts_a_conversation_of_its_own(self):
        sent = message()
        assert sent.correlation_id == sent.id

    def test_a_message_can_belong_to_a_conversation(self):
        assert message(correlation_id="dag:run").correlation_id == "dag:run"

    def test_every_message_has_an_id_of_its_own_and_ids_grow_with_time(self):
        ids = [message().id for _ in range(100)]
        assert len(set(ids)) == 100
        assert ids == sorted(ids)

    def test_its_time_has_a_time_zone(self):
        assert message().time.tzinfo is UTC


class TestData:
    def test_data_is_copied_when_the_message_is_made(self):
        data = {"list": [1]}
        sent = message(data)
        data["list"].append(2)
        assert sent.data == {"list": [1]}

    def test_a_pydantic_model_is_sent_as_json(self):
        class Record(BaseModel):
            name: str
            day: datetime

        sent = message(Record(name="a", day=datetime(2030, 1, 1, tzinfo=UTC)))
        assert sent.data == {"name": "a", "day": "2030-01-01T00:00:00Z"}

    def test_a_secret_field_of_a_model_is_sent_masked(self):
        class Login(BaseModel):
            password: SecretStr

        assert message(Login(password=SecretStr("hunter2"))).data == {"password": "**********"}

    @pytest.mark.parametrize(
        ("data", "place"),
        [
            ({"user": {"tags": {1, 2}}}, r"data\['user'\]\['tags'\] is a set"),
            ([1, [2, object()]], r"data\[1\]\[1\] is a object"),
            (float("nan"), "data is nan"),
            ({"a": [float("-inf")]}, r"data\['a'\]\[0\] is -inf"),
            ({(1, 2): 3}, "data has a key of type tuple"),
            (b"bytes", "data is a bytes"),
            ("half a pair: \ud800", "data has half a surrogate pair"),
            ({"k": ["\udfff"]}, r"data\['k'\]\[0\] has half a surrogate pair"),
            ({"\ud800": 1}, "data has a key with half a surrogate pair"),
        ],
    )
    def test_what_is_not_json_is_refused_and_its_place_is_named(self, data, place):
        with pytest.raises(InvalidMessage, match=f"{place}.*send a JSON value or a pydantic model"):
            message(data)

    @pytest.mark.parametrize("values", [{"number": float("nan")}, {"text": "\ud800"}])
    def test_a_model_cannot_smuggle_in_what_is_not_json(self, values):
        class Loose(BaseModel):
            number: float = 1.0
            text: Any = ""

        with pytest.raises(InvalidMessage, match=rf"data\['{next(iter(values))}'\]"):
            message(Loose(**values))

    def test_data_that_contains_itself_is_refused(self):
        loop: list[object] = []
        loop.append(loop)
        with pytest.raises(InvalidMessage, match=r"data\[0\] contains itself"):
            message(loop)

    def test_data_without_a_bottom_is_refused(self):
        with pytest.raises(InvalidMessage, match="nested too deeply"):
            message(nested(100_000))

    def test_data_as_deep_as_readers_take_arrives_and_one_deeper_is_refused(self):
        sent = message(nested(199))
        assert decode(encode(sent)) == sent
        with pytest.raises(InvalidMessage, match="data is nested too deeply; send a JSON value"):
            message(nested(200))


class TestRules:
    @pytest.mark.parametrize("mailbox", ["", "with blank", "-begins-wrong", "a/b", "ü", "x" * 201, None, 5])
    def test_a_mailbox_has_a_name_of_letters_digits_and_few_signs(self, mailbox):
        with pytest.raises(InvalidMessage, match="recipient"):
            message(recipient=mailbox)
        if mailbox is not None:
            with pytest.raises(InvalidMessage, match="reply_to"):
                message(reply_to=mailbox)

    @pytest.mark.parametrize("mailbox", ["a", "A.b_c:d-e", "x" * 200, "0"])
    def test_such_names_are_good(self, mailbox):
        assert message(recipient=mailbox).recipient == mailbox

    def test_all_faults_are_named_at_once(self):
        with pytest.raises(InvalidMessage) as caught:
            Message(source="", recipient="a b", kind="shout", colour="red")
        assert all(field in str(caught.value) for field in ("source", "recipient", "kind", "colour"))

    def test_a_time_without_a_zone_is_refused(self):
        with pytest.raises(InvalidMessage, match="time"):
            message(time=datetime(2030, 1, 1))  # noqa: DTZ001  # that is the point

    def test_its_time_is_kept_in_utc(self):
        new_york = datetime(2030, 7, 1, 8, tzinfo=ZoneInfo("America/New_York"))
        assert message(time=new_york).time.isoformat() == "2030-07-01T12:00:00+00:00"

    def test_a_time_that_has_no_utc_is_refused(self):
        with pytest.raises(InvalidMessage, match="time: is too far from now"):
            message(time=datetime(1, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")))

    def test_a_message_cannot_be_changed(self):
        with pytest.raises(ValidationError, match="frozen"):
            message().recipient = "other"

    def test_two_ids_of_the_longest_kind_fit_into_a_conversation(self):
        assert message(correlation_id=f"{'d' * 250}:{'r' * 250}")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones())  # noqa: DTZ001
identifiers = st.text(min_size=1, max_size=50)


class TestCodec:
    @given(
        data=json_values,
        source=identifiers,
        subject=st.none() | identifiers,
        kind=st.sampled_from(Kind),
        time=times,
        reply_to=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True),
    )
    def test_a_message_comes_back_as_it_went(self, data, source, subject, kind, time, reply_to):
        sent = message(data, source=source, subject=subject, kind=kind, time=time, reply_to=reply_to)
        assert decode(encode(sent)) == sent

    def test_the_wire_form_is_a_cloud_event(self):
        sent = message({"a": 1}, id="m-1", subject="s", reply_to="scanner", causation_id="c")
        assert to_event(sent) == {
            "specversion": "1.0",
            "agenticcodec": 1,
            "datacontenttype": "application/json",
            "id": "m-1",
            "source": "scanner",
            "type": "agentic.message",
            "subject": "s",
            "time": sent.time.isoformat(),
            "data": {"a": 1},
            "recipient": "auditor",
            "kind": "notification",
            "correlationid": "m-1",
            "causationid": "c",
            "replyto": "scanner",
        }

    def test_attribute_names_are_those_that_cloud_events_allows(self):
        assert all(name.isascii() and name.isalnum() and name.islower() for name in to_event(message()))

    def test_unknown_attributes_are_left_aside(self):
        event = {**to_event(message(1)), "partitionkey": "a", "comexampleothervalue": 5}
        assert from_event(event).data == 1

    def test_an_event_without_our_extensions_is_read(self):
        event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "recipient": "box"}
        read = from_event(event)
        assert (read.data, read.kind, read.correlation_id) == (None, Kind.NOTIFICATION, "1")

    @pytest.mark.parametrize("name", ["id", "source", "type"])
    def test_an_event_without_a_required_attribute_is_refused_and_not_completed(self, name):
        event = to_event(message())
        del event[name]
        with pytest.raises(UndecodableMessage, match=f"the event has no {name}"):
            from_event(event)

    @pytest.mark.parametrize("version", [3, 99, "1", 1.5])
    def test_another_codec_version_is_refused_with_the_way_out(self, version):
        with pytest.raises(UndecodableMessage, match=r"codec version .*Upgrade airflow-provider-agentic"):
            from_event({**to_event(message()), "agenticcodec": version})

    @pytest.mark.parametrize("event", [None, [], "text", {}, {"specversion": "0.3"}])
    def test_what_is_no_event_is_refused(self, event):
        with pytest.raises(UndecodableMessage, match=r"not a CloudEvents 1\.0 event"):
            from_event(event)

    def test_invalid_attributes_are_named(self):
        with pytest.raises(UndecodableMessage, match="kind"):
            from_event({**to_event(message()), "kind": "shout"})


def test_a_reference_points_at_a_message_without_its_data():
    sent = message({"secret": "x"}, type="t")
    assert reference(sent) == {
        "id": sent.id,
        "source": "scanner",
        "recipient": "auditor",
        "type": "t",
        "correlation_id": sent.correlation_id,
    }
