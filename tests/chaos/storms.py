"""Which storms there are, and how one is run: workers in processes of their own, and what happens to their server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clocks
import postgres
import servers
import workers
from books import Books, account
from workers import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import proxy

HERE = Path(__file__).parent
IS_LONG = os.environ.get("CHAOS") == "long"
SECONDS = 150.0 if IS_LONG else 6.0
TIMES = 20 if IS_LONG else 1
"""How much more happens in the long form."""

_PATIENCE = 300 if IS_LONG else 60


@dataclasses.dataclass(frozen=True)
class Storm:
    """What happens, and where.

    Attributes:
        store: Kind of the store.
        kills: SIGKILLs of producers and consumers.
        stops: SIGSTOPs of consumers past their lease.
        disturb: What happens to the server meanwhile; see the functions below.
        mutant: Which promise is broken, if any.
        skews: Clocks of further consumers, as ``faketime`` takes them.
        lease: Seconds.
        pace: 1 for work that takes a little time, 0 for none.
    """

    store: str
    kills: int = 0
    stops: int = 0
    disturb: str = ""
    mutant: str = ""
    skews: tuple[str, ...] = ()
    lease: float = 2
    pace: float = 1


STORMS = {
    **{f"{kind}: kills": Storm(kind, kills=20 * TIMES) for kind in ("sqlite", "postgresql", "redis")},
    **{f"{kind}: stops": Storm(kind, stops=4 * TIMES, lease=1) for kind in ("sqlite", "postgresql", "redis")},
    **{f"{kind}: cut off": Storm(kind, disturb="cut off") for kind in ("postgresql", "redis")},
    **{f"{kind}: power": Storm(kind, disturb="power") for kind in ("postgresql", "redis")},
    **{f"{kind}: network": Storm(kind, disturb="network") for kind in ("postgresql", "redis")},
    **{f"{kind}: clocks": Storm(kind, skews=("+10m", "-10m")) for kind in ("postgresql", "redis")},
    "postgresql: held": Storm("postgresql", disturb="held", pace=0 if IS_LONG else 1),
    "postgresql: free": Storm("postgresql", pace=0 if IS_LONG else 1),
}
"""No message is lost, made up or done twice in any of these."""

MUTANTS = {
    "sqlite: acks early": Storm("sqlite", kills=12, mutant="acks early"),
    "sqlite: no leases": Storm("sqlite", kills=12, mutant="no leases"),
    "sqlite: no tokens": Storm("sqlite", stops=6, lease=0.6, mutant="no tokens"),
    "sqlite: no lanes": Storm("sqlite", mutant="no lanes"),
    "sqlite: no inbox": Storm("sqlite", mutant="no inbox"),
    "postgresql: commits late": Storm("postgresql", disturb="power", mutant="commits late"),
    "redis: keeps nothing": Storm("redis", disturb="power", mutant="keeps nothing"),
}
"""And these break one promise each: the books must show it."""


def run(name: str, storm: Storm, folder: Path) -> Books:
    """Run a storm to its end, handle what it left, and read the books."""
    own, forgetful = storm.disturb in ("power", "network"), storm.mutant in ("keeps nothing", "commits late")
    with servers.of_kind(storm.store, folder, own=own, forgetful=forgetful) as server:
        direct = server.url
        with _DISTURB[storm.disturb](server) as disturb:
            place = _place(storm, folder, server.url)
            _rage(place, storm.skews, disturb)
        ended = time.monotonic()
        # What changes a whole process is for the workers': this one goes on with other tests.
        told = "" if storm.mutant in ("commits late", "keeps nothing") else storm.mutant
        quiet = dataclasses.replace(place, url=direct, mutant=told)
        workers.Consumer(quiet).drain(_PATIENCE)
        with dataclasses.replace(quiet, mutant="").open() as store:
            # The end of the storm is one more SIGKILL for each of them.
            kills = storm.kills + place.producers + 3
            return account(name, folder, store.bus, kills, server.integrity(), ended)


def _place(storm: Storm, folder: Path, url: str) -> Place:
    return Place(
        str(folder),
        url,
        storm.mutant,
        lease=storm.lease,
        kills=storm.kills or storm.stops,
        seconds=min(SECONDS, 6.0) if storm.mutant else SECONDS,
        stops=bool(storm.stops),
        pace=storm.pace,
        consumers=3 - len(storm.skews),
    )


def _rage(place: Place, skews: tuple[str, ...], disturb: Callable[[], None]) -> None:
    with contextlib.ExitStack() as stack:
        crowds = [stack.enter_context(_crowd(place))]
        for skew in skews:
            further = dataclasses.replace(place, producers=0, consumers=1)
            crowds.append(stack.enter_context(_crowd(further, skew)))
        _meanwhile(disturb, crowds, place.seconds)
        for crowd in crowds:
            _finish(crowd)


def _meanwhile(disturb: Callable[[], None], crowds: list[Any], seconds: float) -> None:
    """Disturb now and then, but not while the workers begin or when their time is over."""
    deadline = time.monotonic() + seconds - 0.5
    time.sleep(1)
    while time.monotonic() < deadline and all(crowd.poll() is None for crowd in crowds):
        disturb()


@contextlib.contextmanager
def _crowd(place: Place, skew: str = "") -> Iterator[subprocess.Popen[str]]:
    path = place.path / f"place{skew}.json"
    path.write_text(json.dumps(dataclasses.asdict(place)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent)))}
    command = [sys.executable, "-W", "error", str(HERE / "workers.py"), str(path)]
    process = subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A group of its own: it ends with all that it started.
        start_new_session=True,
        env={**environment, **clocks.off_by(skew)} if skew else environment,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _finish(crowd: subprocess.Popen[str]) -> None:
    out, err = crowd.communicate(timeout=SECONDS + _PATIENCE)
    assert crowd.returncode == 0, err
    assert (out, err) == ("", "")


# -- what happens to a server ----------------------------------------------------------------------------


@contextlib.contextmanager
def _peace(_server: servers.Server) -> Iterator[Callable[[], None]]:
    yield lambda: time.sleep(0.1)


@contextlib.contextmanager
def _cut_off(server: servers.Server) -> Iterator[Callable[[], None]]:
    """End one connection after the other."""

    def cut() -> None:
        server.cut_one()
        time.sleep(random.uniform(0.02, 0.15))

    yield cut


@contextlib.contextmanager
def _power(server: servers.Server) -> Iterator[Callable[[], None]]:
    """Take the server's power away now and then."""

    def restart() -> None:
        time.sleep(random.uniform(1, 2))
        server.restart()

    yield restart


