"""Episodes by models that only give texts back: turns, environments, and where an episode ends."""

from __future__ import annotations

from etude.ledger import Ledger
from etude.models.sampling import SamplingParams
from etude.models.scripted import Rule, ScriptedModel, prompt_tokens
from etude.rollouts.conversing import respond_episodes
from etude.rollouts.guided import Guided, guided, guided_request
from etude.tasks.decisions import Decisions
from etude.types import Message


def test_episodes_end_with_the_environment_with_the_turns_or_with_the_context() -> None:
    world = Decisions(cases=2, seed=1)
    tasks, ledger = Guided(world), Ledger()
    requests = [guided_request(task, "keep: file=3", sample=0, stream=i) for i, task in enumerate(tasks.held_out())]

    def play(model: ScriptedModel, turns: int) -> list[str]:
        played = respond_episodes(model, requests, tasks, SamplingParams(40), max_turns=turns, ledger=ledger)
        # The last turn is the model's: what an environment says after the end is in no log.
        assert all(trajectory.segments[-1].author == "policy" for trajectory in played if trajectory.stop_reason == "environment")
        return [f"{trajectory.stop_reason} {sum(s.author == 'policy' for s in trajectory.segments)}" for trajectory in played]

    assert play(world.model(), 6) == ["environment 5"] * 2
    assert ledger.environment_steps == 10
    assert play(world.model(), 2) == ["length 2"] * 2
    room = prompt_tokens(guided(requests[0].task.opening, "keep: file=3"))
    narrow = ScriptedModel([Rule("act", lambda messages: True, lambda situation: "file=3")], context_length=room + 20)
    assert play(narrow, 6) == ["length 1"] * 2


def test_guidance_goes_behind_what_a_system_message_says_already() -> None:
    question = Message("user", "Mend it.")
    assert guided([question], "") == (question,)
    assert guided([question], "Look first.") == (Message("system", "Look first."), question)
    assert guided([Message("system", "Be short."), question], "Look first.") == (Message("system", "Be short.\n\nLook first."), question)
