"""Serve a scripted coder for a bank of software tasks, as a chat endpoint on this machine: to try whole searches over real repositories before they cost anything.

    python scripts/serve_scripted_coder.py bank --right 0.25
    etude search se-agent --tasks repos:bank --model openai:scripted --base-url http://127.0.0.1:8017/v1

The script has the solutions. An attempt looks at the place, makes one of four edits (number 0 is the solution, the others change nothing that matters), runs the tests that it
can see, and hands in. Its summaries go by what those tests said, so that they are wrong where the tests see nothing; its guidance goes by the summaries. It shows that a
search runs and what it costs. It says nothing of how well a model does.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from etude.memory.attempt_summaries import SUMMARISE, Finding, Summary
from etude.models.scripted import Rule, ScriptedModel, Situation
from etude.search.attempt_operators import PROMPTS, Advice, Operator
from etude.tasks.repos.lessons import solution_actions
from etude.tasks.repos.micro import repository_tasks
from etude.tasks.repos.tasks import RepositoryTasks

IDEAS = 4
ADVICE = re.compile(r"(?m)^(keep|avoid): idea=(\d)")
ELSE = re.compile(r"(?m)^> Idea (\d)")
FINDING = re.compile(r"idea: idea=(\d) \((worked|failed)\)")


def solutions(tasks: RepositoryTasks) -> list[tuple[str, list[str]]]:
    """What each task is known by, and the turns that solve it. Tasks whose solution takes several edits are left out."""
    found = []
    for task in tasks.held_out():
        store, start = tasks.start_of(task)
        turns = solution_actions(store, start, tasks.instance(task).patch) or []
        if len(turns) == 4:
            found.append((task.prompt, turns))
    return found


def with_idea(turn: str, idea: int) -> str:
    """The edit of a solution, or one in its place that only adds a comment."""
    if idea:
        old = turn.partition("SEARCH\n")[2].partition("=======\n")[0]
        turn = f"{turn.partition('=======')[0]}=======\n{old.rstrip()}  # idea {idea}\n>>>>>>> REPLACE</action>"
    return f"Idea {idea}\n{turn}"


def acting(known: list[tuple[str, list[str]]], right: float) -> Callable[[Situation], str]:
    def answer(situation: Situation) -> str:
        asked = "\n".join(m.content for m in situation.messages if m.role == "user")
        turns = next((turns for prompt, turns in known if prompt in asked), None)
        made = sum(m.role == "assistant" for m in situation.messages)
        if turns is None:
            return "<action>submit</action>"
        if made != 1:
            return turns[min(made, 3)]
        system = next((m.content for m in situation.messages if m.role == "system"), "")
        advice = [(kind, int(idea)) for kind, idea in ADVICE.findall(system)]
        avoided = {idea for kind, idea in advice if kind == "avoid"} | {int(idea) for idea in ELSE.findall(system)}
        kept = [idea for kind, idea in advice if kind == "keep"]
        weights = {idea: right if idea == 0 else (1 - right) / (IDEAS - 1) for idea in range(IDEAS) if idea not in avoided} or {0: 1.0}
        idea = kept[0] if kept and situation.random.random() < 0.9 else situation.random.choices(list(weights), list(weights.values()))[0]
        return with_idea(turns[1], idea)

    return answer


def summarising(situation: Situation) -> str:
    log = situation.last
    ideas = [int(idea) for idea in re.findall(r"Idea (\d)", log)][:1]
    tests = "not run" if " passed" not in log and " failed" not in log else "failed" if re.search(r"\d+ (failed|error)", log) else "passed"
    findings = [Finding("idea", f"idea={idea}", tests == "passed") for idea in ideas]
    rating = {"passed": 0.8, "failed": 0.2, "not run": 0.4}[tests]
    return json.dumps(asdict(Summary("looked, edited, tested", [], [], "", [], ["view", "edit", "test"], "", [], [], findings, tests, rating, 0.5, 0.5, 0.5)))


def advising(operator: Operator) -> Callable[[Situation], str]:
    def answer(situation: Situation) -> str:
        lines = {f"{'keep' if worked == 'worked' else 'avoid'}: idea={idea}" for idea, worked in FINDING.findall(situation.last)}
        if operator == "revise":
            lines = {f"avoid: idea={idea}" for idea, _ in FINDING.findall(situation.last)}
        return json.dumps(asdict(Advice([], "\n".join(["Look at the place first.", *sorted(lines)]))))

    return answer


def scripted_coder(tasks: RepositoryTasks, right: float) -> ScriptedModel:
    known = solutions(tasks)
    print(f"{len(known)} of {len(tasks.held_out())} tasks have a solution of one edit", flush=True)
    rules = [
        Rule("summarise", lambda messages: messages[-1].content.startswith(SUMMARISE), summarising),
        *(Rule(name, lambda messages, text=text: messages[-1].content.startswith(text), advising(name)) for name, text in PROMPTS.items()),
        Rule("act", lambda messages: True, acting(known, right)),
    ]
    return ScriptedModel(rules, name="scripted")


def serve(model: ScriptedModel, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.respond(200, {"object": "list", "data": [{"id": model.name, "object": "model", "created": 0, "owned_by": "script"}]})

        def do_POST(self) -> None:
            self.respond(*model.completion(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def respond(self, status: int, answer: object) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", help="folder of a bank, as scripts/make_repo_bank.py makes it, or micro")
    parser.add_argument("--port", type=int, default=8017)
    parser.add_argument("--right", type=float, default=0.25, help="how often the edit of an attempt that nobody advised is the solution")
    given = parser.parse_args()
    tasks = repository_tasks(given.bank)
    server = serve(scripted_coder(tasks, given.right), given.port)
    print(f"http://127.0.0.1:{given.port}/v1 serves the model scripted; Ctrl-C ends it", flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
        tasks.close()


if __name__ == "__main__":
    main()
