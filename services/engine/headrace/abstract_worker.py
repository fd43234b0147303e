"""What a user writes: a worker, as a class or as a decorated function."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast, get_args, get_origin, get_type_hints, overload

from pydantic import BaseModel, ValidationError

from headrace.codec import describe_problems
from headrace.core.rate import RateLimit
from headrace.core.retry import RetryPolicy
from headrace.core.topics import WORKER_NAME
from headrace.errors import LONGEST_WAIT_SECONDS, ArgumentsInvalid, ConfigurationError
from headrace.job_context import UNSET, JobContext
from headrace.models import Job, WorkerDefinition

ArgumentsT = TypeVar("ArgumentsT")

Executes = Literal["process"]
JobFunction = Callable[[Any, JobContext], Any]


class AbstractWorker(ABC, Generic[ArgumentsT]):
    """A named piece of background work. Subclass it with the model of its arguments: `AbstractWorker[DigestArgs]`.

    Attributes:
        name: names the worker's queue; letters, digits, `-` and `_`. It cannot change while jobs wait.
        description: what it does, in a sentence, for people and agents.
        category: any word by which workers are grouped.
        kind: the name under which the `scheduler` tool offers it; its name when not set; None keeps it from agents.
        concurrency: jobs that one engine runs at a time; the engine's setting when None.
        order_by: names of arguments. Jobs that agree in all of them run one after another, in the order of their acceptance.
        retry: how often a job is attempted before it fails, unless the job itself says; None: once, or as `RetryPolicy()` has it
            where the attempt raises `Retry`.
        rate_limit: how many jobs may start in a time, in all engines together; None for as many as there are slots for.
        timeout: seconds that each attempt may take, unless the job itself says. `async def` is then cancelled, and a process
            killed; a plain function in a thread cannot be stopped, and counts as timed out when it has ended.
        executor: "process" runs each attempt in a child process, which can be killed, and whose death costs that attempt only;
            such a worker is imported anew there. None: `async def` runs in the event loop, a plain function in a thread.
        arguments_model: the pydantic model of the arguments; None takes any JSON object as it is.
    """

    name: str
    description: str = ""
    category: str = "general"
    kind: str | None = UNSET
    concurrency: int | None = None
    order_by: tuple[str, ...] = ()
    retry: RetryPolicy | None = None
    timeout: float | None = None
    rate_limit: RateLimit | None = None
    executor: Executes | None = None
    arguments_model: ClassVar[type[BaseModel] | None] = None

    _made_with_arguments = False

    def __new__(cls, *args: Any, **options: Any) -> Self:
        made = super().__new__(cls)
        # A child process can make it anew only if it was made of nothing.
        made._made_with_arguments = bool(args or options)
        return made

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in getattr(cls, "__orig_bases__", ()):
            if inspect.isclass(origin := get_origin(base)) and issubclass(origin, AbstractWorker):
                cls.arguments_model = _model_of(get_args(base)[0], cls.__name__)

    @abstractmethod
    def run(self, args: ArgumentsT, ctx: JobContext) -> Any:
        """Does the work. Protected: only `process_job` calls it.

        `async def` runs in the engine's event loop and must not block it; a plain `def` runs in a thread. What it returns
        becomes the job's result and must be JSON; an exception makes the job fail.
        """

    async def close(self) -> None:
        """Called once, when its engine has stopped: give back here what the worker holds, such as a client's connections.

        It does nothing unless it is overridden. An error is logged, and so is taking longer than 5 seconds, which ends it.
        """

    async def process_job(self, job: Job, ctx: JobContext | None = None) -> Any:
        """Runs one job and returns its result; the engine's way into a worker, and a test's.

        The result is what `run` returned, whatever that is. Only an engine makes it JSON, and has the attempt fail where it is
        none; a test does the same by `headrace.testing.result_as_json`.

        Raises:
            ArgumentsInvalid: the job's arguments do not fit the worker's model.
        """
        return await self._process(ctx or JobContext(job))

    async def _process(self, context: JobContext) -> Any:
        arguments = context._arguments
        if arguments is UNSET:
            arguments = self.parse_arguments(context.job.args or {})
        if self._runs_in_loop:
            return await self.run(arguments, context)
        call = contextvars.copy_context().run
        return await _in_thread(context._services.executor, call, cast("Callable[..., Any]", self.run), arguments, context)

    @functools.cached_property
    def _runs_in_loop(self) -> bool:
        """Whether `run` is a coroutine function, which runs in the event loop, and not in a thread."""
        return inspect.iscoroutinefunction(self.run)

    def parse_arguments(self, args: Mapping[str, Any]) -> ArgumentsT:
        """The arguments as `run` gets them.

        Raises:
            ArgumentsInvalid: they do not fit the model; the message names each field and what is wrong with it.
        """
        if self.arguments_model is None:
            return cast("ArgumentsT", dict(args))
        try:
            return cast("ArgumentsT", self.arguments_model.model_validate(args))
        except ValidationError as error:
            problems = describe_problems(error, self.arguments_model)
            raise ArgumentsInvalid(f"Arguments of {self.name} are wrong: {problems}.") from None

    def definition(self) -> WorkerDefinition:
        """What is published about the worker.

        Raises:
            ConfigurationError: the worker has no name, or one that cannot be part of a topic's name; `order_by` names what is
                no argument, or is no tuple; `concurrency` is no number, `retry` no policy, `rate_limit` no limit, `timeout` no
                time, or `executor` unknown.
        """
        name = getattr(self, "name", None)
        if not isinstance(name, str) or not WORKER_NAME.fullmatch(name):
            raise ConfigurationError(f"{self._owner}.name is {name!r}: give the worker a name of letters, digits, '-' and '_'.")
        self._check_limits()
        schema = {"type": "object"} if self.arguments_model is None else self.arguments_model.model_json_schema(by_alias=True)
        known = properties_of(schema)
        if self.arguments_model is not None and (strange := [each for each in self.order_by if each not in known]):
            raise ConfigurationError(
                f"{self._owner}.order_by names {', '.join(map(repr, strange))}, and the arguments are "
                f"{', '.join(map(repr, known)) or 'none'}: name them as they are spelt in JSON."
            )
        return WorkerDefinition(
            name=name,
            description=self.description,
            category=self.category,
            kind=name if self.kind is UNSET else self.kind,
            arguments_schema=schema,
            order_by=list(self.order_by),
        )

    @property
    def _owner(self) -> str:
        """What of the user's own code an error names."""
        return type(self).__name__

    def _check_limits(self) -> None:
        owner = self._owner
        concurrency: object = self.concurrency
        if concurrency is not None and (isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1):
            raise ConfigurationError(f"{owner}.concurrency is {concurrency!r}: give it a whole number, at least 1.")
        order_by: object = self.order_by
        if not isinstance(order_by, tuple | list) or not all(isinstance(each, str) for each in order_by):
            # Of a text each letter would be the name of an argument, which no job has.
            raise ConfigurationError(f'{owner}.order_by is {order_by!r}: give it names of arguments in a tuple, as ("key",).')
        retry: object = self.retry
        timeout: object = self.timeout
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise ConfigurationError(f"{owner}.retry is {retry!r}: give it a RetryPolicy(max_attempts=...).")
        limit: object = self.rate_limit
        if limit is not None and not isinstance(limit, RateLimit):
            raise ConfigurationError(f"{owner}.rate_limit is {limit!r}: give it a RateLimit(count, per_seconds).")
        executor: object = self.executor
        if executor not in (None, "process"):
            raise ConfigurationError(
                f'{owner}.executor is {executor!r}: give "process", or None for the event loop (`async def`) or a thread.'
            )
        if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout <= LONGEST_WAIT_SECONDS):
            raise ConfigurationError(f"{owner}.timeout is {timeout!r}: give it seconds, above 0 and up to a year.")


