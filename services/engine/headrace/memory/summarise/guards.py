"""What keeps a bad summary out of memory: every summary passes here before anything is written."""

from __future__ import annotations

import re
from collections.abc import Sequence

from headrace.errors import SummaryRejected
from headrace.memory.summarise.base import Summary
from headrace.memory.summarise.tokens import estimate_tokens, total_tokens
from headrace.models import MemoryEntry

_EXCERPT = 80

# How texts begin that are no summaries but a program's or a model's excuse for one.
_ERROR = re.compile(
    r"""
      (?:[\w.]*(?:error|exception)|failed|failure|fatal|internal\ server\ error)\s*[:(]
    | (?:error|status)\s+[45]\d\d\b
    | traceback\ \(most\ recent\ call\ last\)
    | (?:http(?:/\d(?:\.\d)?)?\s*)?[45]\d\d:?\s+(?:bad\ (?:request|gateway)|unauthori[sz]ed|forbidden|not\ found
          |too\ many\ requests|internal\ server|service\ (?:temporarily\ )?unavailable|gateway\ time)
    | \{\s*"(?:error|detail|message)"
    | <!doctype|<html
    | (?:null|none|undefined|nan|n/a)\W*$
    """,
    re.IGNORECASE | re.VERBOSE,
)
_REFUSAL = re.compile(
    r"""
      (?:unfortunately,?\ )?i\ (?:can't|cannot|can\ not|won't|could\ not|couldn't|must\ decline|am\ unable
          |am\ not\ able|do\ not\ have\ (?:access|enough))\b
    | (?:i\ am|i'm|we\ are|we're)?\s*(?:very\ |so\ |truly\ )?(?:sorry|afraid|unable)\b[^.!?]{0,60}
          \b(?:can't|cannot|can\ not|unable|not\ able|won't|couldn't|could\ not|summari[sz]e|help|assist|provide)\b
    | i\ apologi[sz]e\b
    | as\ an?\ (?:ai|artificial\ intelligence|large\ language|language)\b
    | (?:please|could\ you)\ (?:provide|share|send)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def check_summary(summary: Summary, sources: Sequence[MemoryEntry], *, title: str | None = None) -> str:
    """The summary's text, fit to take the place of `sources`.

    Raises:
        SummaryRejected: it is empty, cut off, not shorter than the sources, or an error message or refusal.
    """
    text = summary.text.strip()
    if not text:
        raise SummaryRejected("The summary is empty; the memory is unchanged.")
    if summary.truncated:
        raise SummaryRejected(
            f"The summary was cut off before its end ({_excerpt(text, from_end=True)}); the memory is unchanged. "
            "Raise the model's output limit or HEADRACE_MEMORY_TOKEN_BUDGET."
        )
    if _is_excuse(text, sources, title):
        raise SummaryRejected(f"The summariser answered with an error or a refusal ({_excerpt(text)}); the memory is unchanged.")
    before, after = total_tokens(sources), estimate_tokens(text)
    if after >= before:
        raise SummaryRejected(
            f"The summary is not shorter than what it is of ({after} tokens for {before}); the memory is unchanged."
        )
    return text


def _is_excuse(text: str, sources: Sequence[MemoryEntry], title: str | None) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if title and len(lines) > 1 and lines[0].strip("#* ").casefold() == title.strip().casefold():
        lines = lines[1:]
    beginning = _plain(lines[0])
    if not (_ERROR.match(beginning) or _REFUSAL.match(beginning)):
        return False
    # "Sorry, I can't make Tuesday" may be what somebody said: words that stand in the sources are no excuse of the summariser.
    sentence = re.split(r"(?<=[.!?])\s", beginning, maxsplit=1)[0].casefold()
    return not any(sentence in _plain(entry.content).casefold() for entry in sources)


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").split()).lstrip("#*>-\"'` ")


def _excerpt(text: str, *, from_end: bool = False) -> str:
    if len(text) <= _EXCERPT:
        return repr(text)
    return repr("..." + text[-_EXCERPT:]) if from_end else repr(text[:_EXCERPT] + "...")
