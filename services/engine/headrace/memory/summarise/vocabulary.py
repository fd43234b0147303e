"""Words by which a sentence shows what it is for: deciding, promising, doubting, asking. English; other languages are
weighed by their figures, names and rare words alone."""

from __future__ import annotations

import re
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP_WORDS: Final = _words(
    """
    a about above after again against all almost along already although always am among an and another any anybody
    anyone anything are aren't around as at away back be because been before being below between bit both but by came
    can can't cannot come comes could couldn't did didn't do does doesn't doing don't done down during each either else
    enough even ever every everybody everyone everything few fine for from further gave get gets getting give gives go
    goes going gone good got great had hadn't has hasn't have haven't having he he'd he'll he's hello her here here's
    hers herself hey hi him himself his how however i i'd i'll i'm i've if in into is isn't it it'd it'll it's its
    itself just keep kept kind know knows less let let's like little ll look looks lot lovely made make makes many may
    maybe me mean might mine more most much must my myself need needs neither never next nice no nobody none nor not
    nothing now of off often oh ok okay on once one ones only onto or other others our ours ourselves out over own
    perhaps please put puts quite rather re really right said same saw say saying says see seem seems seen shall she
    she'd she'll she's should shouldn't since so some somebody someone something sometimes somewhere soon sort still
    such sure take takes tell tells than thank thanks that that's the their theirs them themselves then there there's
    these they they'd they'll they're they've thing things think this those though through thus till to together told
    too took toward towards under until up upon us use used using ve very want wanted wants was wasn't way we we'd we'll
    we're we've well went were weren't what what's whatever when where whether which while who who's whole whom whose
    why will with within without won't would wouldn't yeah yes yet you you'd you'll you're you've your yours yourself
    """
)
"""Words that say little in any text."""

COUNTS: Final = _words(
    """
    two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion dozen half quarter
    twice
    """
)
"""Numbers in words. `one` is left out: it is mostly a pronoun."""

CALENDAR: Final = _words(
    """
    january february march april june july august september october november december monday tuesday wednesday thursday
    friday saturday sunday mondays tuesdays wednesdays thursdays fridays saturdays sundays
    """
)
"""Months and days of the week. `may` is left out: it is mostly a verb."""


def _any_of(*alternatives: str) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(alternatives) + r")\b")


CLOSED: Final = _any_of(
    r"final(?:ly)?",
    r"for good",
    r"settles? (?:it|that)",
    r"settled",
    r"decided",
    r"decision",
    r"last (?:change|word)",
    r"for the last time",
    r"closed",
    r"never again",
    r"no longer",
    r"not any ?more",
    r"(?:is|are|was|were) (?:out|off|dead|dropped|gone|cancelled|canceled|scrapped|over)",
    r"(?:is|are) (?:signed|approved|granted|confirmed|booked|agreed|fixed|chosen)",
    r"it is",
    r"ruled out",
    r"deal",
    r"instead",
    r"in favou?r of",
    r"rather than",
    r"recorded",
    r"written down",
    r"from now on",
    r"becomes?",
    r"dropped",
    r"replac(?:e|ed|es)",
    r"overrul(?:e|ed|es)",
    r"vetoed",
)
"""A matter is closed, or one thing takes the place of another."""

DECIDED: Final = _any_of(
    r"decid(?:e|es|ing)",
    r"agree[ds]?",
    r"confirm(?:ed|s)?",
    r"noted",
    r"signed",
    r"approved",
    r"granted",
    r"accept(?:ed|s)?",
    r"refused",
    r"rejected",
    r"we(?:'ll| will)? (?:take|buy|order|book|use|keep|do|go|open|start|drop|hire|choose|pick|stick|stay|change|move|need|run)",
    r"we(?:'ll| will)? switch",
    r"(?:let's|let us) \w+",
    r"go(?:es|ing)? (?:for|with)",
    r"chang(?:e|ed|es|ing) (?:to|from|it|that)",
    r"mov(?:e|ed|es|ing) (?:to|from|it)",
    r"drop (?:the|it)",
    r"rais(?:e|ed|es)",
    r"lower(?:ed|s)",
    r"cut (?:to|from)",
    r"extended",
    r"postponed?",
    r"swap(?:ped|s)?",
    r"cancelled",
    r"canceled",
    r"stays?",
    r"remains?",
    r"stands? at",
    r"rule",
    r"new (?:date|plan|price|offer|name|time|rule|version)",
    r"said yes",
    r"chosen?",
    r"chose",
    r"pick(?:ed)?",
    r"switch(?:ed|es)?",
    r"scrap(?:ped)?",
    r"revert(?:ed)?",
    r"plan is",
    r"propos(?:al|e|es|ed)",
    r"suggest(?:ion|s|ed)?",
    r"(?:is|am|are|be|as|i'm|he's|she's) (?:the )?(?:primary|secondary|responsible|in charge|chair|deputy|lead|backup)",
)
"""A choice is made or put forward, or a part is given to somebody."""

