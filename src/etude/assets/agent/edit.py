"""Changing the agent's own code, which lies in the repository that the task speaks of, in the same way as solving a task."""

from host import CONFIG, act, ask, prompt


def edit(task):
    messages = [{"role": "system", "content": prompt("edit")}, {"role": "user", "content": task}]
    for _ in range(CONFIG["edit_turns"]):
        said = ask(messages)
        messages.append({"role": "assistant", "content": said})
        answer, done = act(said)
        if done:
            return
        messages.append({"role": "user", "content": answer})
    act("submit")
