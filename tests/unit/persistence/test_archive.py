"""Runs as files: what comes out goes in, and nothing that was damaged does."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_agentic.errors import ConfigurationError, JournalCorrupt, NotRecordable, RunError, RunNotFound
from airflow_agentic.persistence import Run, RunHead
from airflow_agentic.persistence.archive import Archive, read_archive, write_archive
from airflow_agentic.persistence.ports import Append
from airflow_agentic.stores import Store, open_store

SECRET = "correct horse battery staple"


class Folder:
    """Large data in a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, content: bytes) -> str:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return str(target)

    def get(self, where: str) -> bytes:
        return Path(where).read_bytes()

    def delete(self, where: str) -> None:
        Path(where).unlink()


def at(path: Path, blobs: bool = False) -> Store:
    path.mkdir(exist_ok=True)
    return open_store(
        f"sqlite:///{path}/agentic.db", owner="worker-1:42", blobs=Folder(path / "blobs") if blobs else None
    )


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Store]:
    with at(tmp_path / "here") as store:
        yield store


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Store]:
    with at(tmp_path / "there") as store:
        yield store


def refuse() -> None:
    raise ValueError(f"password {SECRET}")


def work(run: Run) -> None:
    run.expect(3)
    run.step("read", lambda: {"text": SECRET})
    run.emit({"seen": SECRET, "count": 1})
    run.checkpoint("seen")
    run.emit({"count": 2})
    run.step("decide", refuse)


def worked(store: Store, key: str = "ticket-7", persistence: str = "hybrid") -> None:
    """A run with all that can be in one, and that failed."""
    with (
        pytest.raises(ValueError, match="password"),
        store.run("triage", key=key, persistence=persistence) as run,
    ):
        work(run)


def packed(archive: Archive) -> bytes:
    file = io.BytesIO()
    write_archive(archive, file)
    return file.getvalue()


def taken_out(store: Store, key: str = "ticket-7", *, include_data: bool = True) -> Archive:
    return store.runs.transfer.taken_out(key, include_data=include_data)


def carried(store: Store, key: str = "ticket-7") -> Archive:
    """As it comes out of a file."""
    return read_archive(io.BytesIO(packed(taken_out(store, key))))


def put_in(store: Store, archive: Archive, to: str | None = None) -> RunHead:
    return store.runs.transfer.put_in(archive, to=to, actor="ana", reason="a bug report")


def changed(content: bytes, edit: Callable[[dict[str, bytes]], None]) -> bytes:
    """Return a zip with other parts."""
    with zipfile.ZipFile(io.BytesIO(content)) as made:
        parts = {name: made.read(name) for name in made.namelist()}
    edit(parts)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, part in parts.items():
            made.writestr(name, part)
    return file.getvalue()


def test_under_its_own_key_a_run_has_the_same_chain_elsewhere(here: Store, there: Store) -> None:
    worked(here)

    head = put_in(there, carried(here))

    assert (head.version, head.digest) == (
        here.runs.find("ticket-7").version,
        here.runs.find("ticket-7").digest,
    )
    assert there.verify("ticket-7") == []
    assert there.history("ticket-7") == here.history("ticket-7")
    assert there.at("ticket-7", "seen").state == {"seen": SECRET, "count": 1}
    assert there.at("ticket-7", head.version).state == {"seen": SECRET, "count": 2}


@pytest.mark.parametrize("persistence", ["hybrid", "events", "snapshot", "checkpoint"])
def test_an_imported_run_goes_on_after_its_last_finished_step(
    here: Store, there: Store, persistence: str
) -> None:
    worked(here, persistence=persistence)
    put_in(there, carried(here))
    done: list[str] = []

    with there.run("triage", key="ticket-7", persistence=persistence) as run:
        assert run.step("read", lambda: done.append("read"), on_change="keep") == {"text": SECRET}
        run.emit({"seen": SECRET, "count": 1})
        run.checkpoint("seen")
        run.emit({"count": 2})
        run.step("decide", lambda: done.append("decide"))
        state = run.state

    assert done == ["decide"]
    assert state == {"seen": SECRET, "count": 2}
    assert there.verify("ticket-7") == []


def test_under_another_key_it_is_sealed_anew_and_says_where_it_comes_from(here: Store) -> None:
    worked(here)
    original = here.runs.find("ticket-7")

    head = put_in(here, carried(here), to="ticket-7-again")

    assert here.verify("ticket-7-again") == []
    assert here.runs.find("ticket-7") == original
    last = here.history("ticket-7-again")[-1]
    assert last.type == "run.intervened"
    assert last.data == {
        "what": "imported",
        "from": "ticket-7",
        "version": original.version,
        "digest": original.digest.hex(),
        "actor": "ana",
        "reason": "a bug report",
    }
    assert head.version == original.version + 1
    assert here.at("ticket-7-again", "seen").state == {"seen": SECRET, "count": 1}


