"""Durable runs that break one promise each: a suite that lets them pass proves nothing."""

from __future__ import annotations

import fnmatch
import time
from dataclasses import replace
from datetime import timedelta

from airflow_agentic.errors import MailboxFull
from airflow_agentic.persistence.ports import Hold
from airflow_agentic.stores.memory import MemoryJournals


class LastWriterWins(MemoryJournals):
    """Adds whatever it is given, behind whatever there is."""

    def append(self, write):
        [*found] = self._streams.values()
        known = {each.head.stream: each.head.version for each in found}
        return super().append(replace(write, expected=known.get(write.head.stream, 0)))


class NoFence(MemoryJournals):
    """Lets anybody write who knows where the journal ends."""

    def append(self, write):
        if (found := self._streams.get(write.head.stream)) is not None:
            found.head = replace(found.head, owner=write.head.owner)
        return super().append(write)


class HeadFirst(MemoryJournals):
    """Changes the head before it knows whether the messages find room."""

    def append(self, write):
        try:
            return super().append(write)
        except MailboxFull:
            super().append(replace(write, outgoing=()))
            raise


class SendsFirst(MemoryJournals):
    """Sends the messages of an append that is refused."""

    def append(self, write):
        if write.outgoing:
            self._send(write.outgoing)
        return super().append(replace(write, outgoing=()))


class ForgetsToSend(MemoryJournals):
    """Adds the records, and lets the messages lie."""

    def append(self, write):
        return super().append(replace(write, outgoing=()))


class FromTheStart(MemoryJournals):
    """Reads from the first record on, whatever was read before."""

    def read(self, stream, after=0, limit=1000):
        return [each for each in super().read(stream, 0, limit) if each.version > after]


class OnePage(MemoryJournals):
    """Knows no more than a page of names."""

    def index(self, stream):
        return super().index(stream)[:500]


class AllNames(MemoryJournals):
    """Lists what has no name, too."""

    def index(self, stream):
        with_names = {each.version: each for each in super().index(stream)}
        return [with_names.get(each.version, each) for each in super().read(stream, 0, 10_000)]


class AsText(MemoryJournals):
    """Keeps data as text."""

    def append(self, write):
        records = [replace(each, data=each.data.decode(errors="replace").encode()) for each in write.records]
        return super().append(replace(write, records=records))


class NoNul(MemoryJournals):
    """Keeps no NUL, and says nothing."""

    def append(self, write):
        records = [replace(each, data=each.data.replace(b"\0", b"")) for each in write.records]
        return super().append(replace(write, records=records))


class ShortNames(MemoryJournals):
    """Cuts names."""

    def append(self, write):
        return super().append(
            replace(write, records=[replace(each, name=each.name[:255]) for each in write.records])
        )


class AnyCase(MemoryJournals):
    """Takes streams for each other that differ by case."""

    def append(self, write):
        known = {name.casefold(): name for name in self._streams}
        name = known.get(write.head.stream.casefold(), write.head.stream)
        return super().append(replace(write, head=replace(write.head, stream=name)))


class OneSnapshot(MemoryJournals):
    """Keeps the newest snapshot, and none beside it."""

    def append(self, write):
        done = super().append(write)
        if done and write.snapshot is not None:
            found = self._streams[write.head.stream]
            found.snapshots = {write.snapshot.version: write.snapshot}
        return done


class AllSnapshots(MemoryJournals):
    """Keeps every snapshot."""

    def append(self, write):
        if write.snapshot is None:
            return super().append(write)
        before = dict(self._streams[write.head.stream].snapshots) if write.expected else {}
        done = super().append(write)
        if done:
            found = self._streams[write.head.stream]
            found.snapshots = {**before, **found.snapshots}
        return done


class NewestOnly(MemoryJournals):
    """Knows the newest snapshot, whichever is asked for."""

    def latest_snapshot(self, stream, at=None):
        return super().latest_snapshot(stream)


class PrunesToo(MemoryJournals):
    """Forgets records that no snapshot stands for."""

    def prune(self, stream, through):
        if (found := self._streams.get(stream)) is None:
            return 0
        before = len(found.records)
        found.records = [each for each in found.records if each.version > through]
        return before - len(found.records)


class LosesTheBase(MemoryJournals):
    """Lets the snapshot go that the records behind it are sealed to."""

    def prune(self, stream, through):
        found = self._streams.get(stream)
        kept = found.snapshots.get(through) if found else None
        count = super().prune(stream, through)
        if kept is not None:
            found.snapshots[through] = kept
        return count


class HeadStays(MemoryJournals):
    """Lets a mark change nothing that is listed."""

    def mark(self, stream, status, error, category):
        return stream in self._streams


