"""The agent's side of the lines: one JSON object is written, and one is read for it. Standard output is for these alone; print to standard error."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
CONFIG = json.loads((HERE / "config.json").read_text())


def prompt(name):
    """A prompt from the folder `prompts`."""
    return (HERE / "prompts" / f"{name}.txt").read_text()


def wanted(**request):
    print(json.dumps(request), flush=True)
    line = sys.stdin.readline()
    return json.loads(line) if line else {"error": "the host has gone"}


def task():
    """What is to be done."""
    return wanted(want="task")["text"]


def ask(messages):
    """The model's answer to a conversation. Where it cannot be asked any more the work is handed in."""
    answer = wanted(want="model", messages=messages, stop=["</action>"])
    return answer.get("text", "submit")


def act(text):
    """What came of the action in a text, and whether the work is handed in now."""
    answer = wanted(want="action", text=text)
    return answer.get("text", answer.get("error")), answer.get("done", True)
