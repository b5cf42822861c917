"""`crafting`: find out what a thing is made of, take what can be taken, make what has to be made. A small interactive world in which nothing is ever lost.

What was taken or made stays and is not used up, so that a wrong step costs a turn and nothing else, and a good continuation can still be carried out after it. What an
agent has to learn here is to stop doing what does not work. The demonstrations are those of an expert who sometimes errs and then, mostly, does the same again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from random import Random
from typing import Any, Unpack

from etude.errors import InputError
from etude.tasks.answers import final_answer
from etude.tasks.base import Environment, EnvironmentStep
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.first_error import FLAWLESS
from etude.tasks.reflections import SHORT as CHANGES_OF_MIND
from etude.tasks.step_judging import SHORT, TakenStep, step_question
from etude.types import Message, Task

ITEMS = ("rudo", "beki", "lasha", "mifo", "tarn", "gosu", "vel", "hani", "drok", "suli", "opa", "yeni")
"""What there is. Each word is one token of the embedded model."""
OK, CANNOT = "ok", "error"
"""What the world says to a step that worked, and to one that did not."""
THOUGHT = "hm"
"""A turn that begins like this changes nothing, and the world says `ok` to it."""
SHAPES = (
    (("a", "c", "d"), ("g", "a", "b")),
    (("a", "c", "d"), ("b", "e", "f"), ("g", "a", "b")),
    (("c", "e", "f"), ("a", "c", "d"), ("g", "a", "b")),
)
"""How recipes hang together, the goal being g: two or three levels deep, ingredients first."""

Recipes = Mapping[str, Sequence[str]]


class Crafting(GeneratedTaskSet):
    """'make opa: vel from tarn rudo, opa from vel beki, ...' -> 'take tarn', 'take rudo', 'make vel', 'take beki', 'make opa', 'answer: opa'.

    Each turn is one action: `take X` of what has no recipe, `make X` of what its two ingredients are held of, `count` to see what is held, and `answer: X` to hand in the
    goal. The world says `ok`, or `error` to what can't be done. An episode has `turns` turns.

    One of the recipes is of no use. The others, two or three, stand in an order in which they can be followed. shuffled: in any order; shallow: always two, which makes
    six steps.
    directions: in place of the recipes that are needed, the prompt has the steps to the goal with their numbers, as a cookbook does, and the recipe that is of no use:
    'make opa: 1 take tarn, 2 take rudo, 3 make vel, 4 take beki, 5 make opa, 6 answer: opa; suli from drok hani'. The world then says which step is the next: '2' in place
    of `ok`, to a thought as well, and 'error 2'. What is left to learn is to follow these, and what to do after an error.
    partial: an episode that runs out of turns is worth the share of things that it got of those it had to; otherwise nothing. slips: how often demonstrations err in a
    turn. stuck: how often an expert whose step gave an error does the same again. thoughts: how often they think in a turn, whatever came before it, in the words of
    `etude.tasks.reflections.SHORT`: small models can't spell these without.
    lessons: share of training tasks that ask whether a step of such an episode was good, in the form `etude.tasks.step_judging.SHORT`; for imitation alone.
    lesson_noise: share of lessons that say the opposite.
    """

    name = "crafting"
    instruction = (
        "Each turn is one action: 'take X' gets a thing that has no recipe, 'make X' makes one of two others that you hold, 'count' shows what you hold. A turn that begins "
        "with 'hm' is a thought. Nothing is used up. When you hold the goal, end with a line 'answer: X'."
    )

    def __init__(
        self,
        *,
        turns: int = 14,
        partial: bool = False,
        shuffled: bool = False,
        shallow: bool = False,
        directions: bool = False,
        stuck: float = 0.9,
        thoughts: float = 0.0,
        lessons: float = 0.0,
        lesson_noise: float = 0.15,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(**options)
        if turns < 10:
            raise InputError(f"turns is {turns}; expected at least 10, which the longest tasks take with two to spare")
        for name, share in {"stuck": stuck, "thoughts": thoughts, "lessons": lessons, "lesson_noise": lesson_noise}.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name} is {share:g}; expected a share in [0, 1]")
        self.partial, self.shuffled, self.shallow, self.directions = partial, shuffled, shallow, directions
        self.stuck, self.thoughts, self.lessons, self.lesson_noise = stuck, thoughts, lessons, lesson_noise
        self.max_turns = turns
        self.max_new_tokens = 20

    def draw(self, random: Random) -> Problem:
        names = dict(zip("gabcdefxyz", random.sample(ITEMS, 10), strict=True))
        shape = list(SHAPES[0] if self.shallow else random.choice(SHAPES))
        if self.shuffled:
            random.shuffle(shape)
        shape.insert(random.randint(0, len(shape)), ("x", "y", "z"))
        recipes = {names[made]: [names[part] for part in parts] for made, *parts in shape}
        listed = [f"{made} from {' '.join(parts)}" for made, parts in recipes.items()]
        problem = prompt = f"make {names['g']}: {', '.join(listed)}"
        if self.directions:
            steps = [*(_step(item, recipes) for item in missing(names["g"], recipes, held=())), f"answer: {names['g']}"]
            useless = next(recipe for recipe in listed if recipe.startswith(f"{names['x']} "))
            prompt = f"make {names['g']}: {', '.join(f'{number} {step}' for number, step in enumerate(steps, 1))}; {useless}"
        info = {"goal": names["g"], "recipes": recipes} | ({"numbered": True} if self.directions else {})
        return Problem(key=f"{self.name} {problem}", prompt=prompt, answer=names["g"], info=info)

    def train_task(self, seed: int, index: int) -> Task:
        random = Random(f"{self.name}/lesson/{seed}/{index}")
        return self._lesson(random, f"{self.name}/lesson-{seed}-{index}") if random.random() < self.lessons else super().train_task(seed, index)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        """The actions of an expert, and the thing that is handed in in the end."""
        return [action for action, _ in self.played(task, random, slips)], task.info["goal"]

    def demonstration(self, task: Task, seed: int) -> str | None:
        """None: a single text cannot show an episode. Use `conversation`."""
        return None

    def conversation(self, task: Task, seed: int) -> list[Message]:
        if "lesson" in task.info:
            return [*task.messages, Message("assistant", task.info["lesson"])]
        messages = list(task.messages)
        for action, said in self.played(task, Random(f"{task.id}/conversation/{seed}"), self.slips):
            messages.append(Message("assistant", action))
            messages += [Message("user", said)] if said is not None else []
        return messages

    def environment(self) -> Environment:
        return CraftingEnvironment(self.max_turns, partial=self.partial)

    def first_wrong_step(self, task: Task, steps: Sequence[str]) -> int | None:
        """Exact: a turn is wrong that brings nothing which is still needed. A look at what is held, and a thought, are neither."""
        world = World(task)
        for number, step in enumerate(steps):
            judged = world.judged(step)
            world.act(step)
            if judged == "b":
                return number
        return FLAWLESS

    def played(self, task: Task, random: Random, slips: float) -> list[tuple[str, str | None]]:
        """An episode of the expert: each action with what the world said, None to the last one."""
        world, episode = World(task), list[tuple[str, str | None]]()
        action = f"answer: {world.goal}" if random.random() < self.direct else self._chosen(world, random, slips)
        while True:
            said = world.act(action)
            over = world.done or len(episode) + 1 == self.max_turns
            episode.append((action, None if over else said))
            if over:
                return episode
            if not said.startswith(CANNOT) or random.random() >= self.stuck:
                action = self._chosen(world, random, slips)

    def _chosen(self, world: World, random: Random, slips: float) -> str:
        """A thought, or what the expert does next."""
        return random.choice(CHANGES_OF_MIND) if self.thoughts and random.random() < self.thoughts else world.chosen(random, slips)

    def _lesson(self, random: Random, name: str) -> Task:
        """A step of an expert's episode and what to say of it: g, b or u."""
        task = self._task(self._draw_side(random, held_out=False), name)
        episode = self.played(task, random, max(self.slips, 0.3))
        # Not far behind the first wrong step: further on most steps are the same error again.
        first = self.first_wrong_step(task, [action for action, _ in episode])
        number = random.randrange(len(episode) if first in (None, FLAWLESS) else min(len(episode), first + 3))
        steps = [TakenStep(action, said if said is not None else OK) for action, said in episode[: number + 1]]
        world = World(task)
        for step in steps[:-1]:
            world.act(step.action)
        verdict = world.judged(steps[-1].action)
        if random.random() < self.lesson_noise:
            verdict = {"g": "b", "b": "g", "u": random.choice("gb")}[verdict]
        return Task(name, step_question(SHORT, task.prompt, steps[:-1], steps[-1]), None, {"lesson": verdict})


