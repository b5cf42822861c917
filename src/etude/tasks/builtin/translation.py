"""`translation`: between two invented languages, Tavi and Zomu, with different words, word order and affixes. A parser decides whether the meaning is exact."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.types import Task

NOUNS = ("fox", "owl", "fish", "child", "boat", "stone")
VERBS = ("see", "carry", "follow", "find")
QUALITIES = ("old", "red", "small", "quiet")


@dataclass(frozen=True)
class Phrase:
    """A noun with its number and, perhaps, a quality."""

    noun: str
    plural: bool
    quality: str | None


@dataclass(frozen=True)
class Meaning:
    """Who does what to whom, now or in the past."""

    subject: Phrase
    verb: str
    object: Phrase
    past: bool


@dataclass(frozen=True)
class Language:
    """A lexicon and a small grammar.

    plural, past: affixes with their hyphen; one that ends in a hyphen goes before the word, one that starts with it goes behind.
    order: sentence order as letters of S, V, O. quality_first: whether a quality stands before its noun.
    """

    name: str
    lexicon: dict[str, str]
    plural: str
    past: str
    order: str
    quality_first: bool

    def say(self, meaning: Meaning) -> str:
        """The sentence that has this meaning."""
        parts = {"S": self._phrase(meaning.subject), "V": [_affixed(self.lexicon[meaning.verb], self.past, meaning.past)], "O": self._phrase(meaning.object)}
        return " ".join(word for role in self.order for word in parts[role])

    def read(self, sentence: str) -> Meaning | None:
        """The meaning of a sentence, or None where it breaks the grammar."""
        words = sentence.lower().split()
        stems = {word: meaning for meaning, word in self.lexicon.items()}
        phrases: list[Phrase] = []
        verb: tuple[str, bool] | None = None
        roles = ""
        while words:
            stem, past = _stripped(words[0], self.past)
            if stems.get(stem) in VERBS:
                verb, roles = (stems[stem], past), roles + "V"
                del words[0]
                continue
            phrase, used = self._read_phrase(words, stems)
            if phrase is None:
                return None
            phrases.append(phrase)
            roles += "N"
            del words[:used]
        if verb is None or len(phrases) != 2 or roles != self.order.replace("S", "N").replace("O", "N"):
            return None
        subject_first = self.order.index("S") < self.order.index("O")
        subject, object_ = phrases if subject_first else reversed(phrases)
        return Meaning(subject, verb[0], object_, verb[1])

    def _phrase(self, phrase: Phrase) -> list[str]:
        noun = _affixed(self.lexicon[phrase.noun], self.plural, phrase.plural)
        if phrase.quality is None:
            return [noun]
        quality = self.lexicon[phrase.quality]
        return [quality, noun] if self.quality_first else [noun, quality]

    def _read_phrase(self, words: list[str], stems: dict[str, str]) -> tuple[Phrase | None, int]:
        """A noun phrase at the start of `words`, and how many words it takes."""
        first = stems.get(words[0])
        second = stems.get(words[1]) if len(words) > 1 else None
        if self.quality_first and first in QUALITIES and len(words) > 1:
            phrase, _ = self._noun(words[1], stems, first)
            return phrase, 2
        if not self.quality_first and second in QUALITIES:
            phrase, _ = self._noun(words[0], stems, second)
            return phrase, 2
        return self._noun(words[0], stems, None)

    def _noun(self, word: str, stems: dict[str, str], quality: str | None) -> tuple[Phrase | None, int]:
        stem, plural = _stripped(word, self.plural)
        noun = stems.get(stem)
        return (Phrase(noun, plural, quality), 1) if noun in NOUNS else (None, 1)


TAVI = Language(
    name="tavi",
    lexicon=dict(
        zip(
            NOUNS + VERBS + QUALITIES,
            ["rudo", "beki", "lasha", "mifo", "tarn", "gosu", "vel", "hani", "drok", "suli", "opa", "yeni", "wuk", "flim"],
            strict=True,
        ),
    ),
    plural="-en",
    past="-ak",
    order="SVO",
    quality_first=True,
)
ZOMU = Language(
    name="zomu",
    lexicon=dict(
        zip(
            NOUNS + VERBS + QUALITIES,
            ["chim", "paro", "welt", "ziba", "nuko", "frez", "ibo", "quan", "merl", "jath", "zel", "rond", "gip", "tolu"],
            strict=True,
        ),
    ),
    plural="u-",
    past="ka-",
    order="VOS",
    quality_first=False,
)
LANGUAGES = {language.name: language for language in (TAVI, ZOMU)}


class Translation(GeneratedTaskSet):
    """'to zomu: yeni rudo-en vel beki' -> 'answer: ibo paro u-chim rond'. Right when the parsed meaning is exactly the task's.

    qualities: chance that a noun has one, in [0, 1].
    """

    name = "translation"
    max_new_tokens = 24
    instruction = "Translate between the invented languages tavi and zomu. End with a line 'answer: SENTENCE'."

    def __init__(self, *, qualities: float = 0.5, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if not 0 <= qualities <= 1:
            raise InputError(f"qualities is {qualities}; expected a chance in [0, 1]")
        self.qualities = qualities

    def draw(self, random: Random) -> Problem:
        subject, object_ = (self._phrase(noun, random) for noun in random.sample(NOUNS, 2))
        meaning = Meaning(subject, random.choice(VERBS), object_, random.random() < 0.5)
        source, target = random.sample((TAVI, ZOMU), 2)
        sentence = source.say(meaning)
        # Both directions of one meaning share a key: a held-out meaning is never seen in training in either.
        info = {"to": target.name, "source": sentence, "source_language": source.name, "target_language": target.name}
        return Problem(key=f"translation {TAVI.say(meaning)}", prompt=f"to {target.name}: {sentence}", answer=target.say(meaning), info=info)

    def judge(self, task: Task, answer: str) -> bool:
        target = LANGUAGES[task.info["to"]]
        return target.read(answer) == target.read(task.answer or "")

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        target = LANGUAGES[task.info["to"]]
        return [], self.slipped(task.answer or "", target, random, slips)

    def slipped(self, sentence: str, language: Language, random: Random, rate: float) -> str:
        """A sentence in which each word goes wrong with probability `rate`, and two neighbours change places with half of that."""
        words = sentence.split()
        if random.random() < rate / 2:
            place = random.randrange(len(words) - 1)
            words[place], words[place + 1] = words[place + 1], words[place]
        return " ".join(self._slipped(word, language, random) if random.random() < rate else word for word in words)

    def _phrase(self, noun: str, random: Random) -> Phrase:
        return Phrase(noun, random.random() < 0.5, random.choice(QUALITIES) if random.random() < self.qualities else None)

    def _slipped(self, word: str, language: Language, random: Random) -> str:
        """A word with its affix lost or added, or another word of its kind."""
        stems = {w: meaning for meaning, w in language.lexicon.items()}
        for affix, kind in ((language.plural, NOUNS), (language.past, VERBS)):
            stem, has = _stripped(word, affix)
            if stems.get(stem) in kind:
                if random.random() < 0.5:
                    return _affixed(stem, affix, not has)
                other = random.choice([k for k in kind if language.lexicon[k] != stem])
                return _affixed(language.lexicon[other], affix, has)
        return language.lexicon[random.choice([q for q in QUALITIES if language.lexicon[q] != word])]


def _affixed(stem: str, affix: str, wanted: bool) -> str:
    if not wanted:
        return stem
    return affix + stem if affix.endswith("-") else stem + affix


def _stripped(word: str, affix: str) -> tuple[str, bool]:
    """The word without the affix, and whether it had it."""
    bare = word.removeprefix(affix) if affix.endswith("-") else word.removesuffix(affix)
    return bare, bare != word
