"""``airflow agentic faults``: what is broken on purpose, and whether the promises hold then."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.utils.platform import getuser

from airflow_agentic import runtime
from airflow_agentic.cli.access import opened
from airflow_agentic.cli.command import command, recorded
from airflow_agentic.cli.drill.accounts import Judgement, Verdict
from airflow_agentic.cli.drill.places import place
from airflow_agentic.cli.drill.plan import KINDS, Drill, Finding, rule_of, rules_of, usual_rules
from airflow_agentic.cli.output import count, exact, is_machine, listing, note, shorten
from airflow_agentic.config.options import SECTION
from airflow_agentic.config.settings import Settings
from airflow_agentic.errors import ConfigurationError, InvalidOption
from airflow_agentic.resilience.fault_rules import PROJECT, FaultRules, FaultView
from airflow_agentic.stores import Store

_NAME_WIDTH = 40
_SAID_WIDTH = 90
_FIELDS = ("where", "what", "category", "seconds", "probability", "count", "after", "seed")
_TURN_ON = f"set fault_injection = True in [{SECTION}], for all workers"


@command
def list_faults(args: Namespace) -> None:
    """List rules, those of the project file among them."""
    with opened(args) as store:
        found = _rules(store).views()
    listing(args.output, [_data(view) for view in found], map(_row, found))
    if not runtime.settings().fault_injection:
        note(f"fault injection is off, and none of these is obeyed: {_TURN_ON}")


@command
@recorded
def add_fault(args: Namespace) -> None:
    """Add a rule, and print it."""
    settings = _not_in_production()
    given: dict[str, Any] = {key: getattr(args, key) for key in _FIELDS}
    given["from_seconds"] = args.begins and args.begins.total_seconds()
    given["for_seconds"] = args.lasts and args.lasts.total_seconds()
    rule = rule_of({key: value for key, value in given.items() if value is not None}, "this rule")
    with opened(args, create=not args.store_url) as store:
        made = _rules(store).add(args.name, rule, actor=args.actor or getuser())
    listing(args.output, [_data(made)], [_row(made)])
    if not settings.fault_injection:
        note(f"fault injection is off here, so nobody may obey it: {_TURN_ON}")


@command
@recorded
def clear_faults(args: Namespace) -> None:
    """End rules, and say how many."""
    if bool(args.names) == args.all:
        raise InvalidOption("say which: names of rules, or --all")
    with opened(args) as store:
        rules = _rules(store)
        found = {view.name: view for view in rules.views()}
        if unknown := [name for name in args.names if name not in found]:
            raise InvalidOption(
                f"there is no fault {', '.join(map(repr, unknown))}; known: {', '.join(found) or 'none'}"
            )
        meant = [view for view in found.values() if args.all or view.name in args.names]
        for view in meant:
            rules.clear(view.name)
    ended = [view for view in meant if view.origin != PROJECT]
    listing(args.output, [_data(view) for view in ended], map(_row, ended))
    note(f"ended: {count(len(ended), 'rule')}")
    for view in meant:
        if view.origin == PROJECT:
            note(
                f"{view.name!r} is declared in the project file: take it out there. Its counts were forgotten"
            )


@command
@recorded
def plan_faults(args: Namespace) -> None:
    """Run a drill, and print which promise held; the exit code is 1 if one broke."""
    settings = _not_in_production()
    rules = rules_of(args.rules) if args.rules else usual_rules()
    kinds = tuple(kind for kind in KINDS if not args.kinds or kind in args.kinds)
    if missing := [kind for kind in args.kinds or () if kind not in {rule.what for rule in rules.values()}]:
        raise InvalidOption(f"{args.rules} has no rule of kind {', '.join(missing)}")
    where = place(_environment(args), own_process=args.in_process)
    if where.is_shared and (args.project or args.store_url):
        raise InvalidOption(
            "an Airflow is running, and goes by its own project and store: leave --project and --store-url out, or run "
            "the DAG in processes of its own with --in-process"
        )
    if where.is_shared and not settings.fault_injection:
        raise ConfigurationError(
            f"an Airflow is running, and fault injection is off: {_TURN_ON}, and start them again; or run the DAG in "
            "processes of its own with --in-process"
        )
    note(f"drill of {args.dag_id!r} on {where.name}")
    with opened(args, create=True) as store:
        _refuse_others(store)
        drill = Drill(store, where, args.dag_id, args.timeout.total_seconds(), note)
        found = drill.run(rules, kinds)
    if is_machine(args.output):
        listing(args.output, [_finding(each, where.name) for each in found], ())
    else:
        listing(args.output, (), (row for each in found for row in _rows(each)))
    _conclude(found)


def _environment(args: Namespace) -> dict[str, str]:
    """Return what the processes of a drill must be told, to see what this command sees."""
    if args.overrides:
        raise InvalidOption(
            "--set does not reach the runs of a drill: write it into a file, and name that with --project"
        )
    said = {"FAULT_INJECTION": "True", "STORE_URL": args.store_url}
    if args.project:
        said["PROJECT_FILE"] = ",".join(str(Path(each).resolve()) for each in args.project)
    return {f"AIRFLOW__{SECTION.upper()}__{key}": value for key, value in said.items() if value}


def _conclude(found: Sequence[Finding]) -> None:
    for each in found:
        if not each.injected:
            note(
                f"{each.kind}: nothing was injected. Does the DAG come by such a place, with fault_injection on?"
            )
    if broke := [each.kind for each in found if each.broke]:
        raise SystemExit(f"a promise broke with {', '.join(broke)}")


def _rules(store: Store) -> FaultRules:
    return FaultRules(store.guards, runtime.project().faults)


def _not_in_production() -> Settings:
    settings = runtime.settings()
    if settings.mode == "production":
        raise ConfigurationError(f"[{SECTION}] mode is production: no fault is injected there")
    return settings


def _refuse_others(store: Store) -> None:
    others = [view.name for view in _rules(store).views() if view.origin != "drill"]
    if others:
        raise ConfigurationError(
            f"other rules would be obeyed in the drill too: {', '.join(others)}. Clear them (`airflow agentic faults "
            "clear`), or take them out of the project file and give them with --rules"
        )


def _data(view: FaultView) -> dict[str, Any]:
    return {
        "name": view.name,
        **view.rule.model_dump(mode="json"),
        "origin": view.origin,
        "since": None if view.since is None else exact(view.since),
        "attempts": view.attempts,
        "injected": view.injected,
        "last": [dict(each) for each in view.last],
    }


def _row(view: FaultView) -> dict[str, object]:
    said = view.rule.model_dump(mode="json", exclude_defaults=True, exclude={"where", "what", "description"})
    return {
        "name": shorten(view.name, _NAME_WIDTH),
        "where": shorten(view.rule.where, _NAME_WIDTH),
        "what": view.rule.what,
        "how": ", ".join(f"{key} {value}" for key, value in said.items()),
        "attempts": view.attempts,
        "injected": f"{view.injected} of {view.rule.count}" if view.rule.count else view.injected,
        "origin": view.origin,
    }


def _finding(each: Finding, where: str) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "injected": each.injected,
        "place": where,
        "run_id": each.ran.run_id,
        "state": each.ran.state or None,
        "seconds": round(each.ran.seconds, 1),
        "restarts": each.ran.restarts,
        "broke": each.broke,
        "promises": [_judgement(judged) for judged in each.judgements],
        "rules": [_data(view) for view in each.rules],
    }


def _judgement(judged: Judgement) -> Mapping[str, str]:
    return {"promise": judged.promise, "verdict": judged.verdict, "said": judged.said}


def _rows(each: Finding) -> list[dict[str, object]]:
    """Return a row for each promise that could be judged, and one if none could."""
    told = [judged for judged in each.judgements if judged.verdict is not Verdict.NOT_EXERCISED]
    return [
        {
            "fault": each.kind,
            "injected": each.injected,
            "promise": judged.promise,
            "verdict": judged.verdict,
            "found": shorten(judged.said, _SAID_WIDTH),
            "seconds": f"{each.ran.seconds:.0f}",
        }
        for judged in told or [Judgement("all", Verdict.NOT_EXERCISED, "no fault was injected")]
    ]
