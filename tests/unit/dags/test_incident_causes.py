"""What the incident triage reads out of logs: exceptions, causes, and what belongs together."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incident_causes import UNKNOWN, Rule, correlated, evidence_of, judged, normalized
from incident_models import Evidence, Failure, Raised

REFUSED = {"exc_type": "ConnectionRefusedError", "exc_value": "[Errno 111] Connection refused", "frames": []}


def failure(number=1, **fields):
    about = {"dag_id": "d", "run_id": "r", "task_id": "t", "try_number": 1, "state": "failed"}
    return Failure(**{"id": f"f{number}", **about, **fields})


def record(event, level="info", *errors):
    return {"event": event, "level": level, **({"error_detail": list(errors)} if errors else {})}


def raised(kind, message, number=1, **fields):
    return Evidence(failure=failure(number, **fields), raised=Raised(type=kind, message=message))


class TestEvidence:
    def test_the_root_of_the_chain_is_the_cause(self):
        wrapped = {"exc_type": "AirflowFailException", "exc_value": "no warehouse", "frames": []}
        found = evidence_of(failure(), [record("Task failed with exception", "error", wrapped, REFUSED)])
        assert str(found.raised) == "ConnectionRefusedError: [Errno 111] Connection refused"
        assert found.lines[0] == "Task failed with exception"
        assert "AirflowFailException: no warehouse" in found.lines

    def test_it_says_where_and_quotes_what_was_loud(self):
        airflow = {"filename": "/lib/site-packages/airflow/sdk/bases/operator.py", "lineno": 1, "name": "run"}
        frames = [airflow, {"filename": "/dags/load.py", "lineno": 7, "name": "load"}]
        records = [
            record("beginning"),
            record("the disk is nearly full", "warning"),
            record("Task failed with exception", "error", REFUSED | {"frames": frames}),
        ]
        found = evidence_of(failure(), records)
        assert found.where == "load.py:7 in load"
        assert found.lines == [
            "the disk is nearly full",
            "Task failed with exception",
            "  load.py:7 in load",
            "ConnectionRefusedError: [Errno 111] Connection refused",
        ]

    def test_the_troubles_of_a_callback_afterwards_are_not_the_cause(self):
        late = {"exc_type": "OSError", "exc_value": "the notifier", "frames": []}
        records = [
            record("Task failed with exception", "error", REFUSED),
            record("Error when executing callback", "error", late),
        ]
        assert evidence_of(failure(), records).raised.type == "ConnectionRefusedError"

    def test_without_a_log_the_message_must_do(self):
        told = failure(exception=Raised(type="KeyError", message="'amount'"))
        assert str(evidence_of(told, []).raised) == "KeyError: 'amount'"

    def test_a_killed_process_has_no_exception(self):
        found = evidence_of(failure(), [record("Process terminated by signal", "critical")])
        assert str(found.raised) == "NoException: Process terminated by signal"


class TestSignatures:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("row 17 of /data/a/1.csv", "row 4 of /data/b/22.csv"),
            ("order 6f6b0e0e-5d3c-5a39-9a53-3a0a55a1c5f1", "order 0f6b0e0e-5d3c-5a39-9a53-3a0a55a1c5f9"),
            ("no answer from http://a.example:80/x", "no answer from https://b.example/y?z=1"),
            ("took 1.5 s at 10:20:30", "took 22 s at 11:00:01"),
            (r"no file C:\data\one.csv", r"no file D:\other\two.csv"),
            ("object at 0x7f3a11c0", "object at 0x7f3a22d0"),
        ],
    )
    def test_what_differs_from_time_to_time_does_not_count(self, one, other):
        assert normalized(one) == normalized(other)

    @pytest.mark.parametrize(
        ("one", "other"), [("'amount'", "'price'"), ("no table orders", "no table customers")]
    )
    def test_words_count(self, one, other):
        assert normalized(one) != normalized(other)

    def test_the_project_can_say_what_else_does_not_count(self):
        shops = [re.compile(r"shop \w+")]
        assert normalized("shop north is shut", shops) == normalized("shop south is shut", shops)

    @given(st.text(max_size=200))
    def test_any_text_has_a_signature_that_stays(self, text):
        assert normalized(normalized(text)) == normalized(text)

    def test_failures_with_one_signature_are_one_incident_and_it_says_what_they_share(self):
        evidence = [
            raised("KeyError", "'amount'", 1, task_id="a"),
            raised("OSError", "row 1", 2),
            raised("KeyError", "'amount'", 3, task_id="b"),
        ]
        first, other = correlated(evidence)
        assert [each.id for each in first.failures] == ["f1", "f3"]
        assert first.shared == {"DAG": "d", "run": "r", "message": "'amount'"}
        assert [each.id for each in other.failures] == ["f2"]
        assert first.id == correlated(evidence[2:])[0].id != other.id


class TestRules:
    RULES = (
        Rule(category="transient", pattern=re.compile("ConnectionRefused"), confidence=0.9),
        Rule(category="bug", pattern=re.compile("^KeyError"), confidence=0.8),
    )

    def judged(self, *lines):
        [incident] = correlated([raised(*lines[0].split(": ", 1))])
        return judged(incident.model_copy(update={"lines": list(lines[1:])}), self.RULES)

    def test_the_rule_that_fits_says_the_category_and_the_lines(self):
        verdict = self.judged("KeyError: 'a'", "ValueError: b")
        assert (verdict.category, verdict.confidence, verdict.because) == ("bug", 0.8, ["KeyError: 'a'"])

    def test_rules_that_contradict_each_other_halve_the_confidence(self):
        verdict = self.judged("KeyError: 'a'", "ConnectionRefusedError: b")
        assert (verdict.category, verdict.confidence) == ("transient", 0.45)
        assert verdict.because == ["ConnectionRefusedError: b", "KeyError: 'a'"]

    def test_what_no_rule_knows_is_unknown(self):
        verdict = self.judged("BooksDifferError: by 1")
        assert (verdict.category, verdict.confidence) == (UNKNOWN, 0)
