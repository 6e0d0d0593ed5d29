from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, Field

from airflow_agentic.config.references import (
    CONNECTION_FIELDS,
    MalformedReference,
    Reference,
    Resolved,
    has_reference,
    parse,
    references_in,
)
from airflow_agentic.errors import UnresolvedReference

# No letter of it is in a reference or a key below.
SECRETS = st.text(alphabet="0123456789QWZ§ß€ ", min_size=4, max_size=20)


class Book:
    """Where references lead: a map of their texts."""

    def __init__(self, **leads):
        self.leads = {
            f"${{{scheme}:{name}}}": value for scheme, named in leads.items() for name, value in named.items()
        }
        self.asked = []

    def resolve(self, reference):
        self.asked.append(reference.text)
        if reference.text not in self.leads:
            raise UnresolvedReference(f"{reference.text} leads nowhere")
        return self.leads[reference.text]


def resolved(declared, **leads):
    return Resolved(declared, Book(**leads))


class TestReading:
    @pytest.mark.parametrize(
        ("body", "reference"),
        [
            ("env:HOME", Reference("${env:HOME}", "env", "HOME")),
            ("var:a.b:c", Reference("${var:a.b:c}", "var", "a.b:c")),
            ("conn:db.password", Reference("${conn:db.password}", "conn", "db", "password")),
            ("conn:my.db.host", Reference("${conn:my.db.host}", "conn", "my.db", "host")),
            ("conn:db.extra.key", Reference("${conn:db.extra.key}", "conn", "db", "extra", "key")),
            ("conn:db.extra.a.b", Reference("${conn:db.extra.a.b}", "conn", "db", "extra", "a.b")),
        ],
    )
    def test_a_reference_has_a_scheme_a_name_and_a_field_of_a_connection(self, body, reference):
        assert parse(body) == reference

    @pytest.mark.parametrize("field", [field for field in CONNECTION_FIELDS if field != "extra"])
    def test_every_field_of_a_connection_but_extra_stands_without_a_key(self, field):
        assert parse(f"conn:db.{field}").field == field
        with pytest.raises(MalformedReference, match="names no field"):
            parse(f"conn:db.{field}.key")

    @pytest.mark.parametrize(
        ("body", "message", "suggestion"),
        [
            ("HOME", "${HOME} is no reference", "write ${env:NAME}"),
            ("", "${} is no reference", "write ${env:NAME}"),
            ("evn:HOME", "${evn:…} is no kind of reference", "did you mean 'env'?"),
            ("vault:x", "${vault:…} is no kind of reference", "write ${env:NAME}"),
            ("env:", "${env:} names nothing", "write ${env:NAME}"),
            ("var: ", "${var:} names nothing", "write ${env:NAME}"),
            ("conn:db", "names no field of a connection", "host, port, login, password, schema"),
            ("conn:db.pasword", "names no field of a connection", "host, port, login, password, schema"),
            ("conn:db.extra", "names no field of a connection", "${conn:id.extra.key}"),
        ],
    )
    def test_what_is_no_reference_is_refused_with_what_to_write(self, body, message, suggestion):
        with pytest.raises(MalformedReference) as caught:
            parse(body)
        assert message in str(caught.value)
        assert suggestion in caught.value.suggestion

    def test_references_are_found_in_their_order_and_escapes_are_none(self):
        found = references_in("a ${env:A}-$${env:B}-${var:c} $d {e} $")
        assert [one.text for one in found] == ["${env:A}", "${var:c}"]

    @pytest.mark.parametrize("text", ["${env:A", "a ${", "${env:A} and ${var:b"])
    def test_a_reference_is_closed(self, text):
        with pytest.raises(MalformedReference, match="not closed"):
            references_in(text)

    @pytest.mark.parametrize(
        "value", ["${env:A}", "x${env:A", ["a", {"b": "${var:c}"}], ("${var:c}",), "$$${{${env:A}"]
    )
    def test_a_reference_is_seen_however_deep(self, value):
        assert has_reference(value)

    @pytest.mark.parametrize(
        "value", ["$${env:A}", "$A {b} $", "", 3, None, ["a", {"${env:A}": 1}], "$$${{x}"]
    )
    def test_what_is_escaped_or_a_key_is_no_reference(self, value):
        assert not has_reference(value)


