from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from commandline import Run

from airflow_agentic.cli import arguments
from airflow_agentic.cli.drill.places import Ran
from airflow_agentic.cli.drill.plan import KINDS, usual_rules
from airflow_agentic.config.faults import FaultKind, FaultRule
from airflow_agentic.config.policies import CategoryName
from airflow_agentic.errors import StoreUnavailable
from airflow_agentic.messaging import Message
from airflow_agentic.resilience.fault_rules import FaultRules
from airflow_agentic.resilience.faults import Faults
from airflow_agentic.stores import Store, open_store

OPTION = "AIRFLOW__AGENTIC__FAULT_INJECTION"
PROJECT = "faults:\n  slow-legal: {where: 'agent:legal', what: latency, seconds: 0.5}\n"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPTION, "True")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "agentic.yaml"
    path.write_text(PROJECT)
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(path))
    return path


def test_the_kinds_and_categories_of_the_command_line_are_those_of_the_rules() -> None:
    from typing import get_args

    assert get_args(FaultKind) == KINDS == arguments.FAULT_KINDS
    assert get_args(CategoryName) == arguments._CATEGORIES


def test_a_drill_has_a_rule_of_each_kind_for_which_nobody_wrote_one() -> None:
    assert {rule.what for rule in usual_rules().values()} == set(KINDS)
    # Without a limit a run might never get through.
    assert all(rule.count for rule in usual_rules().values())


@pytest.mark.usefixtures("on")
class TestAdd:
    def test_what_is_added_is_obeyed_by_workers_and_listed_with_its_counts(
        self, on_store: Run, store: Store
    ) -> None:
        words = "--where agent:* --what error --category permanent --count 2 --after 1 --seed 5 --for 2h --actor ana"
        ended = on_store("faults", "add", "mad", *words.split())
        assert (ended.code, ended.err) == (0, "")

        worker = Faults(store.guards)
        assert [len(worker.at("agent:triage", ("error",))) for _ in range(5)] == [0, 1, 1, 0, 0]

        [found] = on_store("faults", "list", "-o", "json").json
        assert (found["name"], found["origin"], found["attempts"], found["injected"]) == ("mad", "ana", 3, 2)
        assert (found["category"], found["for_seconds"], found["seed"]) == ("permanent", 7200, 5)
        assert [each["point"] for each in found["last"]] == ["agent:triage"] * 2
        shown = on_store("faults", "list").out
        assert "2 of 2" in shown
        assert "category permanent" in shown

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (
                "--where agent:* --what drop",
                "drop cannot happen at agent: where must begin with send or receive or store",
            ),
            ("--where store --what slow_store", "slow_store must have seconds"),
            ("--where agent:* --what error --probability 2", "probability: must be at most 1"),
            ("--where agent:* --what error --count 0", "count: must be at least 1"),
        ],
    )
    def test_what_cannot_happen_is_refused_and_nothing_is_kept(
        self, on_store: Run, store: Store, words: str, why: str
    ) -> None:
        ended = on_store("faults", "add", "bad", *words.split())
        assert ended.code == 1
        assert why in ended.err
        assert FaultRules(store.guards).views() == []

    @pytest.mark.parametrize("words", ["a/b --where store --what error", "a --where store --what boom"])
    def test_what_is_no_name_or_no_kind_is_refused_by_the_parser(self, on_store: Run, words: str) -> None:
        assert on_store("faults", "add", *words.split()).code == 2

    @pytest.mark.usefixtures("project")
    def test_a_name_of_the_project_is_taken(self, on_store: Run) -> None:
        ended = on_store("faults", "add", "slow-legal", "--where", "store", "--what", "error")
        assert ended.code == 1
        assert "the project file declares a fault 'slow-legal'" in ended.err


def test_while_injection_is_off_each_command_says_so(on_store: Run) -> None:
    added = on_store("faults", "add", "a", "--where", "store", "--what", "error")
    listed = on_store("faults", "list")
    assert (added.code, listed.code) == (0, 0)
    for ended in (added, listed):
        assert "fault injection is off" in ended.err
        assert "set fault_injection = True in [agentic], for all workers" in ended.err


