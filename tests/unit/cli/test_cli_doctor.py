from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis_server
from commandline import Ended, Run

from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.agents.status import AgentProfile, PerformanceMetrics
from airflow_agentic.cli.checks import Finding, Result, durability, examined, installation, storage
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.persistence import RunStatus
from airflow_agentic.resilience import Breaker, Budget, Policy, Subject
from airflow_agentic.stores import Store

MOUNTS = """\
/dev/root / ext4 rw 0 0
overlay /var/lib/containers overlay rw 0 0
server:/export /mnt/shared nfs4 rw 0 0
//server/share /mnt/my\\040share cifs rw 0 0
tmpfs /run tmpfs rw 0 0
user@host: /home/ana/remote fuse.sshfs rw 0 0
/dev/first /data xfs rw 0 0
tmpfs /data tmpfs rw 0 0
short line
"""


def _by_check(ended: Ended) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in ended.json}


def _fail() -> None:
    raise ConnectionError("nobody answers")


@pytest.fixture
def age(tmp_path: Path, store: Store) -> Callable[[str], None]:
    """Make every lease, or every agent's report, two hours older."""

    def change(statement: str) -> None:
        database = sqlite3.connect(tmp_path / "agentic.db")
        with database:
            database.execute(statement)
        database.close()

    return change


def test_a_store_in_order_has_only_oks(on_store: Run, store: Store) -> None:
    store.bus.send(Message(source="cron", recipient="inbox"))

    ended = on_store("doctor", "-o", "json")

    checks = (
        "store", "disk", "claim checks", "schema and write access", "dead letters", "routes", "readers", "leases",
        "heartbeats", "agents", "breakers", "budgets", "journals", "steps", "runs", "failures",
    )  # fmt: skip
    assert {name: _by_check(ended)[name]["result"] for name in checks} == dict.fromkeys(checks, "ok")
    assert "(from --store-url)" in _by_check(ended)["store"]["text"]


def test_the_provider_is_registered_here() -> None:
    assert [(f.check, f.result) for f in installation.findings()] == [
        ("Airflow", Result.OK),
        ("provider", Result.OK),
        ("connection type", Result.OK),
        ("queue scheme", Result.OK),
        ("config section", Result.OK),
        ("task decorator", Result.OK),
    ]


@pytest.mark.parametrize(
    ("version", "result"), [("3.2.9", "FAIL"), ("3.3.0rc1", "ok"), ("3.3.0", "ok"), ("4.0.0.dev0", "ok")]
)
def test_an_old_airflow_fails(monkeypatch: pytest.MonkeyPatch, version: str, result: str) -> None:
    monkeypatch.setattr("airflow.__version__", version)

    assert installation.findings()[0].result == result


def test_dead_letters_are_a_warning_with_the_command_to_see_them(on_store: Run, store: Store) -> None:
    for mailbox in ("a", "a", "b"):
        store.bus.send(Message(source="cron", recipient=mailbox))
        store.bus.receive(mailbox)[0].reject("no")

    ended = on_store("doctor", "-o", "json")
    finding = _by_check(ended)["dead letters"]

    assert ended.code == 0
    assert finding["result"] == "warning"
    assert finding["text"] == "3 dead letters: 2 in a, 1 in b"
    assert f"`airflow agentic dead-letters list --store-url {store.url}`" in finding["way_out"]


def test_messages_that_led_to_nobody_are_a_warning_with_the_way_to_redrive_them(
    on_store: Run, store: Store
) -> None:
    store.bus.send(Message(source="shop", topic="orders.new"))
    store.bus.send(Message(source="shop", audience="role:clerk"))

    finding = _by_check(on_store("doctor", "-o", "json"))["routes"]

    assert finding["result"] == "warning"
    assert finding["text"] == "2 messages led to nobody, the oldest for topic orders.new"
    assert "airflow agentic routes subscribe MAILBOX --topic PATTERN" in finding["way_out"]
    assert "dead-letters redrive --mailbox agentic.unroutable" in finding["way_out"]


def test_a_mailbox_that_subscribed_and_that_nobody_reads_is_a_warning(
    on_store: Run, store: Store, age: Callable[[str], None]
) -> None:
    for mailbox in ("forgotten", "read", "new"):
        store.bus.subscribe(mailbox, "orders.#")
    store.bus.send(Message(source="shop", recipient="direct"))
    store.bus.publish(Message(source="shop", topic="orders.new"))
    store.bus.receive("read")[0].ack()
    age("UPDATE agentic_delivery SET visible_at = visible_at - 7200000 WHERE mailbox != 'new'")

    finding = _by_check(on_store("doctor", "-o", "json"))["readers"]

    assert finding["result"] == "warning"
    assert "for up to 2 h" in finding["text"]
    assert finding["text"].endswith(": 1 in forgotten")
    assert "airflow agentic routes unsubscribe forgotten" in finding["way_out"]


