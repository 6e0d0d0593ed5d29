from __future__ import annotations

import pytest

from airflow_agentic.config.flags import Flags
from airflow_agentic.config.project import assemble
from airflow_agentic.errors import ConfigurationError


@pytest.fixture
def flags():
    text = b"flags: {new-parser: true, old-parser: false, model: small, limit: 0, nothing: null}"
    return Flags(assemble([("agentic.yaml", text)]).flags)


def test_a_flag_is_on_or_off(flags):
    assert flags.enabled("new-parser") is True
    assert flags.enabled("old-parser") is False


def test_flags_are_a_map_of_values(flags):
    assert flags["model"] == "small"
    assert flags.get("limit") == 0
    assert flags.get("none", "else") == "else"
    assert list(flags) == ["new-parser", "old-parser", "model", "limit", "nothing"]
    assert ("model" in flags, len(flags)) == (True, 5)
    with pytest.raises(KeyError):
        flags["none"]


def test_a_flag_that_is_not_declared_is_no_flag_that_is_off(flags):
    with pytest.raises(ConfigurationError) as caught:
        flags.enabled("new-praser")
    text = "there is no flag 'new-praser': declare it under flags: (did you mean 'new-parser'?)"
    assert str(caught.value) == text


def test_without_a_near_one_none_is_suggested():
    with pytest.raises(ConfigurationError, match=r"'x': declare it under flags:$"):
        Flags().enabled("x")


@pytest.mark.parametrize("name", ["model", "limit", "nothing"])
def test_a_value_that_is_neither_true_nor_false_is_not_on_or_off(flags, name):
    with pytest.raises(ConfigurationError, match=f"flag '{name}' is .*, and was asked whether it is on"):
        flags.enabled(name)


def test_what_was_given_can_be_changed_without_changing_the_flags():
    values = {"a": True}
    flags = Flags(values)
    values["a"] = False
    assert flags.enabled("a") is True
