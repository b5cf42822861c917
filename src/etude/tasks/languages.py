"""Which language a text is in, where that can be told without a model: by its script, and for the invented languages by its words."""

from __future__ import annotations

import unicodedata
from collections import Counter

from etude.tasks.builtin.translation import LANGUAGES

_SCRIPTS = {
    "CJK": ("chinese", "mandarin", "cantonese", "zh"),
    "KANA": ("japanese", "ja"),
    "HANGUL": ("korean", "ko"),
    "CYRILLIC": ("russian", "ukrainian", "bulgarian", "belarusian", "macedonian", "ru", "uk", "bg", "be", "mk"),
    "ARABIC": ("arabic", "persian", "farsi", "urdu", "ar", "fa", "ur"),
    "HEBREW": ("hebrew", "yiddish", "he", "yi"),
    "GREEK": ("greek", "el"),
    "DEVANAGARI": ("hindi", "marathi", "nepali", "hi", "mr", "ne"),
    "BENGALI": ("bengali", "bangla", "assamese", "bn", "as"),
    "TAMIL": ("tamil", "ta"),
    "TELUGU": ("telugu", "te"),
    "THAI": ("thai", "th"),
    "GEORGIAN": ("georgian", "ka"),
    "ARMENIAN": ("armenian", "hy"),
    "LATIN": (
        *(
            "english",
            "german",
            "french",
            "spanish",
            "italian",
            "portuguese",
            "dutch",
            "swedish",
            "danish",
            "norwegian",
            "finnish",
            "icelandic",
            "polish",
            "czech",
        ),
        *(
            "slovak",
            "hungarian",
            "romanian",
            "turkish",
            "vietnamese",
            "indonesian",
            "malay",
            "swahili",
            "catalan",
            "estonian",
            "latvian",
            "lithuanian",
            "croatian",
        ),
        *("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "fi", "is", "pl", "cs", "sk", "hu", "ro", "tr", "vi", "id", "ms", "sw", "ca", "et", "lv"),
        *("lt", "hr"),
    ),
}
_SCRIPT_OF = {language: script for script, languages in _SCRIPTS.items() for language in languages}
_UNSPACED = frozenset({"CJK", "KANA", "THAI"})
FEWEST_LETTERS = 3
"""Of a text with fewer letters nothing is said: it may be a number, or a name."""


def in_language(text: str, language: str) -> bool | None:
    """Whether most of a text can be in a language. None where it cannot be told: an unknown language, or hardly any letters.

    language: a name ('German') or a code ('de', 'zh-CN'). Real languages are told by script alone, so that German passes for English. Japanese may be written
    without kana, so that Han characters alone pass for it. In the invented languages more than half of the words have to be known.
    """
    name = language.strip().lower()
    if name in LANGUAGES:
        stems = set(LANGUAGES[name].lexicon.values())
        words = text.lower().split()
        affixes = (LANGUAGES[name].plural, LANGUAGES[name].past)
        return 2 * sum(_stem(word, affixes) in stems for word in words) > len(words) if words else None
    wanted = _SCRIPT_OF.get(name) or _SCRIPT_OF.get(name.replace("_", "-").split("-")[0])
    scripts = Counter(script for c in text if c.isalpha() and (script := script_of(c)) is not None)
    if wanted is None or scripts.total() < FEWEST_LETTERS:
        return None
    fitting = scripts[wanted] + (scripts["CJK"] if wanted == "KANA" else 0)
    return 2 * fitting > scripts.total()


def pieces(text: str) -> list[str]:
    """The words of a text, or its characters where it is written without spaces."""
    words = text.split()
    return words if len(words) != 1 or script_of(words[0][0]) not in _UNSPACED else list(words[0])


def script_of(letter: str) -> str | None:
    """The script of a letter, as the first word of its Unicode name; hiragana and katakana are KANA. None for one without a name."""
    name = unicodedata.name(letter, "")
    first = name.split(" ")[0].split("-")[0]
    return ("KANA" if first in ("HIRAGANA", "KATAKANA") else first) or None


def _stem(word: str, affixes: tuple[str, ...]) -> str:
    for affix in affixes:
        word = word.removeprefix(affix) if affix.endswith("-") else word.removesuffix(affix)
    return word