def runs_in_loop(worker: AbstractWorker[Any]) -> bool:
    """Whether a worker's `run` is a coroutine function, which runs in the event loop and can be cancelled; else in a thread."""
    return worker._runs_in_loop


def run_attempt(worker: AbstractWorker[Any], ctx: JobContext) -> Coroutine[Any, Any, Any]:
    """One attempt of the job that `ctx` stands for, as `process_job` runs it; engines and replays come in here.

    A `process_job` of the worker's own is called. Otherwise a `Job` is made for those alone who look at it.

    Raises:
        ArgumentsInvalid: the job's arguments do not fit the worker's model, and `ctx` was not given any.
    """
    if overrides_process_job(worker):
        return worker.process_job(ctx.job, ctx)
    return worker._process(ctx)


def overrides_process_job(worker: AbstractWorker[Any]) -> bool:
    """Whether a worker has a `process_job` of its own, which may do anything around, or in place of, its `run`."""
    return type(worker).process_job is not AbstractWorker.process_job


def properties_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments that a published schema names, with the schema of each; none where it is not as pydantic makes them."""
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):  # so pydantic publishes a model that contains itself
        schema = (schema.get("$defs") or {}).get(reference.removeprefix("#/$defs/")) or {}
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _model_of(argument: Any, owner: str) -> type[BaseModel] | None:
    if isinstance(argument, TypeVar):
        return None
    if inspect.isclass(argument) and issubclass(argument, BaseModel):
        return argument
    if argument in (dict, Any) or get_origin(argument) in (dict, Mapping):
        return None
    raise ConfigurationError(f"{owner}: arguments are a pydantic model or a dict, not {argument!r}.")


async def _in_thread(executor: Executor | None, function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a plain function in a thread. A thread cannot be stopped: whoever cancels this waits until it has ended."""
    future = asyncio.get_running_loop().run_in_executor(executor, _call, function, *arguments)
    try:
        result, error = await asyncio.shield(future)
    except asyncio.CancelledError:
        await _end_of(future)
        raise
    try:
        if error is not None:
            raise error
    finally:
        del error  # its traceback has this frame
    return result


