from __future__ import annotations

import collections.abc
import sys
import uuid

import pytest

from airflow_agentic.config.loading import UnknownPath, load


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A package with two modules: one that can be imported, and one that cannot."""
    name = f"loaded_{uuid.uuid4().hex}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "good.py").write_text("class Outer:\n    class Inner:\n        value = 5\n    _hidden = 1\n")
    (folder / "bad.py").write_text("raise RuntimeError('not today')")
    (folder / "needy.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for known in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[known]


@pytest.mark.parametrize("separator", [":", "."])
def test_a_path_leads_to_code(separator, module):
    assert load(f"collections.abc{separator}Mapping") is collections.abc.Mapping
    assert load(f"{module}.good{separator}Outer").__name__ == "Outer"


def test_after_a_colon_the_attribute_may_have_dots(module):
    assert load(f"{module}.good:Outer.Inner.value") == 5


def test_without_a_colon_only_the_last_part_is_the_attribute(module):
    with pytest.raises(UnknownPath, match="cannot be imported"):
        load(f"{module}.good.Outer.Inner")


@pytest.mark.parametrize("path", ["", "word", ":Attribute", "module:", ".", "module."])
def test_what_is_no_path_is_told_what_to_write(path):
    with pytest.raises(UnknownPath, match=r"is no path; write package.module:Attribute"):
        load(path)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("{module}.good:Outr", "has no 'Outr'; did you mean 'Outer'?"),
        ("{module}.good:Outer.Iner", "has no 'Outer.Iner'; did you mean 'Inner'?"),
        ("{module}.bad:Outer", "cannot be imported: RuntimeError: not today"),
        ("{module}.needy:Outer", "No module named 'no_such_module_at_all'"),
        ("{module}.none:Outer", "cannot be imported"),
        (".good:Outer", "module '.good' cannot be imported"),
    ],
)
def test_a_path_that_leads_nowhere_says_how_far_it_led(path, text, module):
    with pytest.raises(UnknownPath) as caught:
        load(path.format(module=module))
    assert text in str(caught.value)


def test_what_is_private_is_not_suggested(module):
    with pytest.raises(UnknownPath) as caught:
        load(f"{module}.good:Outer._hiden")
    assert "did you mean" not in str(caught.value)


def test_the_fault_of_the_module_is_kept(module):
    with pytest.raises(UnknownPath) as caught:
        load(f"{module}.bad:Outer")
    assert isinstance(caught.value.__cause__, RuntimeError)