def test_nobody_works_on_an_imported_run(here: Store, there: Store) -> None:
    with here.run("triage", key="k") as run:
        run.step("read", lambda: 1)
        archive = taken_out(here, "k")

    head = put_in(there, archive)

    assert (here.runs.find("k").status, archive.head.status) == ("finished", "running")
    assert (head.status, head.lease_until_ms) == ("failed", 0)


def test_the_same_run_makes_the_same_bytes(here: Store, there: Store) -> None:
    worked(here)

    first, second = packed(taken_out(here)), packed(taken_out(here))
    put_in(there, read_archive(io.BytesIO(first)))

    assert first == second
    assert packed(taken_out(there)) == first


def test_without_data_nothing_of_what_the_work_was_about_is_in_the_file(here: Store) -> None:
    worked(here, persistence="snapshot")
    here.runs.by_hand.set_state("ticket-7", patch={"x": SECRET}, actor="ana", reason="try")

    bare = taken_out(here, include_data=False)
    content = packed(bare)

    assert SECRET in packed(taken_out(here)).decode(errors="replace")
    assert SECRET not in content.decode(errors="replace")
    with zipfile.ZipFile(io.BytesIO(content)) as made:
        manifest = json.loads(made.read("manifest.json"))
    assert manifest["data"] == "left out"
    assert manifest["left_out"]["step.done"]["records"] == 1
    assert manifest["left_out"]["snapshot"]["bytes"] > 0
    assert manifest["run"]["error"] == "ValueError: (left out)"
    done = next(each for each in bare.records if each.type == "step.done")
    assert set(json.loads(done.data)) == {"code", "args", "seconds", "left_out"}


def test_without_data_the_chain_can_still_be_checked(here: Store) -> None:
    worked(here, persistence="snapshot")
    bare = read_archive(io.BytesIO(packed(taken_out(here, include_data=False))))

    assert list(bare.damages()) == []
    assert bare.head.digest == here.runs.find("ticket-7").digest
    digests = [bytes(32), *bare.data_digests[1:]]
    assert [each.version for each in replace(bare, data_digests=digests).damages()] == [1]
    states = [bytes(32), *bare.state_digests[1:]]
    assert "snapshot" in next(replace(bare, state_digests=states).damages()).what


def test_without_data_it_cannot_be_imported(here: Store, there: Store) -> None:
    worked(here)

    with pytest.raises(RunError, match="made without data, so it cannot be resumed"):
        put_in(there, taken_out(here, include_data=False))

    assert there.runs.find_all() == []


def test_no_byte_of_a_file_can_change_unnoticed(here: Store) -> None:
    worked(here)
    content = packed(taken_out(here))
    original = read_archive(io.BytesIO(content))
    refused: list[str] = []

    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x20
        try:
            found = read_archive(io.BytesIO(damaged))
        except RunError as error:
            refused.append(str(error))
        else:
            # A time or a flag of the zip itself: what is in it is as it was.
            assert found == original

    assert len(refused) > len(content) * 0.9
    assert all("the archive" in text for text in refused)


def test_no_line_can_be_taken_out_added_or_moved(here: Store) -> None:
    worked(here)
    content = packed(taken_out(here))

    def without_the_last(parts: dict[str, bytes]) -> None:
        parts["events.jsonl"] = b"".join(parts["events.jsonl"].splitlines(keepends=True)[:-1])

    def swapped(parts: dict[str, bytes]) -> None:
        first, second, *rest = parts["events.jsonl"].splitlines(keepends=True)
        parts["events.jsonl"] = b"".join([second, first, *rest])

    def without_snapshots(parts: dict[str, bytes]) -> None:
        del parts["snapshots.jsonl"]

    def with_another_part(parts: dict[str, bytes]) -> None:
        parts["../../etc/passwd"] = b"root"

    for edit, named in (
        (without_the_last, "events.jsonl"),
        (swapped, "events.jsonl"),
        (without_snapshots, "snapshots.jsonl"),
        (with_another_part, "etc/passwd"),
    ):
        with pytest.raises(JournalCorrupt, match=f"archive of run 'ticket-7' is damaged: .*{named}"):
            read_archive(io.BytesIO(changed(content, edit)))


def test_whoever_makes_the_digests_of_a_file_anew_is_found_out_by_the_chain(
    here: Store, there: Store
) -> None:
    worked(here)
    archive = taken_out(here)
    forged = [
        replace(each, data=each.data.replace(b'"count":1', b'"count":9')) if each.type == "event" else each
        for each in archive.records
    ]

    found = read_archive(io.BytesIO(packed(replace(archive, records=forged))))

    [event] = [each for each in forged if b'"count":9' in each.data]
    assert [each.version for each in found.damages()] == [event.version]
    with pytest.raises(JournalCorrupt, match="was damaged when its archive was made"):
        put_in(there, found)
    assert there.runs.find_all() == []


