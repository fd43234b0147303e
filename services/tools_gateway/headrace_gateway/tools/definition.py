"""What a tool is: one definition, from which every transport makes what it shows and what it takes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from headrace import CallContext, ConfigurationError, Job, WireModel, WorkerDefinition
from headrace_gateway.access import Principal
from headrace_gateway.operations import Operations
from headrace_gateway.tools.schema import answer_schema, arguments_schema, open_objects

ArgumentsT = TypeVar("ArgumentsT", bound=WireModel)

# What every family of models and every protocol for tools takes as a name.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """On whose behalf a tool is called, and what can be done for them.

    Attributes:
        operations: everything that the caller may do, in their own tenant alone.
        context: what the transport knows of the user and the conversation.
        call_id: tells the call from others, where it may be delivered once more: what a handler has done for it must not be done
            again.
    """

    operations: Operations
    context: CallContext = field(default_factory=CallContext)
    call_id: str | None = None

    @property
    def principal(self) -> Principal:
        """Who it is, as the credential says."""
        return self.operations.principal

    @property
    def tenant(self) -> str:
        """Whose jobs are seen and made. It never comes from arguments."""
        return self.principal.tenant


@dataclass(frozen=True, kw_only=True)
class ToolAnnotations:
    """What a host may want to know before it lets an agent call a tool without asking.

    Attributes:
        read_only: it changes nothing.
        destructive: it may remove or overwrite something.
    """

    read_only: bool
    destructive: bool = False

    def to_wire(self) -> dict[str, bool]:
        """The hints under the names that agents' hosts know."""
        return {"readOnlyHint": self.read_only, "destructiveHint": self.destructive}


@dataclass(frozen=True, kw_only=True)
class TaskSupport:
    """That what a tool is asked for is done by a job, which a caller may follow as a task of the Model Context Protocol: then it
    is answered with the task at once, and with what the tool answers once the job has ended.

    Attributes:
        job_id: of `data` in an answer, the id of the job that goes on; None where the answer is the whole of it.
        answer: what the tool answers when that job has completed.
        required: whether it takes nobody's call who cannot follow tasks.
    """

    job_id: Callable[[Mapping[str, Any]], str | None]
    answer: Callable[[Job], WireModel]
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class ToolDefinition(Generic[ArgumentsT]):
    """A tool: what an agent reads of it, what it takes, what it answers, and what it does.

    Attributes:
        name: lower-case letters, digits and `_`, at most 64.
        description: written for the agent; it never holds text that came from a user.
        arguments: a model that refuses unknown names; subclass `headrace.ClosedModel`.
        answers: the models of which one is the answer's `data`.
        annotations: hints for the host.
        handler: does it. It refuses by raising `ToolRefused` or any `HeadraceError`.
        show: makes of the arguments' schema the one that agents are shown, which may depend on the workers that there are. It
            must take no more than the schema does.
        task: how a call is followed as a task; it cannot be when left out.
        operation: of arguments that are not checked yet, the operation for which they ask, by its name in the list of operations:
            whoever may not do it is refused before they are. None where it is not known.
        repeatable: whether a call that is done once more, with the same id, changes nothing more than the first. Of another tool
            a call that failed after something was accepted is not done again.

    Raises:
        ConfigurationError: the name cannot be used, or the arguments take names that they do not know.
    """

    name: str
    description: str
    arguments: type[ArgumentsT]
    answers: tuple[type[WireModel], ...]
    annotations: ToolAnnotations
    handler: Callable[[ArgumentsT, Caller], Awaitable[WireModel]]
    show: Callable[[dict[str, Any], Mapping[str, WorkerDefinition]], dict[str, Any]] | None = None
    task: TaskSupport | None = None
    operation: Callable[[Mapping[str, Any]], str | None] | None = None
    repeatable: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"A tool cannot be named {self.name!r}: use lower-case letters, digits and '_', a letter first, at most 64."
            )
        if not self.answers:
            raise ConfigurationError(f"The tool {self.name} names no model of its answer.")
        if opened := open_objects(self.input_schema):
            raise ConfigurationError(
                f"The arguments of the tool {self.name} take names that they do not know (in {', '.join(opened)}): "
                "let their models subclass headrace.ClosedModel."
            )

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments: a plain object that is closed."""
        return arguments_schema(self.arguments)

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of `data` in an answer that is ok."""
        return answer_schema(*self.answers)

    def shown_schema(self, workers: Mapping[str, WorkerDefinition]) -> dict[str, Any]:
        """JSON Schema of the arguments, as agents are shown it while there are these workers."""
        return self.input_schema if self.show is None else self.show(self.input_schema, workers)

    def to_wire(self, workers: Mapping[str, WorkerDefinition] | None = None) -> dict[str, Any]:
        """The definition as clients read it, which is the Model Context Protocol's form."""
        return {
            "name": self.name,
            "description": self.description,
            "inputSchema": self.shown_schema(workers or {}),
            "outputSchema": self.output_schema,
            "annotations": self.annotations.to_wire(),
        }
