"""Small functions that micro-repositories are made of (`micro.py`), each with calls whose results are known from the function itself."""

from __future__ import annotations

CALLS: dict[str, tuple[str, ...]] = {
    "clamp": ("5, 0, 3", "-2, 0, 3", "2, 0, 3", "3, 0, 3", "0, 0, 3", "7, 7, 9", "10, -1, 1", "-9, -8, -7"),
    "count_vowels": ("'banana'", "'sky'", "'Aeolian'", "''", "'rhythm and blues'", "'OUI'", "'queue'", "'x'"),
    "running_total": ("[1, 2, 3]", "[5]", "[-1, 1, -1]", "[]", "[0, 0, 4]", "[10, 20, 30, 40]", "[2, -2]", "[7, 7]"),
    "is_leap_year": ("1900", "2000", "2024", "2023", "2100", "2400", "1996", "1999"),
    "collatz_steps": ("1", "6", "7", "2", "27", "3", "16", "9"),
    "second_largest": ("[3, 1, 2]", "[5, 5, 4]", "[1]", "[]", "[2, 2]", "[9, 8, 9, 7]", "[-1, -5, -3]", "[0, 10]"),
    "compress": ("'aaab'", "'abc'", "''", "'zzzz'", "'aabbb'", "'a'", "'abba'", "'xxyx'"),
    "seconds_of": ("'1:00'", "'0:59'", "'2:05:10'", "'10'", "'0:00:01'", "'1:1:1'", "'59:59'", "'100:00'"),
    "chunks": ("[1, 2, 3, 4, 5], 2", "[1, 2], 3", "[], 2", "[1, 2, 3], 1", "[1, 2, 3, 4], 2", "[7], 1", "[1, 2, 3], 3", "[0, 0, 0, 1], 3"),
    "balanced": ("'(())'", "'(()'", "')('", "''", "'()()'", "'(a)b'", "'())('", "'((x)'"),
    "digit_sum": ("123", "0", "9999", "-45", "10", "7", "808", "-100"),
    "middle": ("[3, 1, 2]", "[4, 1, 3, 2]", "[5]", "[1, 2]", "[9, 7, 8, 6, 5]", "[2, 2, 2]", "[10, 0]", "[1, 100, 50]"),
    "caesar": ("'abc', 1", "'xyz', 3", "'Hi you', 2", "'', 5", "'z', 1", "'a-b', 25", "'abc', 0", "'mno', 13"),
    "longest_run": ("[1, 1, 2]", "[1, 2, 3]", "[]", "[4, 4, 4]", "[1, 2, 2, 2, 3, 3]", "[0]", "[5, 5, 6, 6, 6]", "[1, 1, 2, 1, 1, 1, 1]"),
    "change_for": ("67", "0", "5", "3", "99", "10", "25", "41"),
    "title_case": ("'the old man'", "'a tale of two cities'", "''", "'of mice'", "'man of the year'", "'one'", "'the the'", "'war and peace'"),
    "overlap": (
        "(1, 5), (3, 9)",
        "(1, 2), (3, 4)",
        "(0, 10), (2, 3)",
        "(5, 9), (1, 6)",
        "(1, 3), (3, 5)",
        "(0, 1), (0, 1)",
        "(-5, -1), (-3, 2)",
        "(4, 8), (6, 7)",
    ),
    "grade": ("95", "90", "72", "80", "60", "59", "100", "0"),
    "rotate": ("[1, 2, 3, 4], 1", "[1, 2, 3], 3", "[], 2", "[1, 2, 3], 4", "[1, 2, 3, 4], -1", "[5], 9", "[1, 2], 1", "[1, 2, 3, 4, 5], 2"),
    "gcd_of": ("12, 18", "7, 3", "0, 5", "100, 75", "9, 9", "17, 51", "8, 0", "21, 14"),
    "shipping": ("0.5, False", "1.0, False", "3.0, True", "10.0, False", "12.5, True", "5.0, False", "5.5, False", "1.0, True"),
    "initials": ("'ada lovelace'", "'grace brewster hopper'", "''", "'plato'", "'  alan   turing '", "'a b c d'", "'x y'", "'mary ann evans'"),
    "merge_sorted": ("[1, 3], [2, 4]", "[], [1]", "[1, 1], [1]", "[5, 6], [1, 2]", "[], []", "[1, 9], [2, 3, 10]", "[0], [0]", "[-3, 2], [-1]"),
    "roman": ("4", "9", "14", "40", "1994", "3", "58", "400"),
}
"""Arguments of calls by function: the first three are tests that anybody sees, the others decide."""


def clamp(value, low, high):
    """The value, but no less than low and no more than high."""
    if value < low:
        return low
    if value > high:
        return high
    return value


