"""What an agent is told about its background work: as the server's instructions, and as a prompt."""

from __future__ import annotations

from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    PromptMessage,
    TextContent,
)

from headrace_gateway.mcp.callers import RequestContext
from headrace_gateway.mcp.calls import check_no_cursor

INSTRUCTIONS: Final = """\
You have a system for background work, and two tools for it.

scheduler starts work that goes on after you have answered the user. Whenever the memory of a conversation has to be cleaned up, \
compacted or summarised, ask scheduler for it: never a worker directly, and never do such work yourself in the conversation.

worker_manager is how you look at your own background work: which workers there are, what became of a job, what is still under \
way. With it you also have a failed job done anew, and cancel one that is not wanted any more.

How, where and by whom a job is executed is none of your concern. Tell the user that work was scheduled, not that it is done. Do \
not schedule it again because it has not ended yet, and do not wait for it unless the user does."""

_PROMPT: Final = Prompt(
    name="background_work",
    title="Background work",
    description="How an agent uses its background work; for the system prompt of a host that passes no instructions on.",
)


class Prompts:
    """The one prompt there is."""

    async def list_prompts(self, _: RequestContext, parameters: PaginatedRequestParams | None) -> ListPromptsResult:
        """All prompts, on one page."""
        check_no_cursor(parameters)
        return ListPromptsResult(prompts=[_PROMPT])

    async def get_prompt(self, _: RequestContext, parameters: GetPromptRequestParams) -> GetPromptResult:
        """A prompt's text."""
        if parameters.name != _PROMPT.name:
            raise MCPError(INVALID_PARAMS, f"There is no prompt of that name. There is: {_PROMPT.name}.")
        if parameters.arguments:
            raise MCPError(INVALID_PARAMS, f"The prompt {_PROMPT.name} takes no arguments.")
        message = PromptMessage(role="user", content=TextContent(text=INSTRUCTIONS))
        return GetPromptResult(description=_PROMPT.description, messages=[message])
