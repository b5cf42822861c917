"""An environment of your own: whoever gets it wrong may look again, for half the reward."""

from etude.tasks.answers import final_answer, same_answer


class SecondTry:
    """One instance is one episode. Two turns at most."""

    max_turns = 2

    def reset(self, task):
        self.task = task
        self.tries = 0
        return task.messages

    def step(self, text):
        """The answer to what the model wrote: messages, reward, done, and anything worth knowing."""
        self.tries += 1
        right = same_answer(final_answer(text), self.task.answer)
        if right or self.tries == 2:
            return [], right / self.tries, True, {"correct": float(right)}
        return "check and fix", 0.0, False