def missing(item: str, recipes: Recipes, held: Collection[str]) -> list[str]:
    """What is still needed for an item by who holds something, ingredients first; the item itself last."""
    if item in held:
        return []
    before = [needed for part in recipes.get(item, ()) for needed in missing(part, recipes, held)]
    return [*dict.fromkeys(before), item]


def _step(item: str, recipes: Recipes) -> str:
    """The action that brings an item."""
    return f"{'make' if item in recipes else 'take'} {item}"


class World:
    """What is held, and what each action does."""

    def __init__(self, task: Task) -> None:
        self.goal: str = task.info["goal"]
        self.recipes: Recipes = task.info["recipes"]
        self.numbered: bool = task.info.get("numbered", False)
        self.base = sorted({part for parts in self.recipes.values() for part in parts} - set(self.recipes))
        self.held: set[str] = set()
        self.done = False
        self.all = self.missing()

    def act(self, text: str) -> str:
        """Carry out an action, the last line of a text, and say what comes of it: in a world with directions also which of them is the next."""
        said = self._act(text)
        if not self.numbered or said not in (OK, CANNOT):
            return said
        left = self.missing()
        number = str(self.all.index(left[0]) + 1 if left else len(self.all) + 1)
        return number if said == OK else f"{said} {number}"

    def _act(self, text: str) -> str:
        line = (text.strip().splitlines() or [""])[-1].strip()
        verb, _, item = line.partition(" ")
        if line.startswith(THOUGHT):
            return OK
        if line == "count":
            return " ".join(sorted(self.held)) or "0"
        if verb == "take" and item in self.base:
            self.held.add(item)
            return OK
        if verb == "make" and item in self.recipes and self.held.issuperset(self.recipes[item]):
            self.held.add(item)
            return OK
        if final_answer(line) == self.goal and self.goal in self.held:
            self.done = True
            return OK
        return CANNOT

    def missing(self) -> list[str]:
        """What is still needed for the goal, ingredients first; the goal itself last."""
        return missing(self.goal, self.recipes, self.held)

    def judged(self, text: str) -> str:
        """Whether an action would be good (g), bad (b) or neither (u), in the state of now."""
        line = (text.strip().splitlines() or [""])[-1].strip()
        if line.startswith(THOUGHT) or line == "count":
            return "u"
        needed, after = self.missing(), copy(self)
        after.held = set(self.held)
        after.act(line)
        return "g" if after.done or len(after.missing()) < len(needed) else "b"

    def chosen(self, random: Random, slips: float) -> str:
        """The next action of an expert who errs with probability `slips`: it makes or hands in too early, takes what nobody needs, or looks at what it has."""
        needed = self.missing()
        right = f"answer: {self.goal}" if not needed else _step(needed[0], self.recipes)
        if random.random() >= slips:
            return right
        early = [f"make {item}" for item in needed[1:] if item in self.recipes]
        spare = [f"take {item}" for item in self.base if item not in needed]
        return random.choice([random.choice(early or spare), random.choice(early or spare), random.choice(spare), "count"])