def test_in_production_nothing_is_added_and_no_drill_is_run(
    on_store: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AGENTIC__MODE", "production")
    for words in ("add a --where store --what error", "plan some_dag"):
        ended = on_store("faults", *words.split())
        assert ended.code == 1
        assert "[agentic] mode is production: no fault is injected there" in ended.err
    assert FaultRules(store.guards).views() == []


def test_with_injection_on_in_production_no_command_works(
    on_store: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AGENTIC__MODE", "production")
    monkeypatch.setenv(OPTION, "True")
    ended = on_store("messages", "stats")
    assert ended.code == 1
    assert "settings.fault_injection: must not be on in production" in ended.err


@pytest.mark.usefixtures("on", "project")
class TestClear:
    @pytest.fixture(autouse=True)
    def rules(self, store: Store) -> None:
        for name in ("one", "two"):
            rule = FaultRule(what="error", where="store")
            FaultRules(store.guards).add(name, rule, actor="ana")

    def test_rules_end_by_name(self, on_store: Run, store: Store) -> None:
        ended = on_store("faults", "clear", "one")
        assert (ended.code, "ended: 1 rule" in ended.err) == (0, True)
        assert [view.name for view in FaultRules(store.guards).views()] == ["two"]

    def test_all_end_but_those_of_the_project_of_which_it_says_where_to_end_them(self, on_store: Run) -> None:
        ended = on_store("faults", "clear", "--all")
        assert "ended: 2 rules" in ended.err
        assert "'slow-legal' is declared in the project file: take it out there" in ended.err
        assert [each["name"] for each in on_store("faults", "list", "-o", "json").json] == ["slow-legal"]

    def test_an_unknown_name_ends_nothing(self, on_store: Run, store: Store) -> None:
        ended = on_store("faults", "clear", "one", "three")
        assert ended.code == 1
        assert "there is no fault 'three'; known: one, slow-legal, two" in ended.err
        assert len(FaultRules(store.guards).views()) == 2

    @pytest.mark.parametrize("words", [[], ["one", "--all"]])
    def test_it_wants_names_or_all(self, on_store: Run, words: list[str]) -> None:
        assert "say which: names of rules, or --all" in on_store("faults", "clear", *words).err


@pytest.mark.usefixtures("on")
class TestPlan:
    def test_other_rules_would_spoil_it(self, on_store: Run, store: Store) -> None:
        FaultRules(store.guards).add("mine", FaultRule(what="error", where="store"), actor="ana")
        ended = on_store("faults", "plan", "some_dag", "--in-process")
        assert ended.code == 1
        assert "other rules would be obeyed in the drill too: mine" in ended.err

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("a: {where: store, what: drop, seconds: 1}", "drop takes no time"),
            ("- a", "write names, and a rule below each"),
            ("a: [", "--rules"),
            ("a: {where: store, what: drop, wat: 1}", "wat: Extra inputs are not permitted"),
        ],
    )
    def test_rules_that_cannot_be_are_refused_before_anything_runs(
        self, on_store: Run, tmp_path: Path, text: str, why: str
    ) -> None:
        path = tmp_path / "rules.yaml"
        path.write_text(text)
        ended = on_store("faults", "plan", "some_dag", "--in-process", "--rules", path)
        assert ended.code == 1
        assert why in ended.err

    def test_what_would_not_reach_the_runs_is_refused(self, on_store: Run) -> None:
        ended = on_store("faults", "plan", "d", "--in-process", "--set", "settings.max_attempts=2")
        assert ended.code == 1
        assert "--set does not reach the runs of a drill" in ended.err

    def test_kinds_without_a_rule_are_named(self, on_store: Run, tmp_path: Path) -> None:
        path = tmp_path / "rules.yaml"
        path.write_text("faults: {a: {where: store, what: drop}}")
        ended = on_store("faults", "plan", "d", "--in-process", "--rules", path, "--kinds", "drop", "sigkill")
        assert ended.code == 1
        assert "has no rule of kind sigkill" in ended.err


class Careless:
    """A place where whoever sends does not look whether it worked."""

    name = "here"
    is_shared = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._runs = 0

    def run(self, dag_id: str, timeout: float) -> Ran:
        self._runs += 1
        with open_store(self._url, faults={}) as store:
            for name in ("a", "b"):
                message = Message(
                    source="shop", recipient="box", subject=name, correlation_id=f"{dag_id}:{self._runs}"
                )
                with contextlib.suppress(StoreUnavailable):
                    store.bus.send(message)
            for delivery in store.bus.receive("box", max_messages=9):
                delivery.ack()
        return Ran(str(self._runs), "success", 0.1)


def test_a_drill_in_which_a_promise_breaks_says_which_and_ends_with_1(
    on_store: Run, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("airflow_agentic.cli.drill.plan._RULES_SPREAD_SECONDS", 0)
    monkeypatch.setattr("airflow_agentic.cli.commands.faults.place", lambda *_, **__: Careless(store.url))
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "away: {where: 'send:*', what: error, count: 1}\nidle: {where: 'agent:*', what: sigkill}"
    )

    ended = on_store("faults", "plan", "orders", "--rules", rules)
    assert ended.code == 1
    assert "drill of 'orders' on here" in ended.err
    assert "sigkill: nothing was injected" in ended.err
    assert ended.err.endswith("a promise broke with error")
    rows = [[cell.strip() for cell in line.split("|")] for line in ended.out.splitlines() if "|" in line]
    assert rows[0] == ["fault", "injected", "promise", "verdict", "found", "seconds"]
    lost = "1 are missing: agentic.message of shop to box about a"
    assert ["error", "1", "P1 no message is lost", "broken", lost, "0"] in rows
    assert ["sigkill", "0", "all", "not exercised", "no fault was injected", "0"] in rows

    ended = on_store("faults", "plan", "orders", "--rules", rules, "--kinds", "error", "-o", "json")
    assert ended.code == 1
    [found] = ended.json
    assert (found["kind"], found["injected"], found["broke"], found["place"]) == ("error", 1, True, "here")
    assert len(found["promises"]) == 9
