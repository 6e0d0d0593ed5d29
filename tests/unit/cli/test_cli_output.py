from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_agentic.cli import output


@given(st.text())
def test_cleaned_text_is_one_line_without_control_characters(text: str) -> None:
    cleaned = output.clean(text)

    assert not [c for c in cleaned if unicodedata.category(c) in ("Cc", "Cs")]
    assert len(cleaned.splitlines()) <= 1


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b2Jgone", "gone"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\r\nb\tc", "a b c"),
        ("abc\u202egnp.exe", "abcgnp.exe"),
        ("\x1b]0;never ended, must stay visible", "0;never ended, must stay visible"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("Grüße, 你好, 👨\u200d👩\u200d👧", "Grüße, 你好, 👨\u200d👩\u200d👧"),
    ],
)
def test_text_cannot_steer_the_terminal(hostile: str, harmless: str) -> None:
    assert output.clean(hostile) == harmless


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3_605, "1 h"),
        (7_500, "2 h 5 min"),
        (86_400 * 3 + 3_600 * 4 + 59, "3 d 4 h"),
    ],
)
def test_a_length_of_time_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert output.span(seconds) == text


def test_times_are_shown_in_utc() -> None:
    moment = datetime(2026, 3, 1, 1, 2, 3, 456_000, tzinfo=timezone(timedelta(hours=2)))

    assert output.iso(moment) == "2026-02-28T23:02:03Z"
    assert output.exact(moment) == "2026-02-28T23:02:03.456Z"
    assert datetime.fromisoformat(output.exact(moment)) == moment.astimezone(UTC)


def test_an_error_is_cut_in_the_middle_where_it_says_least() -> None:
    text = output.shorten_middle("InvalidTask: the task " + "x" * 100 + " name: Field required", 50)

    assert len(text) == 50
    assert text.startswith("InvalidTask: the task")
    assert text.endswith("name: Field required")


@pytest.mark.parametrize("form", ["table", "plain"])
def test_markup_and_escapes_in_cells_are_shown_as_text(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.listing(form, [], [{"id": "1e5", "text": "[red]x[/red] [/nope] :smile: \x1b[31m"}])

    shown = capsys.readouterr().out
    assert "[red]x[/red] [/nope] :smile:" in shown
    assert "1e5" in shown
    assert "\x1b" not in shown


def test_plain_columns_are_aligned_by_what_a_terminal_shows(capsys: pytest.CaptureFixture[str]) -> None:
    output.listing("plain", [], [{"a": "你好", "b": 1}, {"a": "x", "b": "007"}])

    assert capsys.readouterr().out == "a     b\n你好  1\nx     007\n"


@pytest.mark.parametrize("form", ["table", "plain"])
def test_an_empty_list_says_so_to_people(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.listing(form, [], [])

    assert capsys.readouterr().out == "No data found\n"


def test_an_empty_list_is_empty_json_and_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    output.listing("json", [], [])
    output.listing("yaml", [], [])

    assert capsys.readouterr().out == "[]\n[]\n"


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_programs_get_the_values_as_they_are(
    form: str, read: object, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [
        {"n": 1, "rate": 0.5, "yes": True, "none": None, "text": "\x1b[31m no\nGrüße", "date": "2026-01-01"}
    ]

    output.listing(form, data, [])

    shown = capsys.readouterr().out
    assert read(shown) == data  # type: ignore[operator]
    assert "\x1b" not in shown