def test_late_heartbeats_are_a_warning(on_store: Run, store: Store, age: Callable[[str], None]) -> None:
    for number in range(7):
        store.bus.send(Message(source=f"scanner-{number}", kind=Kind.HEARTBEAT))
    age("UPDATE agentic_heartbeat SET due_at = due_at - 7200000")

    finding = _by_check(on_store("doctor", "-o", "json"))["heartbeats"]

    assert finding["result"] == "warning"
    assert "scanner-4 and 2 more; of 7 nobody was told" in finding["text"]


class TestGuards:
    def test_breakers_that_are_open_or_set_by_hand_are_a_warning(self, on_store: Run, store: Store) -> None:
        guard = store.guard(Policy(breaker=Breaker(minimum_calls=1)), "conn:primary")
        with contextlib.suppress(ConnectionError):
            guard.call(_fail)
        store.breaker("tool:search").force_closed(reason="x", actor="ana")
        store.breaker("tool:index").reset(reason="x", actor="ana")

        ended = on_store("doctor", "-o", "json")
        finding = _by_check(ended)["breakers"]

        assert (ended.code, finding["result"]) == (0, "warning")
        assert finding["text"].startswith(
            "conn:primary is open for 0 s, tool:search is held closed by hand for"
        )
        assert "tool:index" not in finding["text"]
        assert f"`airflow agentic breakers show conn:primary --store-url {store.url}`" in finding["way_out"]

    def test_budgets_that_are_used_up_are_a_warning(self, on_store: Run, store: Store) -> None:
        guard = store.guard(Policy(budget=Budget(calls=1)), "conn:primary", Subject(agent="triage"))
        guard.call(lambda: None)
        store.guard(Policy(budget=Budget(tokens=1)), "tool:search").call(lambda: None)

        finding = _by_check(on_store("doctor", "-o", "json"))["budgets"]

        assert finding["result"] == "warning"
        assert finding["text"].startswith("used up: conn:primary of agent=triage in 20")
        assert finding["text"].endswith(": calls")
        assert "airflow agentic budgets show conn:primary" in finding["way_out"]

    def test_rules_that_name_no_error_are_a_warning_with_their_line(
        self, on_store: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project = tmp_path / "agentic.yaml"
        project.write_text(
            "failures:\n"
            "  - {error: Throttled, category: transient}\n"
            "  - {error: 'requests.exceptions:Timeout', category: transient}\n"
            "  - {error: 'requests:Timeout', category: transient}\n"
            "  - {error: 'requests.exceptions:Timout', category: transient}\n"
            "  - {error: 'no_such_package:Error', category: transient}\n"
            "  - {error: 'json:dumps', category: transient}\n"
        )
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(project))

        finding = _by_check(on_store("doctor", "-o", "json"))["failures"]
        told = finding["text"].split("; ")

        assert finding["result"] == "warning"
        assert told == [
            f"{project}:4: 'requests:Timeout' is defined as 'requests.exceptions:Timeout', and fits only by that name",
            f"{project}:5: 'requests.exceptions' has no 'Timout'",
            "did you mean 'Timeout'?",
            f"{project}:6: module 'no_such_package' cannot be imported: No module named 'no_such_package'",
            "install it, or put its folder on PYTHONPATH",
            f"{project}:7: 'json:dumps' is no exception",
        ]


