from __future__ import annotations

import pytest
from pydantic import ValidationError

from airflow_agentic.config.faults import PLACES, FaultRule
from airflow_agentic.config.project import ProjectInvalid, assemble
from airflow_agentic.config.settings import Settings
from airflow_agentic.errors import InvalidOption

POINTS = {
    "agent": "agent:triage",
    "call": "call:conn:openai",
    "send": "send:orders",
    "receive": "receive:orders",
    "store": "store",
}
TIMED = {"latency", "slow_store", "clock_jump"}


def rule(what="error", where="agent:*", **said):
    seconds = {"seconds": 1} if what in TIMED and "seconds" not in said else {}
    return FaultRule(what=what, where=where, **{**seconds, **said})


def declared(text):
    return assemble([("agentic.yaml", text.encode())])


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize("place", POINTS)
def test_a_fault_is_declared_where_it_can_happen_and_nowhere_else(what, place):
    if place in PLACES[what]:
        assert rule(what, POINTS[place]).place == place
        return
    with pytest.raises(
        ValidationError, match=f"{what} cannot happen at {place}: where must begin with {PLACES[what][0]}"
    ):
        rule(what, POINTS[place])


def test_a_star_stands_for_any_characters_and_all_else_for_itself():
    assert rule(where="agent:*").covers("agent:triage")
    assert rule(where="agent:tri*").covers("agent:triage")
    assert not rule(where="agent:tri").covers("agent:triage")
    assert rule(where="call:conn:*").covers("call:conn:a b\nc")
    assert not rule(where="agent:a.b").covers("agent:axb")
    assert not rule(where="agent:[ab]").covers("agent:a")
    assert not rule(where="agent:*").covers("call:agent:triage")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"where": "elsewhere"}, "where must begin with one of agent, call, receive, send, store"),
        ({"where": "*"}, "where must begin with one of"),
        ({"where": "agent"}, "with :NAME after it"),
        ({"where": "agent:"}, "with :NAME after it"),
        ({"where": "store:sqlite"}, "must be `store` alone"),
        ({"what": "latency", "seconds": None}, "latency must have seconds"),
        ({"what": "latency", "seconds": 0}, "latency must have seconds"),
        ({"what": "latency", "seconds": -1}, "latency must have seconds above 0"),
        ({"what": "latency", "seconds": 4000}, "at most 3600"),
        ({"what": "error", "seconds": 1}, "error takes no time"),
        (
            {"what": "sigkill", "category": "permanent"},
            "category must only stand with errors at agents and calls",
        ),
        ({"where": "store", "category": "permanent"}, "what the bus and the store raise is transient"),
        ({"what": "explosion"}, "what\n  Input should be"),
        ({"category": "fatal"}, "category\n  Input should be"),
        ({"probability": 0}, "probability"),
        ({"probability": 1.1}, "probability"),
        ({"count": 0}, "count"),
        ({"after": -1}, "after"),
        ({"for_seconds": 0}, "for_seconds"),
        ({"from_seconds": -1}, "from_seconds"),
        ({"until": 3}, "until"),
    ],
)
def test_what_cannot_happen_is_refused_with_the_reason(said, why):
    with pytest.raises(ValidationError) as caught:
        FaultRule(**{"what": "error", "where": "agent:*", **said})
    assert why in str(caught.value)


def test_a_clock_may_be_behind():
    assert rule("clock_jump", "store", seconds=-600).seconds == -600


class TestProduction:
    def test_faults_in_a_project_of_production_are_refused_where_they_stand(self):
        with pytest.raises(ProjectInvalid) as caught:
            declared("settings: {mode: production}\nfaults:\n  dead: {where: 'agent:*', what: sigkill}\n")
        [fault] = caught.value.errors
        assert (fault.line, fault.key) == (3, "faults.dead")
        assert "must not be declared in production (agentic.yaml:1)" in fault.message
        assert "only tests lay over the project" in fault.suggestion

    @pytest.mark.parametrize("said", ["true", "'True'", "'1'", "'yes'", "on"])
    def test_fault_injection_in_production_is_refused_however_it_is_written(self, said):
        with pytest.raises(ProjectInvalid, match=r"settings.fault_injection: must not be on in production"):
            declared(f"settings: {{mode: production, fault_injection: {said}}}\n")

    def test_it_is_refused_whichever_layer_says_production(self):
        text = b"faults: {dead: {where: store, what: error}}\n"
        env = {"AIRFLOW__AGENTIC__MODE": "production"}
        with pytest.raises(ProjectInvalid, match="AIRFLOW__AGENTIC__MODE"):
            assemble([("agentic.yaml", text)], env=env)
        assert assemble([("agentic.yaml", text)]).faults["dead"].what == "error"

    def test_production_without_faults_is_fine(self):
        assert declared("settings: {mode: production, fault_injection: false}").settings.mode == "production"

    def test_options_alone_are_refused_too(self):
        with pytest.raises(
            InvalidOption, match="fault_injection = True: must not be set while mode is production"
        ):
            Settings.parse({"mode": "production", "fault_injection": "True"})


class TestOption:
    def test_it_is_off_unless_somebody_turns_it_on(self):
        assert not Settings().fault_injection
        assert not declared("").settings.fault_injection

    @pytest.mark.parametrize("raw", ["True", "true", "t", "1", "yes", "on", True, " True "])
    def test_on_is_written_as_airflow_reads_it(self, raw):
        assert Settings.parse({"fault_injection": raw}).fault_injection is True

    @pytest.mark.parametrize("raw", ["False", "f", "0", "no", "off", False, "", None])
    def test_off_is_too(self, raw):
        assert Settings.parse({"fault_injection": raw}).fault_injection is False

    @pytest.mark.parametrize("raw", ["maybe", "2", 1.5, "TrueFalse"])
    def test_anything_else_is_refused(self, raw):
        with pytest.raises(InvalidOption, match=r"fault_injection = .*: must be True or False"):
            Settings.parse({"fault_injection": raw})