class TestResolving:
    def test_references_are_replaced_wherever_they_stand(self):
        declared = {
            "url": "http://${var:user}:${env:PW}@h",
            "list": ["${var:user}", {"deep": "${env:PW}"}],
            "n": 3,
        }
        values = resolved(declared, var={"user": "ann"}, env={"PW": "hunter2"}).values
        assert values == {"url": "http://ann:hunter2@h", "list": ["ann", {"deep": "hunter2"}], "n": 3}

    @pytest.mark.parametrize(
        ("declared", "value"),
        [
            ("$${env:A}", "${env:A}"),
            ("$${", "${"),
            ("a$${b}c", "a${b}c"),
            ("$${delete}", "${delete}"),
            ("$5 {x}", "$5 {x}"),
        ],
    )
    def test_an_escape_stands_for_the_text_itself(self, declared, value):
        assert resolved(declared).values == value

    def test_what_a_reference_leads_to_is_not_read_for_references(self):
        book = Book(var={"a": "${var:b}", "b": "no"})
        assert Resolved("${var:a}", book).values == "${var:b}"
        assert book.asked == ["${var:a}"]

    def test_keys_are_not_resolved(self):
        assert resolved({"${env:A}": 1}).values == {"${env:A}": 1}

    @pytest.mark.parametrize("declared", ["${env:NOT_SET}", ["x", {"y": "a ${env:NOT_SET}"}]])
    def test_a_reference_that_leads_nowhere_is_an_error_that_names_it(self, declared):
        with pytest.raises(UnresolvedReference, match=r"\$\{env:NOT_SET\} leads nowhere"):
            resolved(declared, env={"OTHER": "x"})

    @pytest.mark.parametrize("declared", ["${evn:A}", "${HOME}", "${env:A", "${conn:a.b}"])
    def test_what_is_no_reference_is_an_error_that_says_what_to_write(self, declared):
        with pytest.raises(UnresolvedReference) as caught:
            resolved(declared, env={"A": "x"})
        assert "write ${" in str(caught.value) or "did you mean" in str(caught.value)

    def test_without_a_resolver_there_is_nothing_to_hide(self):
        assert Resolved.nothing().hide({"a": "text"}) == {"a": "text"}
        assert Resolved.nothing().hide_text("text") == "text"


class Server(BaseModel):
    port: int = Field(alias="tcp_port")
    ratio: float = 1.0
    url: AnyUrl | None = None
    header: str = ""
    words: list[str] = []
    on: bool = False


