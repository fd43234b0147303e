"""Finds the tool that a call names, checks its arguments, runs it, and answers with an envelope, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
from pydantic import ValidationError

from headrace import (
    PASSING_CODES,
    ArgumentsInvalid,
    ConfigurationError,
    HeadraceError,
    LastingRefusal,
    ToolCall,
    ToolRefusal,
    ToolSuccess,
    WireModel,
    describe_problems,
)
from headrace_gateway.operations import Operations
from headrace_gateway.tools.definition import Caller, ToolDefinition
from headrace_gateway.tools.kinds import without_needless_nulls
from headrace_gateway.tools.refusals import ToolRefused, refusal_for

# Far more than any worker's arguments have, and far less than what makes a JSON library give up.
DEEPEST_ARGUMENTS = 64
_NESTED = (dict, list)
# After these a call would be done again, or nobody can tell what was done.
_LEAVES_OPEN = PASSING_CODES | {HeadraceError.code}


class ToolRegistry:
    """The tools of a gateway, by name."""

    def __init__(self, tools: Iterable[ToolDefinition[Any]] = ()) -> None:
        self._tools: dict[str, ToolDefinition[Any]] = {}
        for tool in tools:
            self.register(tool)

    def register(self, tool: ToolDefinition[Any]) -> None:
        """Adds a tool.

        Raises:
            ConfigurationError: there is one of that name already.
        """
        if tool.name in self._tools:
            raise ConfigurationError(f"There is a tool named {tool.name} already: give the new one another name.")
        self._tools[tool.name] = tool

    def __iter__(self) -> Iterator[ToolDefinition[Any]]:
        return iter(self._tools.values())

    def __getitem__(self, name: str) -> ToolDefinition[Any]:
        """The tool of that name. Raises: KeyError, where there is none."""
        return self._tools[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    async def dispatch(
        self, call: ToolCall, operations: Operations, *, began: Callable[[], None] | None = None
    ) -> ToolSuccess | ToolRefusal:
        """Does the call, and answers. It raises nothing but the cancellation of the task.

        Args:
            operations: what the caller may do.
            began: told when the tool's handler begins: from then on something may be done.
        """
        begun = False
        try:
            tool = self._find(call.name)
            if tool.operation is not None and (operation := tool.operation(call.arguments)) is not None:
                operations.check_scope(operation)
            arguments = parse_arguments(tool, call.arguments)
            begun = True
            if began is not None:
                began()
            data = await tool.handler(arguments, Caller(operations=operations, context=call.context, call_id=call.id))
            return ToolSuccess(data=data.to_wire())
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # It is not this call that was cancelled, but something for which the tool waited.
            return self._refusal(call, operations, begun, RuntimeError("what the tool waited for was cancelled"))
        except Exception as error:
            return self._refusal(call, operations, begun, error)

    def _refusal(self, call: ToolCall, operations: Operations, begun: bool, error: Exception) -> ToolRefusal:
        repeatable = self.is_repeatable(call.name)
        call_id = call.id if repeatable else None
        refusal = refusal_for(error, call.name, accepted=operations.accepted, call_id=call_id)
        # What a tool does elsewhere nobody sees here. What it refuses by a code of its own stands anyway.
        unknown = begun and not self.changes_nothing(call.name) and refusal.error.code in _LEAVES_OPEN
        if operations.accepted or unknown:
            # Any other tool may do twice what it is called for twice: its jobs may have no key by which they are known again.
            return refusal if repeatable else LastingRefusal(error=refusal.error)
        return refusal

    def changes_nothing(self, name: str) -> bool:
        """Whether a call of this tool that is done, in part or whole, and then once more, changes nothing more."""
        return self.is_repeatable(name) or self._tools[name].annotations.read_only

    def is_repeatable(self, name: str) -> bool:
        """Whether a call of this tool that is done once more, by the same id, changes nothing more."""
        tool = self._tools.get(name)
        return tool is None or tool.repeatable

    def _find(self, name: str) -> ToolDefinition[Any]:
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            raise ToolRefused("tool_unknown", f"There is no tool named {name[:100]!r}. The tools are: {known}.")
        return tool


def parse_arguments(tool: ToolDefinition[Any], arguments: dict[str, Any]) -> WireModel:
    """The arguments as the tool's handler gets them. They are taken as the published schema says: no other spelling of a name,
    no text for a number.

    Raises:
        ArgumentsInvalid: they do not fit; the message names each field and what is wrong with it.
    """
    try:
        encoded = orjson.dumps(arguments)
    except TypeError as error:
        _check_depth(tool, arguments)
        raise ArgumentsInvalid(f"Arguments of {tool.name} are no JSON: {error}.") from None
    if encoded.count(b"{") + encoded.count(b"[") > DEEPEST_ARGUMENTS:  # what opens less often cannot be too deep
        _check_depth(tool, arguments)
    try:
        # From JSON, since only there a strict check takes text for an enumeration or a time.
        parsed: WireModel = tool.arguments.model_validate_json(encoded, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        # A strict definition has null where an argument is left out.
        given = without_needless_nulls(arguments, tool.input_schema)
        if given != arguments:
            return parse_arguments(tool, given)
        raise ArgumentsInvalid(f"Arguments of {tool.name} are wrong: {describe_problems(error, tool.arguments)}.") from None
    return parsed


def _check_depth(tool: ToolDefinition[Any], arguments: dict[str, Any]) -> None:
    if is_deeper_than(arguments, DEEPEST_ARGUMENTS):
        raise ArgumentsInvalid(f"Arguments of {tool.name} are nested more than {DEEPEST_ARGUMENTS} levels deep.")


def is_deeper_than(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested in each other more than `depth` times."""
    level: list[Any] = [value] if isinstance(value, _NESTED) else []
    for _ in range(depth + 1):
        if not level:
            return False
        parts = (outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = [inner for part in parts for inner in part if isinstance(inner, _NESTED)]
    return True
