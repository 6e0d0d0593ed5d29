"""Large data of messages in object storage: what a bus and Airflow's object storage do together."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_agentic.errors import ClaimCheckDamaged, InvalidOption, MessageTooLarge, StoreUnavailable
from airflow_agentic.messaging import BusOptions, DeliveryState, Kind, Message
from airflow_agentic.messaging.kinds import answer
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.runtime.ports import ObjectStorageBlobs
from airflow_agentic.stores import open_store

BOX = "auditor"
MEGABYTE = "x" * 1_048_576
OPTIONS = BusOptions(
    max_message_bytes=4_096,
    claim_check_bytes=1_024,
    retry_base=timedelta(seconds=0.2),
    poll=timedelta(seconds=0.01),
    dedup_window=timedelta(0),
)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "large"


@pytest.fixture
def blobs(place):
    return ObjectStorageBlobs(f"file://{place}")


@pytest.fixture(params=["memory", "sqlite"])
def store_at(request, tmp_path):
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/agentic.db"


@pytest.fixture
def bus(store_at, blobs):
    with open_store(store_at, options=OPTIONS, blobs=blobs) as store:
        yield store.bus


@pytest.fixture
def in_memory():
    """A file system of another kind, as a provider would bring one."""
    from airflow.sdk.io import attach
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", fs=MemoryFileSystem())
    yield ObjectStorageBlobs("memory://bucket/agentic")
    MemoryFileSystem.store.clear()


def message(data=MEGABYTE, **values):
    return Message(**{"source": "scanner", "recipient": BOX, "data": data, **values})


def files(place):
    return sorted(path for path in place.rglob("*") if path.is_file() and path.name != ".agentic")


def only_file(place):
    [found] = files(place)
    return found


def reason(bus):
    [dead] = bus.dead_letters(BOX)
    return dead.reason


class TestMessages:
    def test_a_megabyte_travels_outside_of_the_store(self, bus, place):
        sent = message({"text": MEGABYTE, "ü": [1, 2.5, None]})
        assert bus.send(sent) is True
        [record] = bus.find(DeliveryQuery(mailbox=BOX))
        assert only_file(place).stat().st_size > len(MEGABYTE)
        assert record.message.data is None
        assert record.message.data_ref == f"file://{only_file(place)}"
        assert record.message.data_digest == hashlib.sha256(only_file(place).read_bytes()).hexdigest()
        [delivery] = bus.receive(BOX)
        assert delivery.message.data == sent.data
        delivery.ack()

    def test_what_is_below_the_threshold_travels_itself(self, bus, place):
        bus.send(message("x" * 100))
        assert not place.exists()
        [delivery] = bus.receive(BOX)
        assert (delivery.message.data, delivery.message.data_ref) == ("x" * 100, None)

    def test_a_threshold_of_nought_keeps_all_data_in_the_message(self, bus, place):
        with pytest.raises(MessageTooLarge, match="claim_check_path"):
            bus.with_options(claim_check_bytes=0).send(message())
        assert not place.exists()

    def test_looking_at_a_message_does_not_read_its_data(self, bus, place):
        bus.send(message())
        only_file(place).write_bytes(b"not what was sent")
        [record] = bus.find(DeliveryQuery(mailbox=BOX))
        assert record.message.data is None
        with pytest.raises(ClaimCheckDamaged, match="not what was sent"):
            bus.loaded(record.message)

    def test_data_that_was_changed_makes_a_dead_letter_that_says_so(self, bus, place):
        bus.send(message())
        kept = only_file(place).read_bytes()
        only_file(place).write_bytes(kept.replace(b"xx", b"xy", 1))
        assert bus.receive(BOX) == []
        assert "is not what was sent: its SHA-256 is" in reason(bus)

    def test_data_that_is_gone_makes_a_dead_letter_that_says_where_it_was(self, bus, place):
        bus.send(message())
        where = only_file(place)
        where.unlink()
        assert bus.receive(BOX) == []
        assert f"the data at file://{where} is gone" in reason(bus)

    def test_a_message_comes_again_when_the_storage_was_away(self, bus, place):
        bus.send(message())
        place.rename(place.with_name("unmounted"))
        assert bus.receive(BOX) == []
        [waiting] = bus.find(DeliveryQuery(mailbox=BOX))
        assert waiting.state is DeliveryState.READY
        assert "Is it mounted?" in waiting.reason
        place.with_name("unmounted").rename(place)
        [delivery] = bus.receive(BOX, wait=timedelta(seconds=5))
        assert delivery.message.data == MEGABYTE
        assert delivery.attempt > 1

    def test_a_mount_point_with_nothing_mounted_is_not_taken_for_lost_data(self, bus, place):
        bus.send(message())
        place.rename(place.with_name("unmounted"))
        place.mkdir()
        assert bus.receive(BOX) == []
        assert bus.stats(BOX).dead == 0

    def test_a_storage_that_stays_away_costs_a_message_its_attempts_and_no_more(self, store_at, blobs, place):
        with open_store(store_at, options=OPTIONS, blobs=blobs) as store:
            bus = store.bus.with_options(max_attempts=1)
            bus.send(message())
            place.rename(place.with_name("unmounted"))
            bus.receive(BOX)
            assert "Is it mounted?" in reason(bus)
            place.with_name("unmounted").rename(place)
            bus.redrive([bus.dead_letters(BOX)[0].delivery_id], actor="ann", reason="mounted again")
            [delivery] = bus.receive(BOX)
            assert delivery.message.data == MEGABYTE

    def test_sending_fails_as_a_whole_when_the_data_cannot_be_kept(self, bus, place):
        place.write_text("a file where the directory should be")
        with pytest.raises(StoreUnavailable, match="cannot keep 1,048,578 bytes"):
            bus.send_many([message(1), message()])
        assert bus.stats(BOX).total == 0

    def test_purging_removes_the_data_of_what_is_forgotten_and_of_nothing_else(self, bus, place):
        for text in ("done", "open"):
            bus.send(message(text * 1_000))
        [done] = bus.receive(BOX)
        done.ack()
        time.sleep(0.01)
        assert bus.purge() == 1
        assert "open" in only_file(place).read_text()

    def test_two_messages_with_the_same_data_do_not_lose_it_when_one_is_purged(self, bus):
        bus.send(message(id="first"))
        bus.send(message(id="second"))
        [first] = bus.receive(BOX)
        first.ack()
        time.sleep(0.01)
        assert bus.purge() == 1
        [second] = bus.receive(BOX)
        assert second.message.data == MEGABYTE

    def test_a_message_that_is_sent_twice_is_kept_once(self, bus, place):
        sent = message()
        assert [bus.send(sent), bus.send(sent)] == [True, False]
        assert len(files(place)) == 1

    def test_large_data_is_routed_by_its_content(self, bus):
        bus.subscribe("large", topic="orders.*", filter="size(msg.data.text) > 1000")
        sent = Message(source="shop", topic="orders.new", data={"text": MEGABYTE})
        assert bus.publish(sent) == ["large"]

    def test_a_large_answer_is_read_again_by_a_second_try(self, bus):
        asked = Message(source="scanner", recipient=BOX, kind=Kind.REQUEST, reply_to="reply.1")
        bus.send(asked)
        [delivery] = bus.receive(BOX)
        delivery.ack(send=[answer(delivery.message, BOX, MEGABYTE)])
        assert bus.reply(asked).data == MEGABYTE
        assert bus.reply(asked).data == MEGABYTE

    def test_a_forged_reference_reads_no_file_of_the_receiver(self, bus, tmp_path):
        secret = tmp_path / "secret.json"
        secret.write_text('"the secret"')
        digest = hashlib.sha256(secret.read_bytes()).hexdigest()
        bus.send(message(None, data_ref=f"file://{tmp_path}/large/../secret.json", data_digest=digest))
        assert bus.receive(BOX) == []
        assert "is not followed" in reason(bus)
        assert "the secret" not in reason(bus)

    def test_a_receiver_without_a_place_says_what_it_needs(self, bus, blobs, tmp_path):
        with open_store(f"sqlite:///{tmp_path}/other.db", options=OPTIONS, blobs=blobs) as store:
            store.bus.send(message())
        with open_store(f"sqlite:///{tmp_path}/other.db", options=OPTIONS) as store:
            assert store.bus.receive(BOX) == []
            assert "set [agentic] claim_check_path" in reason(store.bus)


class TestObjectStorage:
    def test_what_is_put_can_be_got_and_deleted(self, blobs):
        where = blobs.put("ab/cd", b"\x00content")
        assert blobs.get(where) == b"\x00content"
        blobs.delete(where)
        with pytest.raises(ClaimCheckDamaged, match="is gone"):
            blobs.get(where)
        blobs.delete(where)

    def test_it_works_the_same_on_a_storage_that_cannot_rename(self, in_memory):
        where = in_memory.put("ab/cd", b"content")
        assert where == "memory://bucket/agentic/ab/cd"
        assert in_memory.get(where) == b"content"
        in_memory.delete(where)
        with pytest.raises(ClaimCheckDamaged, match="is gone"):
            in_memory.get(where)

    def test_a_path_is_as_good_as_its_url(self, place):
        assert ObjectStorageBlobs(f"{place}/").path == f"file://{place}"

    def test_what_is_there_in_full_is_not_written_again(self, blobs, place):
        blobs.put("ab/cd", b"content")
        before = (place / "ab/cd").stat().st_ino
        blobs.put("ab/cd", b"content")
        assert (place / "ab/cd").stat().st_ino == before

    def test_half_a_file_is_written_anew(self, blobs, place):
        blobs.put("ab/cd", b"content")
        (place / "ab/cd").write_bytes(b"con")
        assert blobs.get(blobs.put("ab/cd", b"content")) == b"content"

    def test_writers_of_the_same_content_do_not_disturb_each_other(self, blobs, place):
        content = MEGABYTE.encode()
        writers = [threading.Thread(target=blobs.put, args=("ab/cd", content)) for _ in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert only_file(place).read_bytes() == content

    def test_a_writer_that_is_killed_leaves_all_or_nothing_under_the_name(self, blobs, place):
        size = 128 * 1_048_576
        program = f"""
