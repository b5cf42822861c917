import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.ledger import FORWARD, FORWARD_BACKWARD, Budget, Ledger

counts = st.integers(0, 10**9)
ledgers = st.builds(
    Ledger,
    generated_tokens=counts,
    judged_tokens=counts,
    environment_steps=counts,
    model_calls=st.dictionaries(st.sampled_from(["policy", "judge", "proposer"]), st.integers(1, 1000)),
    decode_steps=counts,
    evaluation_tokens=counts,
)


@given(ledgers)
def test_round_trip_through_json(ledger: Ledger) -> None:
    assert Ledger.from_plain(json.loads(json.dumps(ledger.to_plain()))) == ledger


@given(ledgers, ledgers)
def test_difference_undoes_addition(a: Ledger, b: Ledger) -> None:
    assert (a + b) - b == a
    assert a + b == b + a


def test_a_copy_and_a_plain_form_do_not_share_the_calls() -> None:
    ledger = Ledger()
    ledger.count_call("judge")
    copy, values = ledger.copy(), ledger.to_plain()
    again = Ledger.from_plain(values)
    ledger.count_call("judge", 2)
    assert (copy.calls, values["model_calls"], again.calls, ledger.calls) == (1, {"judge": 1}, 1, 3)


def test_restore_keeps_the_object_that_others_count_into() -> None:
    ledger, held = Ledger(generated_tokens=5), Ledger()
    held = ledger
    ledger.restore(Ledger(rollouts=3, model_calls={"policy": 1}))
    held.count_call("policy")
    assert ledger == Ledger(rollouts=3, model_calls={"policy": 2})


def test_plain_values_of_another_version_are_read() -> None:
    assert Ledger.from_plain({"rollouts": 2, "not_known_here": 1}) == Ledger(rollouts=2)


def test_evaluation_is_set_apart() -> None:
    ledger = Ledger(
        generated_tokens=100,
        judged_tokens=10,
        rollouts=4,
        seconds=2.0,
        evaluation_tokens=7,
        model_calls={"policy": 4},
        forward_equivalents=50 * FORWARD_BACKWARD,
    )
    before = ledger.copy()
    ledger.generated_tokens += 30
    ledger.judged_tokens += 5
    ledger.rollouts += 2
    ledger.seconds += 0.5
    ledger.forward_equivalents += 35 * FORWARD
    ledger.count_call("policy", 2)
    ledger.set_apart_evaluation(before)
    expected = before.copy()
    expected.evaluation_tokens = 7 + 30 + 5
    expected.evaluation_rollouts = 2
    expected.evaluation_seconds = 0.5
    assert ledger == expected


SPENT = Ledger(
    generated_tokens=150_000,
    judged_tokens=50_000,
    prompt_tokens=10**9,
    rollouts=500,
    steps=5,
    seconds=30.0,
    environment_steps=40,
    model_calls={"policy": 6, "judge": 2},
    evaluation_tokens=10**9,
    evaluation_seconds=1e6,
    decode_steps=700,
)


@pytest.mark.parametrize(
    ("text", "amount", "unit", "spent"),
    [
        ("400k-tokens", 400_000, "tokens", 0.5),
        ("2M-tokens", 2_000_000, "tokens", 0.1),
        ("1.5M-tokens", 1_500_000, "tokens", 200_000 / 1_500_000),
        ("1G-tokens", 1_000_000_000, "tokens", 0.0002),
        ("1K-rollouts", 1000, "rollouts", 0.5),
        ("50-steps", 50, "steps", 0.1),
        ("1-step", 1, "steps", 5.0),
        ("120-seconds", 120, "seconds", 0.25),
        ("2-minutes", 2, "minutes", 0.25),
        ("5k-env-steps", 5000, "env-steps", 0.008),
        (" 80-calls ", 80, "calls", 0.1),
        ("1k-decode-steps", 1000, "decode-steps", 0.7),
    ],
)
def test_budgets_are_read_and_measured(text: str, amount: float, unit: str, spent: float) -> None:
    budget = Budget.parse(text)
    assert budget == Budget(amount, unit)
    assert budget.spent(SPENT) == pytest.approx(spent)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "400k", "tokens", "-5-tokens", "400 k-tokens", "1e6-tokens", "2m", "1.-tokens", "k-tokens", "2T-tokens"])
def test_an_unreadable_budget_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError, match="400k-tokens"):
        Budget.parse(text)


def test_an_unknown_unit_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unit 'token-s'.*Did you mean tokens"):
        Budget.parse("400k-token-s")


def test_an_empty_budget_is_refused() -> None:
    with pytest.raises(InputError, match="more than 0"):
        Budget.parse("0-steps")


def test_a_budget_prints_as_it_is_written() -> None:
    assert [str(Budget.parse(t)) for t in ("400k-tokens", "1.5M-tokens", "90-seconds")] == ["400k-tokens", "1.5M-tokens", "90-seconds"]