class TestHiding:
    def test_a_reference_comes_back_though_the_model_made_a_number_of_it(self):
        found = resolved(
            {"tcp_port": "${env:PORT}", "ratio": "${env:RATIO}"}, env={"PORT": "5432", "RATIO": "0.25"}
        )
        dumped = Server(**found.values).model_dump(mode="json", by_alias=True)
        assert dumped["tcp_port"] == 5432
        hidden = found.hide(dumped)
        assert (hidden["tcp_port"], hidden["ratio"]) == ("${env:PORT}", "${env:RATIO}")

    def test_a_number_comes_back_though_the_field_has_another_name_than_the_key(self):
        found = resolved({"tcp_port": "${env:PORT}"}, env={"PORT": "05432"})
        dumped = Server(**found.values).model_dump(mode="json")
        assert found.hide(dumped)["port"] == "${env:PORT}"

    def test_short_values_are_hidden_by_their_place_alone(self):
        found = resolved({"tcp_port": "${env:PORT}", "on": "${env:ON}"}, env={"PORT": "80", "ON": "1"})
        hidden = found.hide({"tcp_port": 80, "on": True, "other": 80, "text": "80 1"})
        assert hidden == {"tcp_port": "${env:PORT}", "on": "${env:ON}", "other": 80, "text": "80 1"}

    def test_a_value_that_the_model_moved_or_put_into_another_is_hidden(self):
        found = resolved({"token": "${var:x}", "header": "Bearer ${var:x}"}, var={"x": "hunter2"})
        assert found.values == {"token": "hunter2", "header": "Bearer hunter2"}
        dumped = {
            "header": "Bearer hunter2",
            "made": {"url": "http://u:hunter2@h", "hunter2": ["a", "hunter2"]},
        }
        assert found.hide(dumped) == {
            "header": "Bearer ${var:x}",
            "made": {"url": "http://u:${var:x}@h", "${var:x}": ["a", "${var:x}"]},
        }

    def test_a_value_that_the_model_normalised_is_hidden_by_its_place(self):
        found = resolved({"url": "${var:url}", "tcp_port": 1}, var={"url": "HTTP://User:Pw@Example.com"})
        dumped = Server(**found.values).model_dump(mode="json", by_alias=True)
        assert "example.com" in dumped["url"]
        assert found.hide(dumped)["url"] == "${var:url}"

    def test_a_list_that_the_model_lengthened_or_sorted_is_hidden(self):
        found = resolved({"words": ["z", "${var:x}"]}, var={"x": "hunter2"})
        assert found.hide({"words": ["first", "z", "hunter2"]}) == {"words": ["first", "z", "${var:x}"]}
        assert "hunter2" not in json.dumps(found.hide({"words": ["hunter2", "z"]}))

    def test_a_text_that_the_model_made_a_map_of_is_hidden_by_its_place(self):
        found = resolved({"options": "${var:json}"}, var={"json": '{"k": "v"}'})
        assert found.hide({"options": {"k": "v"}}) == {"options": "${var:json}"}

    def test_nothing_else_is_changed(self):
        values = {"a": 1, "b": [True, None, 2.5, "text"], "c": {"d": "${env:A}"}}
        assert resolved({"x": "${var:x}"}, var={"x": "hunter2"}).hide(values) == values

    def test_truth_is_no_number_that_was_moved(self):
        found = resolved({"x": "${var:x}"}, var={"x": "0001"})
        assert found.hide({"y": True, "z": 1}) == {"y": True, "z": "${var:x}"}

    def test_a_secret_that_is_a_part_of_another_or_of_a_reference_does_not_spoil_it(self):
        found = resolved(
            ["${var:long}", "${var:short}", "${var:odd}"],
            var={"long": "hunter2-long", "short": "hunter2", "odd": "{var"},
        )
        assert found.hide_text("hunter2 hunter2-long {var") == "${var:short} ${var:long} ${var:odd}"

    @given(SECRETS, SECRETS, st.text(max_size=5), st.text(max_size=5))
    def test_no_text_that_is_hidden_shows_what_a_reference_leads_to(self, one, two, before, after):
        found = resolved({"a": "${var:one}", "b": ["x ${env:two} y"]}, var={"one": one}, env={"two": two})
        for secret, other in ((one, two), (two, one)):
            text = f"{before}{secret}{after}"
            hidden = found.hide_text(text)
            assert secret not in hidden or secret in f"{before}{after}"
            shown = json.dumps(
                found.hide({"moved": secret, "list": [f"x {secret}"], secret: other}), ensure_ascii=False
            )
            assert json.dumps(secret, ensure_ascii=False).strip('"') not in shown

    @given(SECRETS)
    def test_hiding_the_resolved_values_gives_back_what_is_declared(self, secret):
        declared = {"a": "${var:x}", "b": ["p ${var:x}", {"c": "${var:x}${env:E}"}], "d": True, "e": "plain"}
        found = resolved(declared, var={"x": secret}, env={"E": "k"})
        assert found.hide(found.values) == declared