from airflow_agentic.runtime.ports import ObjectStorageBlobs
ObjectStorageBlobs("file://{place}").put("ab/cd", b"x" * {size})
"""
        writer = subprocess.Popen([sys.executable, "-c", program])
        deadline = time.monotonic() + 60
        while not list(place.glob("ab/.*.part")) and time.monotonic() < deadline:
            assert writer.poll() is None
        writer.kill()
        assert writer.wait() == -9
        assert not (place / "ab/cd").exists()
        assert blobs.get(blobs.put("ab/cd", b"content")) == b"content"

    @pytest.mark.parametrize(
        "reference",
        [
            "{base}/../secret",
            "{base}/ab/../../secret",
            "{base}/ab/./cd",
            "{base}//etc/passwd",
            "{base}2/ab",
            "{base}",
            "{base}/",
            "{base}/ab/cd\n",
            "{base}/ab\\..\\cd",
            "{base}/%2e%2e/secret",
            "{base}/..%2fsecret",
            "{base}::file:///etc/passwd",
            "file:///etc/passwd",
            "/etc/passwd",
            "http://169.254.169.254/latest",
            "",
        ],
    )
    def test_a_reference_that_leads_out_is_not_followed(self, blobs, place, reference):
        (place.parent / "secret").write_text("the secret")
        blobs.put("ab/cd", b"content")
        with pytest.raises(ClaimCheckDamaged, match="is not followed"):
            blobs.get(reference.format(base=blobs.path))
        blobs.delete(reference.format(base=blobs.path))
        assert (place.parent / "secret").exists()
        assert Path("/etc/passwd").exists()

    def test_a_name_that_leads_out_is_not_written(self, blobs, place):
        with pytest.raises(ClaimCheckDamaged, match="is not followed"):
            blobs.put("../elsewhere", b"content")
        assert not (place.parent / "elsewhere").exists()

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("relative/path", "Write /absolute/directory"),
            ("", "Write /absolute/directory"),
            ("/", "Write /absolute/directory"),
            ("file://relative/path", "three slashes"),
            ("file:///tmp/../etc", "must not have any of"),
            ("s3://bucket/a?b", "must not have any of"),
        ],
    )
    def test_a_path_that_cannot_be_meant_is_refused(self, path, text):
        with pytest.raises(InvalidOption, match=text):
            ObjectStorageBlobs(path)

    def test_a_password_in_the_path_is_refused_and_not_repeated(self):
        with pytest.raises(InvalidOption, match="connection_id@") as refused:
            ObjectStorageBlobs("s3://user:hunter2@bucket/path")
        assert "hunter2" not in str(refused.value)

    def test_a_storage_that_no_installed_provider_knows_may_be_known_to_another_worker(self):
        with pytest.raises(StoreUnavailable, match="cannot keep 7 bytes at nowhere://bucket/ab/cd"):
            ObjectStorageBlobs("nowhere://bucket").put("ab/cd", b"content")
        with pytest.raises(StoreUnavailable, match="cannot read nowhere://bucket/ab/cd"):
            ObjectStorageBlobs("nowhere://bucket").get("nowhere://bucket/ab/cd")

    def test_what_cannot_be_removed_is_left_and_told(self, blobs, caplog):
        where = blobs.put("ab/cd/ef", b"content")
        blobs.delete(where.removesuffix("/ef"))
        assert "cannot remove" in caplog.text
        assert blobs.get(where) == b"content"