def test_a_damaged_run_can_be_exported_and_not_imported(here: Store, there: Store) -> None:
    worked(here)
    archive = taken_out(here)
    kept = here.run_stores
    kept.runs.forget("ticket-7")
    broken = [each for each in archive.records if each.version != 3]
    assert kept.journals.append(Append(replace(archive.head, owner="x"), 0, broken))

    found = carried(here)

    assert here.verify("ticket-7")
    assert [each.version for each in found.damages()] == [3]
    with pytest.raises(JournalCorrupt, match="version 3"):
        put_in(there, found)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(JournalCorrupt, match="the archive is damaged: it cannot be read"):
        read_archive(io.BytesIO(content))


def test_an_archive_of_a_newer_version_is_refused_as_such(here: Store) -> None:
    worked(here)

    def newer(parts: dict[str, bytes]) -> None:
        manifest = json.loads(parts["manifest.json"])
        parts["manifest.json"] = json.dumps({**manifest, "format": 2}).encode()

    with pytest.raises(RunError, match="has format 2"):
        read_archive(io.BytesIO(changed(packed(taken_out(here)), newer)))


@pytest.mark.parametrize(
    ("name", "value"), [("stream", ""), ("status", "lost"), ("version", "six"), ("task", None), ("stream", 7)]
)
def test_a_head_that_cannot_be_one_is_refused_whoever_sealed_it(here: Store, name: str, value: Any) -> None:
    worked(here)
    archive = taken_out(here)
    head = replace(archive.head, **{name: value})

    with pytest.raises(JournalCorrupt, match="the archive is damaged"):
        read_archive(io.BytesIO(packed(replace(archive, head=head))))


def test_a_key_that_is_taken_stays_as_it_is(here: Store) -> None:
    worked(here)
    before = here.history("ticket-7")

    with pytest.raises(ConfigurationError, match="there is a run 'ticket-7' in this store already"):
        put_in(here, carried(here))

    assert here.history("ticket-7") == before


def test_a_run_of_many_records_goes_in_whole(here: Store, there: Store) -> None:
    with here.run("triage", key="long") as run:
        for number in range(650):
            run.emit({"n": number, str(number % 50): "x" * 200})
            if number == 300:
                run.checkpoint("there")

    put_in(there, carried(here, "long"))

    assert there.verify("long") == []
    assert there.at("long", "there").state["n"] == 300
    assert there.history("long") == here.history("long")


@pytest.mark.parametrize("to", [None, "again"])
@pytest.mark.parametrize("persistence", ["snapshot", "checkpoint"])
def test_a_run_whose_first_records_are_forgotten_can_be_moved(
    here: Store, there: Store, persistence: str, to: str | None
) -> None:
    with here.run("triage", key="k", persistence=persistence) as run:
        for number in range(5):
            run.emit({"n": number})
    assert here.runs.prune("k")
    with here.run("triage", key="k", persistence=persistence) as run:
        run.emit({"n": 7})

    head = put_in(there, carried(here, "k"), to=to)

    assert there.verify(head.stream) == []
    assert there.at(head.stream, head.version).state == {"n": 7}


def test_large_data_goes_along(tmp_path: Path) -> None:
    large = "x" * 300_000
    with at(tmp_path / "here", blobs=True) as here, at(tmp_path / "there", blobs=True) as there:
        with here.run("triage", key="k") as run:
            run.step("read", lambda: large)
        archive = carried(here, "k")
        (tmp_path / "here" / "blobs").rename(tmp_path / "gone")

        put_in(there, archive)

        assert len(archive.blobs) == 1
        assert there.verify("k") == []
        # The digest of a place is not that of another one: it was sealed anew.
        assert there.history("k")[-1].data["what"] == "imported"
        with there.run("triage", key="k") as run:
            assert run.step("read", lambda: "", on_change="keep") == large


def test_large_data_lies_in_the_record_where_there_is_no_place_for_it(tmp_path: Path, there: Store) -> None:
    with at(tmp_path / "other", blobs=True) as here:
        with here.run("triage", key="k") as run:
            run.step("read", lambda: "x" * 300_000)

        put_in(there, carried(here, "k"))

    with there.run("triage", key="k") as run:
        assert len(run.step("read", lambda: "", on_change="keep")) == 300_000


def test_large_data_that_cannot_be_read_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    with at(tmp_path / "here", blobs=True) as here:
        with here.run("triage", key="k") as run:
            run.step("read", lambda: "x" * 300_000)
        (tmp_path / "here" / "blobs").rename(tmp_path / "gone")

        with pytest.raises((NotRecordable, OSError)):
            taken_out(here, "k")
        assert list(taken_out(here, "k", include_data=False).damages()) == []


def test_a_run_that_is_not_there_cannot_be_exported(here: Store) -> None:
    with pytest.raises(RunNotFound):
        taken_out(here, "k")
