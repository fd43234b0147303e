"""Dead letters: what could not be done, looked at, and done anew."""

from headrace.dead_letters.letters import DeadLetter, DeadLetterFilter, parse_place, read_dead_letter, read_dead_letters
from headrace.dead_letters.redriving import Redrive, redrive

__all__ = [
    "DeadLetter",
    "DeadLetterFilter",
    "Redrive",
    "parse_place",
    "read_dead_letter",
    "read_dead_letters",
    "redrive",
]
