"""Documents of guards that break one promise each: a suite that lets them pass proves nothing."""

from __future__ import annotations

import contextlib
import fnmatch
import time
from dataclasses import replace
from datetime import timedelta

from airflow_agentic.resilience.ports import GuardKey, GuardReading
from airflow_agentic.resilience.shared import LocalGuards
from airflow_agentic.stores.memory import MemoryGuards


class LastWriterWins(MemoryGuards):
    """Overwrites what somebody else changed."""

    def change(self, changes):
        found = self.read([each.key for each in changes]).entries
        time.sleep(0.0001)
        known = [
            replace(each, expected=found[each.key].version if each.key in found else 0) for each in changes
        ]
        return super().change(known) or self._clock()


class FromZero(MemoryGuards):
    """Forgets that there was a version when it was made."""

    def read(self, keys):
        found = super().read(keys)
        entries = {key: replace(each, version=each.version - 1) for key, each in found.entries.items()}
        return GuardReading(found.now, entries)


class OneByOne(MemoryGuards):
    """Changes what it can until it meets what it cannot."""

    def change(self, changes):
        for each in changes:
            if super().change([each]) is None:
                return None
        return self._clock()


class MakesWhatIsMissing(MemoryGuards):
    """Makes what somebody else forgot."""

    def change(self, changes):
        found = self.read([each.key for each in changes]).entries
        return super().change([each if each.key in found else replace(each, expected=0) for each in changes])


class OneKind(MemoryGuards):
    """Takes a name for that of any kind."""

    def read(self, keys):
        found = super().read([GuardKey("breaker", key.name) for key in keys])
        entries = {
            key: found.entries[GuardKey("breaker", key.name)]
            for key in keys
            if GuardKey("breaker", key.name) in found.entries
        }
        return GuardReading(found.now, entries)


class _Renaming(MemoryGuards):
    def change(self, changes):
        return super().change(
            [replace(each, key=replace(each.key, name=self._named(each.key.name))) for each in changes]
        )


class Cut(_Renaming):
    """Has no room for more than Latin letters."""

    def _named(self, name):
        return name.encode("latin-1", "replace").decode("latin-1")


class Trimmed(_Renaming):
    """Tidies names up."""

    def _named(self, name):
        return name.strip().lower()


class Patterns(MemoryGuards):
    """Takes the beginning of a name for a pattern."""

    def entries(self, kind, prefix="", limit=1000):
        every = super().entries(kind, "", 1_000_000)
        return [each for each in every if fnmatch.fnmatchcase(each[0], f"{prefix}*")][:limit]


class SortedAsText(MemoryGuards):
    """Sorts as people do."""

    def entries(self, kind, prefix="", limit=1000):
        return sorted(super().entries(kind, prefix, limit), key=lambda each: each[0].casefold())


class LimitFirst(MemoryGuards):
    """Counts those that are not kept any more."""

    def entries(self, kind, prefix="", limit=1000):
        names = sorted(key.name for key in self._entries if key.kind == kind and key.name.startswith(prefix))
        kept = dict(super().entries(kind, prefix))
        return [(name, kept[name]) for name in names[:limit] if name in kept]


class KeepsForEver(MemoryGuards):
    """Forgets nothing."""

    def _kept(self, key, now):
        return self._entries.get(key)


class TakesAnything(LocalGuards):
    """Has no limits."""


class LateTimes(MemoryGuards):
    """Tells the time of somebody else."""

    def read(self, keys):
        found = super().read(keys)
        return GuardReading(found.now - timedelta(seconds=11), found.entries)


class Racing(MemoryGuards):
    """Looks and changes in two steps."""

    def change(self, changes):
        found = self.read([each.key for each in changes]).entries
        if any((found[each.key].version if each.key in found else 0) != each.expected for each in changes):
            return None
        time.sleep(0.002)
        super().change(changes)
        return self._clock()


class ReadsOneByOne(MemoryGuards):
    """Reads several documents at several times."""

    def read(self, keys):
        entries = {}
        for key in keys:
            entries |= super().read([key]).entries
            time.sleep(0.0002)
        with contextlib.suppress(IndexError):
            return GuardReading(super().read(keys[:1]).now, entries)