def _call(function: Callable[..., Any], *arguments: Any) -> tuple[Any, BaseException | None]:
    """What a function returns, and what it raises. Futures look at an exception that they carry, and not every one bears that."""
    try:
        return function(*arguments), None
    except BaseException as error:
        return None, error


async def _end_of(future: asyncio.Future[Any]) -> None:
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # looked at, so that asyncio does not report it


class FunctionWorker(AbstractWorker[Any]):
    """A worker made of a function by the decorator `worker`."""

    def __init__(self, function: JobFunction, model: type[BaseModel] | None) -> None:
        self.function = function
        self.arguments_model = model  # type: ignore[misc]  # each decorated function has a model of its own
        self.run = function  # type: ignore[method-assign, assignment]  # so that `async def` and `def` are told apart as in a class

    def run(self, args: Any, ctx: JobContext) -> Any:
        """Calls the function."""
        return self.function(args, ctx)

    @property
    def _owner(self) -> str:
        return self.function.__name__


@overload
def worker(function: JobFunction, /) -> FunctionWorker: ...


@overload
def worker(
    *,
    name: str | None = None,
    description: str | None = None,
    category: str = "general",
    kind: str | None = UNSET,
    concurrency: int | None = None,
    order_by: tuple[str, ...] = (),
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    rate_limit: RateLimit | None = None,
    executor: Executes | None = None,
) -> Callable[[JobFunction], FunctionWorker]: ...


def worker(
    function: JobFunction | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    category: str = "general",
    kind: str | None = UNSET,
    concurrency: int | None = None,
    order_by: tuple[str, ...] = (),
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    rate_limit: RateLimit | None = None,
    executor: Executes | None = None,
) -> FunctionWorker | Callable[[JobFunction], FunctionWorker]:
    """Makes a worker of a function `(args, ctx)`, as `@worker` or `@worker(...)`. The attributes are those of `AbstractWorker`.

    `name` is the function's name when left out, `description` the first line of its docstring.

    Raises:
        ConfigurationError: the function's first parameter is annotated with something other than a model or a dict.
    """

    def decorate(function: JobFunction) -> FunctionWorker:
        made = FunctionWorker(function, _first_model(function))
        made.name = name or function.__name__
        made.description = description or (inspect.getdoc(function) or "").partition("\n")[0]
        made.category = category
        made.kind = kind
        made.concurrency = concurrency
        made.order_by = order_by
        made.retry = retry
        made.timeout = timeout
        made.rate_limit = rate_limit
        made.executor = executor
        made.__doc__ = function.__doc__
        return made

    if function is None:
        return decorate
    if not callable(function):
        raise ConfigurationError(f"worker({function!r}) decorates no function: name its options, as in worker(name=...).")
    return decorate(function)


def _first_model(function: Callable[..., Any]) -> type[BaseModel] | None:
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2:
        raise ConfigurationError(f"{function.__name__} must take two parameters: (args, ctx).")
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise ConfigurationError(f"{function.__name__}: an annotation cannot be resolved ({error}); import it.") from None
    hint = hints.get(parameters[0].name, dict)
    return _model_of(hint, function.__name__)
