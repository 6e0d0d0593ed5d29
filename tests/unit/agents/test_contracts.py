from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from airflow_agentic.agents.contracts import Contract
from airflow_agentic.errors import InvalidResult, InvalidTask

SECRET = "hunter2"


class Card(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["card"]
    number: int
    when: dt.date


class Cash(BaseModel):
    kind: Literal["cash"]
    amount: int


Payment = Annotated[Card | Cash, Field(discriminator="kind")]


class Unserialisable:
    pass


def refusal(input_type, task):
    with pytest.raises(InvalidTask) as caught:
        Contract("payer", input_type, Any).task(task)
    return str(caught.value)


class TestTask:
    def test_a_task_becomes_what_the_agent_declares(self):
        contract = Contract("payer", Payment, Any)
        card = contract.task({"kind": "card", "number": 1, "when": "2030-01-31"})
        assert card == Card(kind="card", number=1, when=dt.date(2030, 1, 31))

    def test_every_field_that_does_not_fit_is_named_and_what_is_wrong_with_it(self):
        text = refusal(Card, {"kind": "card", "number": SECRET, "colour": SECRET})
        assert text.endswith("(the task does not fit the input model of agent 'payer')")
        assert "number: Input should be a valid integer" in text
        assert "when: Field required" in text
        assert "colour: Extra inputs are not permitted" in text

    def test_a_long_list_of_faults_is_cut_and_counted(self):
        text = refusal(list[int], ["x"] * 9)
        assert "4: Input should be a valid integer" in text
        assert "and 4 more" in text
        assert "5:" not in text

    @pytest.mark.parametrize(
        ("input_type", "task"),
        [
            (int, SECRET),
            (Literal["a", "b"], SECRET),
            (Payment, {"kind": SECRET}),
            (list[Payment], [{"kind": SECRET}]),
            (uuid.UUID, SECRET),
            (dt.datetime, SECRET),
            (Annotated[str, Field(pattern="^[0-9]+$")], SECRET),
            (Annotated[str, Field(max_length=3)], SECRET),
            (dict[str, int], {"key": SECRET}),
            (Card | None, SECRET),
            (Card, SECRET),
            (tuple[int, int], [SECRET]),
        ],
        ids=str,
    )
    def test_the_values_are_not_repeated_for_they_may_be_secret(self, input_type, task):
        assert SECRET not in refusal(input_type, task)

    def test_a_tag_that_is_not_known_is_told_with_those_that_are(self):
        assert "the tag 'kind' is none of 'card', 'cash'" in refusal(Payment, {"kind": SECRET})

    def test_the_positions_of_wrong_items_in_a_list_are_told(self):
        with pytest.raises(InvalidTask) as caught:
            Contract("payer", list[Card], Any).task(
                [{"kind": "card", "number": 1, "when": "2030-01-01"}, {}, 5]
            )
        assert caught.value.positions == {1, 2}

    @pytest.mark.parametrize(("input_type", "task"), [(list[int], "no list"), (Card, {}), (int, [])])
    def test_a_fault_of_the_whole_has_no_positions(self, input_type, task):
        with pytest.raises(InvalidTask) as caught:
            Contract("payer", input_type, Any).task(task)
        assert caught.value.positions == frozenset()


class TestResult:
    def test_a_result_is_written_as_json(self):
        contract = Contract("payer", Any, Card)
        card = contract.result({"kind": "card", "number": 1, "when": "2030-01-31"})
        assert contract.to_json(card) == {"kind": "card", "number": 1, "when": "2030-01-31"}

    def test_a_result_that_does_not_fit_is_refused_with_its_fields_and_without_its_values(self):
        with pytest.raises(
            InvalidResult, match=r"agent 'payer' returned a dict that does not fit.*number"
        ) as caught:
            Contract("payer", Any, Card).result({"kind": "card", "number": SECRET})
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        ("result", "place"),
        [
            (Unserialisable(), "Unserialisable"),
            ({"a": [Unserialisable()]}, "Unserialisable"),
            (b"\xff", "utf-8"),
            ({"k": "\ud800"}, r"result\['k'\] has half a surrogate pair"),
        ],
        ids=["object", "inside", "bytes", "surrogate"],
    )
    def test_a_result_that_is_not_json_is_refused(self, result, place):
        contract = Contract("payer", Any, Any)
        with pytest.raises(InvalidResult, match=f"returned something that is not JSON: .*{place}"):
            contract.to_json(contract.result(result))

    def test_a_number_that_json_does_not_have_is_refused(self):
        contract = Contract("payer", Any, dict[str, float])
        with pytest.raises(InvalidResult, match=r"result\['price'\] is nan, which JSON does not have"):
            contract.to_json(contract.result({"price": float("nan")}))

    def test_a_result_that_contains_itself_is_refused(self):
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(InvalidResult):
            Contract("payer", Any, Any).to_json(loop)

    def test_no_result_is_a_result(self):
        assert Contract("payer", Any, Any).to_json(None) is None


class TestSchema:
    def test_both_sides_have_a_schema(self):
        contract = Contract("payer", list[int], Card)
        assert contract.input_schema() == {"type": "array", "items": {"type": "integer"}}
        assert contract.output_schema()["required"] == ["kind", "number", "when"]

    def test_a_type_without_a_schema_is_no_fault(self):
        class Odd(BaseModel):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            thing: Unserialisable

        assert Contract("payer", Odd, Any).input_schema() == {}