class HalfForgotten(MemoryJournals):
    """Forgets the head, and keeps the records for the next run of that name."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._left = {}

    def forget(self, stream):
        if (found := self._streams.get(stream)) is not None:
            self._left[stream] = found.snapshots
        return super().forget(stream)

    def append(self, write):
        done = super().append(write)
        if done and not write.expected:
            self._streams[write.head.stream].snapshots |= self._left.pop(write.head.stream, {})
        return done


class NoLeases(MemoryJournals):
    """Gives a run to whoever wants it."""

    def hold(self, stream, owner, lease, instead_of=None):
        found = self._streams.get(stream)
        return super().hold(stream, owner, lease, found.head.owner if found else None)


class LeasesForEver(MemoryJournals):
    """Waits for an owner that does not come back."""

    def hold(self, stream, owner, lease, instead_of=None):
        return super().hold(stream, owner, 1000 * lease, instead_of)


class AnybodyGivesBack(MemoryJournals):
    """Lets anybody give back what somebody has."""

    def hold(self, stream, owner, lease, instead_of=None):
        found = self._streams.get(stream)
        if found is not None and lease <= timedelta(0):
            found.head = replace(found.head, lease_until_ms=0)
        return super().hold(stream, owner, lease, instead_of)


class NeverGone(MemoryJournals):
    """Does not take over from one who is gone."""

    def hold(self, stream, owner, lease, instead_of=None):
        return super().hold(stream, owner, lease)


class SecretOwner(MemoryJournals):
    """Does not say who has it."""

    def hold(self, stream, owner, lease, instead_of=None):
        hold = super().hold(stream, owner, lease, instead_of)
        return hold if hold.taken else Hold(hold.now_ms, None, taken=False)


class Patterns(MemoryJournals):
    """Takes how names begin for a pattern."""

    def heads(self, query):
        found = super().heads(replace(query, prefix="", limit=10_000))
        matching = [each for each in found if fnmatch.fnmatchcase(each.stream, f"{query.prefix}*")]
        return matching[: query.limit]


class LimitFirst(MemoryJournals):
    """Looks at so many runs as are wanted, and then at what is wanted."""

    def heads(self, query):
        newest = {each.stream for each in super().heads(replace(query, statuses=(), agent=None))}
        return [each for each in super().heads(query) if each.stream in newest]


class OldestFirst(MemoryJournals):
    """Lists what was written first."""

    def heads(self, query):
        found = super().heads(replace(query, limit=10_000))
        return sorted(found, key=lambda head: (head.updated_at_ms, head.stream))[: query.limit]


class SamePage(MemoryJournals):
    """Begins anew with each page."""

    def heads(self, query):
        return super().heads(replace(query, after=None))


class PagesByTime(MemoryJournals):
    """Goes on behind the moment at which a page ended, whoever else was written then."""

    def heads(self, query):
        after = query.after and (query.after[0], "\U0010ffff")
        return super().heads(replace(query, after=after))


class PagesByRun(MemoryJournals):
    """Goes on behind the run that a page ended with, wherever it is now."""

    def heads(self, query):
        found = super().heads(replace(query, after=None, limit=10_000))
        names = [each.stream for each in found]
        first = names.index(query.after[1]) + 1 if query.after and query.after[1] in names else 0
        return found[first:][: query.limit]


class PagesByLocale(MemoryJournals):
    """Goes on behind a name as people sort names."""

    def heads(self, query):
        found = super().heads(replace(query, after=None, limit=10_000))
        if query.after is not None:
            at, name = query.after
            found = [
                each
                for each in found
                if (-each.updated_at_ms, each.stream.casefold()) > (-at, name.casefold())
            ]
        return found[: query.limit]


class Sticky(MemoryJournals):
    """Leaves runs where they were listed first."""

    def append(self, write):
        found = self._streams.get(write.head.stream)
        at = found.head.updated_at_ms if found else write.head.updated_at_ms
        return super().append(replace(write, head=replace(write.head, updated_at_ms=at)))


class Racing(MemoryJournals):
    """Looks, thinks, and then writes."""

    def append(self, write):
        found = self._streams.get(write.head.stream)
        if (found.head.version if found else 0) != write.expected:
            return False
        time.sleep(0.002)
        if found is not None:
            write = replace(write, expected=self._streams[write.head.stream].head.version)
        super().append(write)
        return True


class RacingHolds(MemoryJournals):
    """Looks whether a run is free, thinks, and takes it."""

    def hold(self, stream, owner, lease, instead_of=None):
        found = self._streams.get(stream)
        now = self._clock().timestamp() * 1000
        if found is None or lease <= timedelta(0) or found.head.lease_until_ms > now:
            return super().hold(stream, owner, lease, instead_of)
        time.sleep(0.002)
        return super().hold(stream, owner, lease, found.head.owner)


class HeadLate(MemoryJournals):
    """Shows records before the head that says where they end."""

    def append(self, write):
        found = self._streams.get(write.head.stream)
        if found is None:
            return super().append(write)
        for record in write.records[:-1]:
            found.records.append(record)
            time.sleep(0.0005)
        return super().append(replace(write, records=write.records[-1:]))