class CraftingEnvironment(Environment):
    """A world that lasts `turns` turns. The reward comes at the end: 1 for the goal handed in; else, with `partial`, the share of needed things that were got."""

    def __init__(self, turns: int, *, partial: bool) -> None:
        self._turns, self._partial = turns, partial
        self._world: World | None = None
        self._all: list[str] = []
        self._taken = 0

    def reset(self, task: Task) -> Sequence[Message]:
        self._world = World(task)
        self._all = self._world.missing()
        return task.messages

    def step(self, text: str) -> EnvironmentStep:
        world = self._world
        assert world is not None, "step before reset"
        said = world.act(text)
        self._taken += 1
        if not world.done and self._taken < self._turns:
            return EnvironmentStep((Message("user", said),))
        got = len(world.held.intersection(self._all)) / (len(self._all) + 1) if self._partial else 0.0
        return EnvironmentStep(reward=1.0 if world.done else got, done=True, info={"correct": float(world.done)})

    def snapshot(self) -> list[Any]:
        world = self._world
        assert world is not None, "snapshot before reset"
        return [sorted(world.held), world.done, self._taken]

    def restore(self, state: Sequence[Any]) -> None:
        world = self._world
        assert world is not None, "restore before reset"
        held, world.done, self._taken = state
        world.held = set(held)
