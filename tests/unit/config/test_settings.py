from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import timedelta
from typing import get_args, get_type_hints

import pytest

from airflow_agentic.config import model
from airflow_agentic.config.options import OPTIONS, OVERFLOW, SECTION, config_section
from airflow_agentic.config.settings import Settings
from airflow_agentic.errors import InvalidOption
from airflow_agentic.messaging import BusOptions
from airflow_agentic.messaging.ports import Overflow

TYPES = {"string": str, "integer": int, "float": float, "boolean": bool}
NUMBERS = [option for option in OPTIONS if option.type in ("integer", "float")]
CHOICES = [option for option in OPTIONS if option.choices]


class TestTable:
    def test_every_option_is_a_field_of_the_settings_with_its_type_and_default(self):
        hints = get_type_hints(Settings)
        fields = {f.name: (hints[f.name], f.default) for f in dataclasses.fields(Settings)}
        assert fields == {option.key: (TYPES[option.type], option.default) for option in OPTIONS}
        assert all(type(option.default) is TYPES[option.type] for option in OPTIONS)

    def test_the_defaults_are_those_of_the_bus(self):
        settings, bus = Settings(), BusOptions()
        assert settings.lease == bus.lease
        assert settings.max_attempts == bus.max_attempts
        assert settings.max_message_bytes == bus.max_message_bytes
        assert timedelta(seconds=settings.retry_base_seconds) == bus.retry_base
        assert timedelta(seconds=settings.retry_max_seconds) == bus.retry_max
        assert timedelta(seconds=settings.poll_seconds) == bus.poll
        assert timedelta(seconds=settings.request_timeout_seconds) == bus.request_timeout
        assert timedelta(seconds=settings.heartbeat_seconds) == bus.heartbeat
        assert timedelta(seconds=settings.dedup_window_seconds) == bus.dedup_window
        assert timedelta(seconds=settings.block_seconds) == bus.block
        assert settings.claim_check_bytes == bus.claim_check_bytes
        assert settings.mailbox_limit == bus.mailbox_limit
        assert settings.mailbox_overflow == bus.overflow

    def test_what_can_happen_to_a_message_too_many_is_the_same_everywhere(self):
        assert OVERFLOW == get_args(Overflow) == get_args(model.Overflow)

    @pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
    def test_default_and_example_can_be_set(self, option):
        assert getattr(Settings.parse({option.key: str(option.default)}), option.key) == option.default
        assert option.example is not None
        Settings.parse({option.key: option.example})

    @pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
    def test_every_option_says_what_it_does(self, option):
        assert option.text.endswith(".")
        assert option.key == option.key.lower()

    def test_airflow_is_given_the_whole_table_in_its_own_form(self):
        section = config_section("1.2.3")[SECTION]
        assert set(section["options"]) == {option.key for option in OPTIONS}
        for option in OPTIONS:
            entry = section["options"][option.key]
            assert entry["default"] == str(option.default)
            assert (entry["type"], entry["version_added"]) == (option.type, "1.2.3")
            assert option.text in entry["description"]

    def test_the_table_needs_only_the_standard_library(self):
        code = (
            "import sys; before = set(sys.modules); import airflow_agentic.config.options; "
            "new = {m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names); "
            "sys.exit(str(new) if new != {'airflow_agentic'} else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class TestParse:
    def test_nothing_gives_the_defaults(self):
        assert Settings.parse({}) == Settings()
        assert Settings.parse(dict.fromkeys((o.key for o in OPTIONS), None)) == Settings()
        assert Settings.parse({option.key: "" for option in OPTIONS}) == Settings()

    def test_strings_and_numbers_become_what_the_option_is(self):
        settings = Settings.parse(
            {"store_url": "memory://", "lease_seconds": "2.5", "max_attempts": "7", "poll_seconds": 1}
        )
        assert settings == Settings(
            store_url="memory://", lease_seconds=2.5, max_attempts=7, poll_seconds=1.0
        )
        assert type(settings.max_attempts) is int
        assert type(settings.poll_seconds) is float
        assert settings.lease == timedelta(seconds=2.5)

    def test_all_faults_are_named_at_once_with_the_value_and_where_to_set_it(self):
        with pytest.raises(InvalidOption) as caught:
            Settings.parse({"lease_seconds": "soon", "max_attempts": "0", "poll_seconds": "1"})
        text = str(caught.value)
        assert "[agentic] lease_seconds = 'soon': " in text
        assert "[agentic] max_attempts = '0': must be at least 1" in text
        assert "poll_seconds" not in text
        assert "AIRFLOW__AGENTIC__<KEY>" in text

    @pytest.mark.parametrize("option", NUMBERS, ids=lambda option: option.key)
    def test_a_number_has_a_least_value(self, option):
        assert option.minimum is not None
        Settings.parse(
            {option.key: str(option.minimum)} if option.type == "float" else {option.key: int(option.minimum)}
        )
        with pytest.raises(InvalidOption, match=f"{option.key}.*must be at least"):
            Settings.parse({option.key: option.minimum - 1})

    @pytest.mark.parametrize("option", NUMBERS, ids=lambda option: option.key)
    @pytest.mark.parametrize("raw", ["many", "1,5", "nan", "inf", "-inf", "1e999", True, [1]])
    def test_what_is_no_usable_number_is_refused(self, option, raw):
        with pytest.raises(InvalidOption, match=option.key):
            Settings.parse({option.key: raw})

    def test_an_integer_has_no_fraction(self):
        with pytest.raises(InvalidOption, match="must be a whole number"):
            Settings.parse({"max_attempts": "2.5"})
        assert Settings.parse({"max_attempts": "3.0"}).max_attempts == 3

    @pytest.mark.parametrize("option", CHOICES, ids=lambda option: option.key)
    def test_what_is_no_choice_is_refused_with_all_there_are(self, option):
        for choice in option.choices:
            assert getattr(Settings.parse({option.key: choice}), option.key) == choice
        with pytest.raises(InvalidOption) as caught:
            Settings.parse({option.key: "Drop"})
        assert f"{option.key} = 'Drop': must be one of {', '.join(option.choices)}." in str(caught.value)

    def test_the_first_delay_cannot_be_longer_than_the_longest(self):
        with pytest.raises(
            InvalidOption, match="retry_base_seconds = 9: must not be more than retry_max_seconds"
        ):
            Settings.parse({"retry_base_seconds": "9", "retry_max_seconds": "8.5"})
        # What is left out may be said elsewhere.
        assert Settings.parse({"retry_base_seconds": "900"}).retry_base_seconds == 900
        with pytest.raises(InvalidOption) as caught:
            Settings.parse({"retry_base_seconds": "9", "retry_max_seconds": "soon"})
        assert "must not be more" not in str(caught.value)

    def test_settings_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Settings().max_attempts = 1