COMMITTED: Final = _any_of(
    r"must(?:n't)?",
    r"(?:has|have|had) to",
    r"needs?",
    r"requires?d?",
    r"will",
    r"shall",
    r"by (?=\w*\d)",
    r"(?:i|we|he|she|they|it)'ll",
    r"by (?:the|next|mon|tues|wednes|thurs|fri|satur|sun|tomorrow|noon|end)\w*",
    r"deadline",
    r"due",
    r"until",
    r"promis(?:e|ed|es)",
    r"at (?:most|least)",
    r"only",
    r"no more than",
    r"no later than",
    r"not before",
    r"never",
    r"nobody",
    r"always",
    r"every",
    r"starts?",
    r"begins?",
    r"runs? (?:until|from|out)",
    r"expires?",
    r"ends?",
    r"cost(?:s|ed)?",
    r"pay(?:s)?",
    r"paid",
    r"charges?",
    r"quot(?:e|es|ed)",
    r"responsible",
    r"in charge",
    r"takes? (?:care|over)",
    r"owns?",
    r"writes?",
    r"sends?",
    r"deliver(?:s|ed|y)?",
    r"arriv(?:e|es|ed)",
    r"open question",
    r"still open",
    r"undecided",
    r"left open",
    r"not yet",
    r"remind",
    r"limit(?:ed)?",
    r"maximum",
    r"minimum",
    r"called",
    r"named",
    r"because",
    r"turn(?:ed|s) out",
    r"caused?",
    r"not available",
    r"available",
    r"allerg(?:y|ic)",
    r"provided",
    r"subject to",
    r"on condition",
)
"""Somebody has to do something, or something holds: duties, dates, prices, limits, reasons."""

CONCLUDING: Final = re.compile(
    r"(?:so|then|therefore|hence|thus|decision|rule|result|conclusion|in short)\b(?! (?:far|much|many|what|why|how))"
    r"|.*[,;] then\b|.*\b(?:then|ok|okay|agreed|it is)\W*$"
)
"""A line is drawn under what was said before. Matched at the head of a sentence."""

ASSENT: Final = re.compile(
    r"\W*(?:yes|yeah|yep|ok|okay|fine|agreed|all right|alright|right|good|great|perfect|done|deal|accepted|very well|so be it"
    r"|fair enough|you win|you're right|point taken|convinced|persuaded|out-?(?:voted|argued|numbered)"
    r"|i (?:give in|stand corrected))\b"
)
"""Somebody says yes, or gives in. Matched at the head of a turn."""

IMPERATIVE: Final = re.compile(
    r"\W*(?:(?:ok|so|then|and|please|also)[,:]? )*"
    r"(?:switch|take|raise|set|use|order|keep|drop|make|put|move|change|buy|book|close|start|stop|add|remove|go|send|write|call|cancel|leave"
    r"|skip|pick|choose|rename|split|merge|increase|reduce|replace|run|ask|tell|give|bring)\b"
)
"""Somebody is told to do something. Matched at the head of a sentence."""

NEGATED: Final = re.compile(r"(?:^|[,;:] |\bso |\band )(?:no|not|never|without) ")
"""Something is ruled out, as in `so no lunch` or `on the Friday, not the Saturday`."""

STATES: Final = re.compile(
    r"(?:\b(?:is|are|am|stays?|remains?|goes|opens?|starts?|begins?|ends?|runs?|takes over)|'m|'s|'re) "
    r"(?:now |then |still |also )?"
    r"(?:on|with|at|our|the|for|from|in|out|by|primary|secondary|responsible|(?:mon|tues|wednes|thurs|fri|satur|sun)day|\w*\d)"
)
"""Something is so now: `the loan is with them`, `the meeting is on Friday`."""

PAST: Final = re.compile(r"\b(?:was|were|had|did|said|saw|thought|felt|looked|went)\b")
"""A story is told."""

ADDRESSED: Final = re.compile(r"\byou(?:r|'re|'ll)?\b")
"""Somebody is spoken to, mostly for advice or courtesy."""

POINTING_BACK: Final = re.compile(r"(?:he|she|it|that|this|they|which|these|those)\b")
"""It needs the sentence before it. Matched at the head of a sentence."""