@contextlib.contextmanager
def _held(server: servers.Server) -> Iterator[Callable[[], None]]:
    """A transaction that is forgotten keeps every old row from being cleaned away."""
    import psycopg

    with psycopg.connect(postgres.server()) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        yield lambda: time.sleep(0.1)
        assert connection.execute("SELECT 1").fetchall() == [(1,)], "it was not held to the end"


@contextlib.contextmanager
def _network(server: servers.Server) -> Iterator[Callable[[], None]]:
    """Whatever can go wrong on the way to a server."""
    with server.behind() as between:
        yield lambda: _weather(between)
        between.heal()


def _weather(between: proxy.Proxy) -> None:
    what = random.choice(("answer", "answer", "request", "reset", "delay", "hole"))
    if what == "answer":
        between.cut_answer().wait(1)
    elif what == "request":
        between.cut_request().wait(1)
    elif what == "reset":
        between.reset()
    elif what == "delay":
        between.delay(random.uniform(0, 0.05))
        time.sleep(0.3)
        between.delay(0)
    else:
        between.swallow()
        time.sleep(0.3)
        between.heal()
    time.sleep(random.uniform(0, 0.1))


_DISTURB: dict[str, Callable[[servers.Server], contextlib.AbstractContextManager[Callable[[], None]]]] = {
    "": _peace,
    "cut off": _cut_off,
    "power": _power,
    "held": _held,
    "network": _network,
}
