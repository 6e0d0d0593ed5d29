"""The folder of incidents: nothing is taken twice, no ticket is opened twice, and people may change them."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from incident_book import IncidentBook, report_of, report_text
from incident_causes import correlated, judged
from incident_models import Choice, Decision, Evidence, Failure, Intake, Raised, SetAside


def failure(number=1, **fields):
    about = {"dag_id": "d", "run_id": "r", "task_id": f"t{number}", "try_number": 1, "state": "failed"}
    return Failure(**{"id": f"f{number}", **about, **fields})


def verdict(*failures, lines=()):
    evidence = [
        Evidence(failure=each, raised=Raised(type="KeyError", message="'amount'"), lines=list(lines), link="http://log")
        for each in failures
    ]  # fmt: skip
    [incident] = correlated(evidence)
    return judged(incident, [])


@pytest.fixture
def book(tmp_path):
    return IncidentBook(str(tmp_path))


class TestIntake:
    def test_a_run_keeps_what_came_to_it(self, book):
        aside = SetAside(id="s1", what="a message", why="it tells nothing")
        assert book.claim("one", Intake(failures=[failure(1)], set_aside=[aside])).failures == [failure(1)]
        # Cleared, it finds an empty mailbox.
        assert book.claim("one", Intake()) == Intake(failures=[failure(1)], set_aside=[aside])
        assert book.intake("one").set_aside == [aside]

    def test_done_twice_it_is_there_once(self, book):
        for _ in range(2):
            assert book.claim("one", Intake(failures=[failure(1)])).failures == [failure(1)]

    def test_what_one_run_has_no_other_run_gets(self, book):
        book.claim("one", Intake(failures=[failure(1)]))
        assert book.claim("two", Intake(failures=[failure(1), failure(2)])).failures == [failure(2)]
        assert book.intake("one").failures == [failure(1)]

    def test_runs_at_the_same_time_share_out_what_both_got(self, book):
        came, threads = Intake(failures=[failure(number) for number in range(20)]), []
        for run in ("one", "two", "three"):
            threads.append(threading.Thread(target=book.claim, args=(run, came)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        taken = [each.id for run in ("one", "two", "three") for each in book.intake(run).failures]
        assert sorted(taken) == sorted(each.id for each in came.failures)

    def test_names_that_look_alike_as_files_are_different_runs(self, book):
        book.claim("a:b", Intake(failures=[failure(1)]))
        assert book.intake("a+b") == Intake()

    def test_nothing_came_and_nothing_is_written(self, book):
        assert book.claim("one", Intake()) == Intake()
        assert not (book.folder / "runs").exists()


def test_a_failure_counts_once_as_a_retry(book):
    assert [book.count_retry("i", failure(1)) for _ in range(2)] == [1, 1]
    again = failure(1, id="f9", try_number=2)
    assert book.count_retry("i", again) == 2
    assert book.retries("i", [failure(1), failure(2)]) == 2
    assert book.retries("i", [failure(2)]) == book.retries("other", [again]) == 0


SAID = {"action": "retry", "by": "a person", "why": "x"}


class TestQuestions:
    def until(self, seconds):
        return datetime.now(UTC) + timedelta(seconds=seconds)

    def test_one_asks_and_the_others_hear_of_it(self, book):
        assert [book.ask("i", "one", self.until(60)) for _ in range(2)] == [None, None]
        assert book.ask("i", "two", self.until(60)) == "one"
        assert book.ask("other", "two", self.until(60)) is None
        assert book.heard("i", "one") == (False, None)
        book.tell("i", "one", SAID)
        assert book.heard("i", "one") == (True, SAID)
        assert book.ask("i", "two", self.until(60)) is None

    def test_nobody_waits_for_one_who_is_gone(self, book):
        book.ask("i", "one", self.until(-1))
        assert book.heard("i", "one") == (True, None)
        assert book.ask("i", "two", self.until(60)) is None
        assert book.heard("i", "nobody") == (True, None)


class TestTickets:
    def test_it_names_all_tasks_and_quotes_the_log(self, book):
        file = book.write_ticket(verdict(failure(1), failure(2), lines=["KeyError: 'amount'"]), "a bug")
        text = book.open_ticket(verdict(failure(1)).incident.id).read_text()
        assert file.endswith(".md")
        assert "# KeyError: 'amount'" in text
        assert "    KeyError: 'amount'" in text
        assert text.count("- `d/r/t1, try 1` ([log](http://log))") == 1
        assert text.count("- `d/r/t2, try 1`") == 1
        assert "| all have the same run | `r` |" in text

    def test_written_again_it_says_nothing_twice(self, book):
        file = Path(book.write_ticket(verdict(failure(1)), "a bug"))
        before = file.read_text()
        book.write_ticket(verdict(failure(1)), "a bug")
        assert file.read_text() == before

    def test_the_same_cause_is_added_to_the_open_ticket_whatever_a_person_wrote_into_it(self, book):
        incident = verdict(failure(1)).incident.id
        book.write_ticket(verdict(failure(1)), "a bug")
        ticket = book.open_ticket(incident)
        ticket.write_text("Ana looks after it.\n" + ticket.read_text())
        book.write_ticket(verdict(failure(2)), "a bug")
        lines = ticket.read_text().splitlines(keepends=True)
        ticket.write_text("".join(line for line in lines if "above this line" not in line))
        book.write_ticket(verdict(failure(1), failure(3)), "a bug")
        text = ticket.read_text()
        assert text.startswith("Ana looks after it.")
        assert [text.count(f"d/r/t{number}, try 1") for number in (1, 2, 3)] == [1, 1, 1]
        assert list(ticket.parent.iterdir()) == [ticket]

    def test_a_ticket_that_was_moved_away_is_done(self, book):
        incident = verdict(failure(1)).incident.id
        book.write_ticket(verdict(failure(1)), "a bug")
        book.open_ticket(incident).unlink()
        assert book.open_ticket(incident) is None
        book.write_ticket(verdict(failure(2)), "a bug")
        assert "t1" not in book.open_ticket(incident).read_text()


def decision(*failures, **fields):
    about = {
        "incident": "i",
        "raised": Raised(type="KeyError", message="a | b"),
        "category": "bug",
        "why": "x",
    }
    return Decision(
        **about, confidence=0.9, choice=Choice.IGNORE, by="rules", failures=list(failures),
        outcomes={each.id: "ignored" for each in failures}, **fields,
    )  # fmt: skip


class TestReport:
    def test_it_adds_up_if_each_failure_was_decided_once(self):
        intake = Intake(failures=[failure(1), failure(2)], set_aside=[SetAside(id="s", what="w", why="y")])
        assert report_of("run", intake, [decision(failure(1)), decision(failure(2))])["adds_up"]
        assert not report_of("run", intake, [decision(failure(1))])["adds_up"]
        assert not report_of("run", intake, [decision(failure(1)), decision(failure(1), failure(2))])[
            "adds_up"
        ]

    def test_people_read_the_same(self):
        intake = Intake(failures=[failure(1)], set_aside=[SetAside(id="s", what="w", why="y")])
        text = report_text(intake, [decision(failure(1))], report_of("run", intake, [decision(failure(1))]))
        assert "Messages: 2. Incidents: 1. Set aside: 1." in text
        assert r"| KeyError: a \| b | bug (90%) | 1 | ignore by rules | x |" in text
        assert "- `d/r/t1, try 1`: ignored" in text
        assert "- w: y" in text