def count_vowels(text):
    """How many vowels a text has, in either case."""
    count = 0
    for letter in text.lower():
        if letter in "aeiou":
            count = count + 1
    return count


def running_total(numbers):
    """The sum of all numbers up to each place."""
    totals, total = [], 0
    for number in numbers:
        total = total + number
        totals.append(total)
    return totals


def is_leap_year(year):
    """Whether a year of the Gregorian calendar has 366 days."""
    if year % 400 == 0:
        return True
    if year % 100 == 0:
        return False
    return year % 4 == 0


def collatz_steps(number):
    """Steps of halving (even) or tripling and adding one (odd) until 1 is reached."""
    steps = 0
    while number != 1 and steps < 1000:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps = steps + 1
    return steps


def second_largest(numbers):
    """The second largest of the different numbers, None where there are fewer than two."""
    different = sorted(set(numbers))
    if len(different) < 2:
        return None
    return different[-2]


def compress(text):
    """Runs of a letter as the letter and, above one, their length: aaab -> a3b."""
    parts, place = [], 0
    while place < len(text):
        end = place
        while end < len(text) and text[end] == text[place]:
            end = end + 1
        length = end - place
        parts.append(text[place] + (str(length) if length > 1 else ""))
        place = end
    return "".join(parts)


def seconds_of(clock):
    """Seconds of a time as hours:minutes:seconds, of which the first ones may be missing."""
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part)
    return total


def chunks(items, size):
    """The items in lists of `size`, of which the last may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def balanced(text):
    """Whether every bracket is closed, and none before it was opened."""
    depth = 0
    for letter in text:
        if letter == "(":
            depth = depth + 1
        elif letter == ")":
            depth = depth - 1
        if depth < 0:
            return False
    return depth == 0


def digit_sum(number):
    """The sum of a number's digits, whatever its sign."""
    number, total = abs(number), 0
    while number > 0:
        total = total + number % 10
        number = number // 10
    return total


def middle(numbers):
    """The median; of an even count the mean of the two in the middle."""
    ordered = sorted(numbers)
    half = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2


def caesar(text, shift):
    """Small letters moved on in the alphabet, from z to a again; everything else as it is."""
    moved = ""
    for letter in text:
        if "a" <= letter <= "z":
            letter = chr((ord(letter) - ord("a") + shift) % 26 + ord("a"))
        moved = moved + letter
    return moved


def longest_run(items):
    """The length of the longest run of equal items."""
    best, length, previous = 0, 0, None
    for item in items:
        length = length + 1 if item == previous else 1
        best = max(best, length)
        previous = item
    return best


def change_for(cents):
    """How many coins of 25, 10, 5 and 1 an amount takes at least, largest first."""
    coins = 0
    for coin in (25, 10, 5, 1):
        coins = coins + cents // coin
        cents = cents % coin
    return coins


def title_case(text):
    """Every word with a capital, but small words (of, the, and, a) only at the start."""
    words = []
    for place, word in enumerate(text.split()):
        small = word in ("of", "the", "and", "a")
        words.append(word if small and place > 0 else word.capitalize())
    return " ".join(words)


def overlap(first, second):
    """The length of what two intervals share."""
    start = max(first[0], second[0])
    end = min(first[1], second[1])
    return max(0, end - start)


def grade(points):
    """A from 90 points on, B from 80, C from 70, D from 60, else F."""
    if points >= 90:
        return "A"
    if points >= 80:
        return "B"
    if points >= 70:
        return "C"
    if points >= 60:
        return "D"
    return "F"


def rotate(items, places):
    """The items moved to the right by some places, those at the end coming to the front."""
    if not items:
        return []
    cut = len(items) - places % len(items)
    return items[cut:] + items[:cut]


def gcd_of(first, second):
    """The greatest common divisor."""
    while second != 0:
        first, second = second, first % second
    return first


def shipping(weight, express):
    """3 up to 1 kg, 5 up to 5 kg, else 5 and 1 for every kg above 5; express costs 4 more."""
    if weight <= 1:
        price = 3
    elif weight <= 5:
        price = 5
    else:
        price = 5 + (weight - 5)
    return price + 4 if express else price


def initials(name):
    """The first letters of a name's words as capitals, each with a dot."""
    letters = ""
    for word in name.split():
        letters = letters + word[0].upper() + "."
    return letters


def merge_sorted(first, second):
    """Two sorted lists as one."""
    merged, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        if first[i] <= second[j]:
            merged.append(first[i])
            i = i + 1
        else:
            merged.append(second[j])
            j = j + 1
    return merged + first[i:] + second[j:]


def roman(number):
    """A number below 4000 in Roman numerals."""
    signs = (
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    )
    text = ""
    for value, sign in signs:
        while number >= value:
            text = text + sign
            number = number - value
    return text
