"""Solving a task: the model says what to do next and sees what came of it, until it submits or its turns are used up."""

from host import CONFIG, act, ask, prompt


def solve(task):
    messages = [{"role": "system", "content": prompt("solve")}, {"role": "user", "content": task}]
    for _ in range(CONFIG["solve_turns"]):
        said = ask(messages)
        messages.append({"role": "assistant", "content": said})
        answer, done = act(said)
        if done:
            return
        messages.append({"role": "user", "content": answer})
    act("submit")