class TestClaimChecks:
    def test_a_place_that_can_be_written_is_ok_and_left_clean(
        self, on_store: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__AGENTIC__CLAIM_CHECK_PATH", f"file://{tmp_path}/blobs")

        finding = _by_check(on_store("doctor", "-o", "json"))["claim checks"]

        assert finding["result"] == "ok"
        assert "for messages above 65,536 bytes" in finding["text"]
        assert [path for path in (tmp_path / "blobs" / "doctor").rglob("*") if path.is_file()] == []

    def test_one_that_cannot_be_written_fails_with_a_way_out(
        self, on_store: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "blobs").write_text("a file, and no directory")
        monkeypatch.setenv("AIRFLOW__AGENTIC__CLAIM_CHECK_PATH", f"file://{tmp_path}/blobs")

        ended = on_store("doctor", "-o", "json")

        assert ended.code == 1
        assert _by_check(ended)["claim checks"]["result"] == "FAIL"
        assert "claim_check_path" in _by_check(ended)["claim checks"]["way_out"]


class TestDurabilityOfRedis:
    def test_a_server_that_syncs_every_write_is_ok(self, agentic: Run, tmp_path: Path) -> None:
        with redis_server.private(tmp_path) as server:
            found = _by_check(agentic("doctor", "--store-url", f"{server.url}?prefix=a", "-o", "json"))

        assert found["durability"]["result"] == "ok"
        assert "file system" not in found

    def test_one_that_may_lose_messages_is_a_warning(self, agentic: Run, tmp_path: Path) -> None:
        options = ("--appendfsync", "everysec", "--maxmemory-policy", "allkeys-lru")
        with redis_server.private(tmp_path, *options) as server:
            finding = _by_check(agentic("doctor", "--store-url", server.url, "-o", "json"))["durability"]

        assert finding["result"] == "warning"
        assert "about a second of messages" in finding["text"]
        assert "CONFIG SET appendfsync always; CONFIG SET maxmemory-policy noeviction" in finding["way_out"]

    def test_one_that_only_takes_snapshots_is_a_warning(self) -> None:
        finding = durability.judged({"appendonly": "no", "appendfsync": "everysec"})

        assert finding.result is Result.WARNING
        assert "all messages since its last snapshot" in finding.text


def test_leases_that_nobody_takes_over_are_a_warning(
    on_store: Run, store: Store, age: Callable[[str], None]
) -> None:
    store.bus.send_many(Message(source="cron", recipient="inbox") for _ in range(2))
    store.bus.receive("inbox", max_messages=2)
    age("UPDATE agentic_delivery SET visible_at = visible_at - 7200000 WHERE delivery_id = 1")

    finding = _by_check(on_store("doctor", "-o", "json"))["leases"]

    assert finding["result"] == "warning"
    assert "for up to 1 h 59 min: 1 in inbox" in finding["text"]
    assert "airflow agentic messages peek inbox --state leased" in finding["way_out"]


def test_a_lease_that_ended_just_now_is_none(on_store: Run, store: Store) -> None:
    store.bus.send(Message(source="cron", recipient="inbox"))
    store.bus.receive("inbox", lease=timedelta(milliseconds=1))

    assert _by_check(on_store("doctor", "-o", "json"))["leases"]["result"] == "ok"


def test_agents_that_fell_silent_are_a_warning(
    on_store: Run, store: Store, age: Callable[[str], None]
) -> None:
    for name, end in (("lost", AgentState.PROCESSING), ("ended", AgentState.SHUTDOWN)):
        store.agents.register(
            f"{name}-1", AgentProfile(name, "FunctionAgent"), "host:1", timedelta(minutes=1)
        )
        store.agents.report(f"{name}-1", end, "", add=PerformanceMetrics(), alive_for=timedelta(minutes=1))
    age("UPDATE agentic_agent_instance SET alive_until = alive_until - 7200000")

    finding = _by_check(on_store("doctor", "-o", "json"))["agents"]

    assert finding["result"] == "warning"
    assert finding["text"].endswith(": lost")


def test_people_see_what_to_do_below_each_finding(on_store: Run, store: Store) -> None:
    store.bus.send(Message(source="cron", recipient="inbox"))
    store.bus.receive("inbox")[0].reject("no")

    lines = on_store("doctor").out.splitlines()

    place = next(i for i, line in enumerate(lines) if line.startswith("warning  dead letters: 1 dead letter"))
    assert lines[place + 1].startswith("         -> `airflow agentic dead-letters list")
    assert "FAIL" in lines[-1]


def test_a_store_that_does_not_exist_yet_is_a_warning_and_is_not_made(agentic: Run, tmp_path: Path) -> None:
    ended = agentic("doctor", "--store-url", f"sqlite:///{tmp_path}/new.db", "-o", "json")

    assert ended.code == 0
    assert _by_check(ended)["store"]["result"] == "warning"
    assert _by_check(ended)["writable"]["result"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_store_in_a_missing_directory_fails(agentic: Run, tmp_path: Path) -> None:
    ended = agentic("doctor", "--store-url", f"sqlite:///{tmp_path}/missing/new.db", "-o", "json")

    assert ended.code == 1
    assert "mkdir -p" in _by_check(ended)["writable"]["way_out"]


@pytest.mark.parametrize("revision", ["0001", "9999"])
def test_a_schema_of_another_version_fails(on_store: Run, age: Callable[[str], None], revision: str) -> None:
    age(f"UPDATE agentic_schema_version SET version_num = '{revision}'")

    ended = on_store("doctor", "-o", "json")

    assert ended.code == 1
    finding = _by_check(ended)["schema and write access"]
    assert (finding["result"], revision in finding["text"]) == ("FAIL", True)


def test_a_store_that_is_locked_away_fails(on_store: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("airflow_agentic.stores.sql.schema.probe", full)

    ended = on_store("doctor", "-o", "json")

    assert ended.code == 1
    assert "No space left" in _by_check(ended)["schema and write access"]["text"]


def test_a_connection_that_cannot_be_found_fails(agentic: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_agentic.cli.access._metadata_problem", lambda _conn_id: "refused")

    ended = agentic("doctor", "--conn-id", "nope")

    assert ended.code == 1
    assert "FAIL     store: cannot look up the connection 'nope'" in ended.out


def test_the_memory_store_has_no_file_to_look_at(agentic: Run) -> None:
    ended = agentic("doctor", "--store-url", "memory://", "-o", "json")

    assert "file system" not in _by_check(ended)
    assert _by_check(ended)["dead letters"]["result"] == "ok"


@pytest.mark.parametrize(
    ("path", "kind", "result"),
    [
        ("/srv/agentic.db", "ext4", "ok"),
        ("/var/lib/containers/x/agentic.db", "overlay", "warning"),
        ("/mnt/shared/agentic.db", "nfs4", "warning"),
        ("/mnt/sharedness/agentic.db", "ext4", "ok"),
        ("/mnt/my share/agentic.db", "cifs", "warning"),
        ("/run/agentic.db", "tmpfs", "warning"),
        ("/home/ana/remote/agentic.db", "fuse.sshfs", "warning"),
        ("/data/agentic.db", "tmpfs", "warning"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, kind: str, result: str) -> None:
    assert storage.kind_of(Path(path), MOUNTS) == kind
    assert storage.judged(Path(path), kind).result == result


def test_an_unknown_file_system_is_no_warning() -> None:
    assert storage.kind_of(Path("/x"), "") is None
    assert storage.judged(Path("/x"), None).result is Result.OK


@pytest.mark.parametrize(("free", "result"), [(50 << 30, "ok"), (500 << 20, "warning"), (10 << 20, "FAIL")])
def test_a_disk_that_fills_up_is_told_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, result: str
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=free))

    assert storage.disk(tmp_path / "missing" / "agentic.db").result == result


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> Finding:
        raise RuntimeError("no such module")

    finding = examined("x", broken)

    assert finding.result is Result.FAIL
    assert finding.text == "RuntimeError: no such module"


def test_a_run_in_quarantine_is_a_warning_with_what_is_wrong(on_store: Run, store: Store) -> None:
    with store.run("triage", key="k 1") as run:
        run.step("read", lambda: 1)
    store.run_stores.runs.mark("k 1", RunStatus.QUARANTINED, "version 2: not as it was written", "permanent")

    finding = _by_check(on_store("doctor", "-o", "json"))["journals"]

    assert finding["result"] == "warning"
    assert finding["text"] == "1 run in quarantine: k 1; version 2: not as it was written"
    assert f"`airflow agentic runs verify 'k 1' --store-url {store.url}`" in finding["way_out"]


def test_a_step_that_waits_for_a_decision_and_a_run_that_was_left_are_warnings(
    on_store: Run, store: Store, age: Callable[[str], None]
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    for key, declared in (("asks", "ask"), ("goes-on", "retry")):
        with pytest.raises(KeyboardInterrupt), store.run("triage", key=key, task="dag/run/task") as run:
            run.step("pay", die, on_ambiguous=declared)

    fresh = _by_check(on_store("doctor", "-o", "json"))
    age("UPDATE agentic_run SET updated_at = updated_at - 7200000")
    old = _by_check(on_store("doctor", "-o", "json"))

    assert fresh["steps"]["text"].endswith("not to be repeated unasked: pay of asks")
    assert "runs skip-step asks pay --reason TEXT" in fresh["steps"]["way_out"]
    assert fresh["runs"]["result"] == "ok"
    assert old["runs"]["result"] == "warning"
    assert "for up to 2 h" in old["runs"]["text"]
    assert "--clear --reason TEXT" in old["runs"]["way_out"]
    assert on_store("doctor").code == 0
