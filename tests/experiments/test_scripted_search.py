"""The study of searches by scripted policies and values: the value of a chain, and what the numbers rest on."""

from __future__ import annotations

import pytest

from etude.experiments.scripted_search import Chains, NoisyValues, StudySettings, found, study
from etude.search.step_settings import StepSearchConfig


def test_a_chain_is_valued_by_its_right_beginning() -> None:
    chains = Chains(steps=4, modulus=5)
    assert [chains.value(errors) for errors in ([], [0], [0, 0], [0, 0, 0, 0])] == pytest.approx([0, 0.25, 0.5, 1])
    # 0.5 - 0.5 / 3, then 0.333 - 0.667 / 3; at the first step nothing can be lost.
    assert [chains.value(errors) for errors in ([0, 0, 2], [0, 0, 2, 0], [1, 0])] == pytest.approx([1 / 3, 1 / 9, 0])
    assert chains.ends_right([2, 3, 0, 0])
    assert not chains.ends_right([2, 2, 0, 0])
    assert not chains.ends_right([0, 0, 0])


def test_exact_values_find_faultless_chains_where_there_are_any() -> None:
    chains = Chains(steps=5, accuracy=0.7, spread=0.0)
    config = StepSearchConfig(search_tokens=60, branch=4, step_retries=0, roll_steps=0, max_steps=5)
    led = found("mcts", chains, NoisyValues(chains, 0.0, 0), config, questions=30, seed=0)
    # All four steps are wrong with probability 0.3 ** 4, at any of five places.
    assert sum(errors == [0] * 5 for errors in led) >= 27


def test_the_study_tells_search_from_whole_chains() -> None:
    findings = study(StudySettings(budgets=(60,), noises=(0.1,), lengths=(5,), explorations=(0.1,), questions=25))
    rows = {row[0]: [float(cell.rstrip(" %")) for cell in row[1:]] for row in findings.tables[0].rows}
    assert rows["60 steps, noise 0.1"][0] > rows["60 steps, noise 0.1"][2]
    assert rows["60 steps, values that mean nothing"][0] < 45
    assert [len(table.rows) for table in findings.tables] == [2, 1, 1]
