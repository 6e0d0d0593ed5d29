"""Stores that break one promise each: a suite that lets them pass proves nothing."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from datetime import timedelta

from airflow_agentic.stores.memory import MemoryMessages
from airflow_agentic.stores.memory.kept import DEAD, DONE, LEASED

SECOND = timedelta(seconds=1)


class NoLeases(MemoryMessages):
    """Hands out what it has, time and again."""

    def claim(self, wanted):
        claims = super().claim(wanted)
        for claim in claims:
            self._kept[claim.delivery_id] = replace(self._kept[claim.delivery_id], visible_at=self._clock())
        return claims


class LeasesForEver(MemoryMessages):
    """What was handed out once never comes again."""

    def claim(self, wanted):
        return super().claim(replace(wanted, lease=1000 * wanted.lease))


class LongerLeases(MemoryMessages):
    """Gives a little more time than it says."""

    def extend(self, held, lease):
        return {number: end - SECOND for number, end in super().extend(held, lease + SECOND).items()}


class NoTokens(MemoryMessages):
    """Lets anybody settle what somebody holds."""

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        known = [
            replace(each, token=self._kept[each.delivery_id].token if each.delivery_id in self._kept else "")
            for each in settlements
        ]
        return super().settle(known, outgoing, changes, then)


class PeekingTokens(MemoryMessages):
    """Takes any token of its own."""

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        tokens = {kept.token for kept in self._kept.values() if kept.state is LEASED}
        known = [
            replace(each, token=self._kept[each.delivery_id].token) if each.token in tokens else each
            for each in settlements
        ]
        return super().settle(known, outgoing, changes, then)


class EndlessAttempts(MemoryMessages):
    """Counts attempts, and draws no conclusion."""

    def _add(self, message, now):
        addresses = tuple(replace(address, max_attempts=10**6) for address in message.addresses)
        return super()._add(replace(message, addresses=addresses), now)


class DearReleases(MemoryMessages):
    """Counts the attempt of what was given back unhandled."""

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        nacked = [
            replace(each, outcome="nack") if each.outcome == "release" else each for each in settlements
        ]
        return super().settle(nacked, outgoing, changes, then)


class ReleasesAtOnce(MemoryMessages):
    """Forgets for how long something was given back."""

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        hasty = [
            replace(each, delay=timedelta(0)) if each.outcome == "release" else each for each in settlements
        ]
        return super().settle(hasty, outgoing, changes, then)


class ReleasesForEver(MemoryMessages):
    """Does not give out again what was given back for later."""

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        slow = [
            replace(each, delay=1000 * each.delay) if each.outcome == "release" else each
            for each in settlements
        ]
        return super().settle(slow, outgoing, changes, then)


class OneByOne(MemoryMessages):
    """Settles one after the other, then sends, then changes state."""

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        for each in settlements:
            super().settle([each])
        self.append(outgoing)
        self.write(changes)
        return self.claim(then) if then else []


class SendsFirst(MemoryMessages):
    """Sends what was produced before it looks at the lease."""

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        self.append(outgoing)
        return super().settle(settlements, (), changes, then)


class NoLanes(MemoryMessages):
    """Ignores ordering keys."""

    def _admit(self, kept):
        super()._admit(kept)
        self._kept[kept.delivery_id] = replace(self._kept[kept.delivery_id], waiting=False)


class StuckLanes(MemoryMessages):
    """Lets nobody go whose turn it is."""

    def _keep(self, changed):
        self._kept |= {kept.delivery_id: kept for kept in changed}


class LanesBackwards(MemoryMessages):
    """Lets the youngest one of a lane go next."""

    def _keep(self, changed):
        changed = list(changed)
        self._kept |= {kept.delivery_id: kept for kept in changed}
        for lane in {kept.lane for kept in changed if kept.lane}:
            waiting = sorted(self._open_of(lane), key=lambda kept: -kept.delivery_id)
            if waiting and all(kept.waiting for kept in waiting):
                self._kept[waiting[0].delivery_id] = replace(waiting[0], waiting=False)


class RedrivenLanes(MemoryMessages):
    """Forgets that a redriven delivery belongs to a lane."""

    def _admit(self, kept):
        super()._admit(kept)
        if kept.redrives:
            self._kept[kept.delivery_id] = replace(self._kept[kept.delivery_id], waiting=False)


class NoPriorities(MemoryMessages):
    """Keeps priorities, and hands out in the order that things came."""

    def claim(self, wanted):
        priorities = {number: kept.sent for number, kept in self._kept.items()}
        for number, sent in priorities.items():
            self._kept[number] = replace(self._kept[number], sent=replace(sent, priority=4))
        claims = super().claim(wanted)
        for number, sent in priorities.items():
            self._kept[number] = replace(self._kept[number], sent=sent)
        return [replace(claim, priority=priorities[claim.delivery_id].priority) for claim in claims]


class NoDelays(MemoryMessages):
    """Delivers at once what was sent for later."""

    def _add(self, message, now):
        return super()._add(replace(message, delay=timedelta(0)), now)


class NoExpiry(MemoryMessages):
    """Hands out what is of no use any more."""

    def _add(self, message, now):
        return super()._add(replace(message, ttl=None), now)


class NoDedup(MemoryMessages):
    """Forgets at once what it was sent."""

    def _add(self, message, now):
        self._sent.pop((message.source, message.message_id), None)
        return super()._add(message, now)


class DedupById(MemoryMessages):
    """Knows messages by their id alone."""

    def _add(self, message, now):
        known = any(message_id == message.message_id for _, message_id in self._sent)
        return False if known else super()._add(message, now)


class FirstAddressOnly(MemoryMessages):
    """Sends to the first of several mailboxes."""

    def _add(self, message, now):
        return super()._add(replace(message, addresses=message.addresses[:1]), now)


class DeadAreAlive(MemoryMessages):
    """Delivers to addresses that lead nowhere."""

    def _add(self, message, now):
        addresses = tuple(replace(address, dead=None) for address in message.addresses)
        return super()._add(replace(message, addresses=addresses), now)


class NoLimits(MemoryMessages):
    """Takes what there is no room for."""

    def _add(self, message, now):
        return super()._add(message, now)

    @contextlib.contextmanager
    def _room_for(self, outgoing):
        yield


class HalfABatch(MemoryMessages):
    """Stores what comes before the message that there is no room for."""

    def append(self, outgoing):
        return [flag for message in outgoing for flag in super(HalfABatch, self).append([message])]


class RedriveForgets(MemoryMessages):
    """Loses the history of what is redriven."""

    def redrive(self, query, **values):
        numbers = super().redrive(query, **values)
        for number in numbers:
            self._kept[number] = replace(self._kept[number], history=self._kept[number].history[-1:])
        return numbers


class RedriveTakesAll(MemoryMessages):
    """Redrives what is done, too."""

    def redrive(self, query, **values):
        for number, kept in self._kept.items():
            if kept.state in (DONE, LEASED) and kept.matches(query):
                self._kept[number] = replace(kept, state=DEAD)
        return super().redrive(query, **values)


class RedriveAtOnce(MemoryMessages):
    """Floods whoever comes."""

    def redrive(self, query, **values):
        return super().redrive(query, **{**values, "spacing": timedelta(0)})


class PurgeTakesTheDead(MemoryMessages):
    """Forgets dead letters."""

    def purge(self, older_than, limit):
        for number, kept in self._kept.items():
            if kept.state is DEAD:
                self._kept[number] = replace(kept, state=DONE)
        return super().purge(older_than, limit)


class PurgeTakesTheYoung(MemoryMessages):
    """Forgets what it was asked to keep a while."""

    def purge(self, older_than, limit):
        return super().purge(timedelta(microseconds=-1), limit)


class SubscribersPileUp(MemoryMessages):
    """Keeps the subscription that was replaced."""

    def subscribe(self, subscription):
        self._subscribed[(*subscription.__dict__.values(),)] = subscription

    def subscriptions(self):
        return sorted(
            self._subscribed.values(), key=lambda each: (each.mailbox, each.topic or "", each.filter or "")
        )


class EveryHeartbeat(MemoryMessages):
    """Keeps all heartbeats."""

    def beat(self, source, envelope, alive_for):
        super().beat(f"{source}#{len(self._beats)}", envelope, alive_for)


class LateReports(MemoryMessages):
    """Takes a report of the heartbeat before for one of this one."""

    def mark_reported(self, source, due_at):
        beat = self._beats.get(source)
        super().mark_reported(source, beat.due_at if beat else due_at)


class LastWriterWins(MemoryMessages):
    """Overwrites what somebody else changed."""

    def _check_versions(self, changes):
        pass


class Racing(MemoryMessages):
    """Looks and takes in two steps."""

    def claim(self, wanted):
        seen = self._changed
        self._changed = contextlib.nullcontext()
        now = self._clock()
        found = [kept for kept in list(self._kept.values()) if kept.is_claimable(wanted.mailbox, now)]
        self._changed = seen
        time.sleep(0.002)
        taken = [kept.taken(wanted, now) for kept in found[: wanted.limit]]
        with self._changed:
            self._keep(taken)
        return [kept.claim() for kept in taken if kept.state is LEASED]


class Sleeper(MemoryMessages):
    """Is not to be woken."""

    def wait(self, mailbox, timeout):
        time.sleep(min(timeout.total_seconds(), 4.5))


class NoWorry(MemoryMessages):
    """Hides the reasons of what went wrong."""

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        return super().settle(
            [replace(each, reason="failed") for each in settlements], outgoing, changes, then
        )
