"""A reward of your own: a right answer is worth 1, showing the work a little more."""

from etude.tasks.answers import final_answer, same_answer


def score(task, text):
    """Called for every attempt. Returns a number, or named numbers that are logged apart and added up."""
    right = same_answer(final_answer(text), task.answer)
    worked = "=" in text
    return {"right": 1.0 if right else 0.0, "work": 0.1 if worked else 0.0}
