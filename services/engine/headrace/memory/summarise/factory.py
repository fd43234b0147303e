"""Makes the summariser that the settings ask for."""

from __future__ import annotations

from headrace.memory.summarise.base import Summariser
from headrace.settings import Settings


def summariser_from(settings: Settings) -> Summariser:
    """The summariser that `HEADRACE_MEMORY_SUMMARISER` names.

    Raises:
        ConfigurationError: `openai` is named, and its endpoint or model is not, or the extra `headrace[openai]` is missing.
    """
    # Each is imported only where it is used: one needs the `openai` package, which not everyone installs.
    if settings.memory.summariser == "openai":
        from headrace.memory.summarise.openai import OpenAISummariser

        return OpenAISummariser.from_settings(settings.openai)
    from headrace.memory.summarise.extractive import ExtractiveSummariser

    return ExtractiveSummariser()
