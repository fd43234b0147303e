"""A call from its arrival to its end: who it is, whether they may do so much, and what the audit says of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from headrace import HeadraceError
from headrace_gateway.access.authentication import Authenticator
from headrace_gateway.access.errors import AccessDenied, CredentialInvalid
from headrace_gateway.access.issuer import is_loopback
from headrace_gateway.access.limits import Limits
from headrace_gateway.access.principal import Principal
from headrace_gateway.access.records import check_made_for, check_of_record
from headrace_gateway.access.strangers import Strangers

Transport = Literal["http", "mcp", "stdio", "kafka"]

OK = "ok"
CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a call came in.

    Attributes:
        transport: over what.
        address: from where, as the transport knows it: an IP address as a rule.
        call_id: the call's own id, where it came as a record.
        call_digest: SHA-256 of that record's value, as hexadecimal digits.
    """

    transport: Transport
    address: str | None = None
    call_id: str | None = None
    call_digest: str | None = None


@dataclass(slots=True)
class Audited:
    """What the audit says of one call. It never holds what a caller wrote: neither arguments nor credentials.

    Attributes:
        at: when it came, in milliseconds since the Unix epoch.
        principal: None where nobody knows who it was.
        tool: the tool that was called, if it was one and there is one of that name.
        action: the first operation that it asked for, by its name in the list of operations; None where it came to none.
        outcome: `ok`, `cancelled`, or the code of the refusal.
        job_id: the job that it was about, if that is known to exist.
        left_out: how many refusals of callers whom nobody knows were not audited before this one: there were too many.
    """

    at: int
    arrival: Arrival
    principal: Principal | None = None
    tool: str | None = None
    action: str | None = None
    outcome: str = OK
    job_id: str | None = None
    left_out: int = 0


class Audit(Protocol):
    """Keeps what was audited."""

    async def start(self) -> None:
        """Gets ready to keep it. Raises: HeadraceError."""

    async def stop(self) -> None:
        """Keeps what was written, as far as it can."""

    def write(self, audited: Audited) -> None:
        """Takes it, without waiting and without raising anything."""


class Admission:
    """One call that was let in, as long as it lasts: an async context manager, made by `Access.admit`.

    What is raised inside becomes the outcome. What is refused without being raised is said by `refuse`. A stream, which may last
    for days, is audited when it says by `began` that it was opened; one that never does, when it ends.

    Attributes:
        principal: who calls.
        audited: what the audit will say; `tool`, `action` and `job_id` may be set.
    """

    __slots__ = ("_access", "_stream", "_written", "audited", "principal")

    def __init__(self, access: Access, principal: Principal, audited: Audited, stream: bool) -> None:
        self._access = access
        self._stream = stream
        self._written = False
        self.principal = principal
        self.audited = audited

    def refuse(self, code: str) -> None:
        """The call was answered with a refusal of this code."""
        self.audited.outcome = code

    def began(self) -> None:
        """The stream was opened: what it was asked for is known, and nothing of it was refused."""
        if not self._written:
            self._written = True
            self._access.write(self.audited)

    def called(self, operation: str) -> None:
        """The call came to an operation; of several, the first one counts."""
        if self.audited.action is None:
            self.audited.action = operation

    async def __aenter__(self) -> Self:
        try:
            self._access.check(self.principal)
            self._access.limits.enter(self.principal, stream=self._stream)
        except HeadraceError as error:
            self.audited.outcome = error.code
            self._access.write(self.audited)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._access.limits.leave(self.principal, stream=self._stream)
        if self._written:
            return
        revoked = None
        if error is not None:
            self.audited.outcome = outcome_of(error)
        elif not self._stream:
            try:
                # What was found for them meanwhile is not for them any more.
                self._access.check(self.principal)
            except CredentialInvalid as invalid:
                revoked = invalid
                self.audited.outcome = invalid.code
        self._access.write(self.audited)
        if revoked is not None:
            raise revoked


class Access:
    """Lets calls in. What all transports share of who may do what.

    Args:
        authenticator: knows who calls.
        limits: how much each principal may do at a time.
        audit: told of every call, refusals included; nobody is when left out.
        now: milliseconds since the Unix epoch.
        strangers: how many refusals of callers whom nobody knows are audited.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        limits: Limits,
        audit: Audit | None = None,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        strangers: Strangers | None = None,
    ) -> None:
        self.limits = limits
        self.strangers = strangers or Strangers()
        self._authenticator = authenticator
        self._audit = audit
        self._now = now

    def is_open_to(self, arrival: Arrival) -> bool:
        """Whether nobody is asked who they are, and the call comes from this machine, as it has to then."""
        return self._authenticator.open_to_anyone and (arrival.address is None or is_loopback(arrival.address))

    async def authenticate(self, credential: str | None, arrival: Arrival, tool: str | None = None) -> Principal:
        """Who calls. A refusal is audited here.

        Raises:
            CredentialInvalid: nobody knows.
            AccessDenied: nobody is asked who they are, and the call comes from beyond this machine.
        """
        try:
            if self._authenticator.open_to_anyone and not self.is_open_to(arrival):
                raise AccessDenied(
                    "This gateway asks nobody who they are, and so answers calls from its own machine alone: have the operator "
                    "set HEADRACE_GATEWAY_AUTHENTICATION=required, and make an API key."
                )
            if self._authenticator.open_to_anyone:
                return await self._authenticator.authenticate(credential)
            if arrival.transport == "kafka":
                check_of_record(credential)
            principal = await self._authenticator.authenticate(credential)
            check_made_for(principal, arrival.call_id, arrival.call_digest)
            return principal
        except (HeadraceError, asyncio.CancelledError) as error:
            self.refused(arrival, outcome_of(error), tool)
            raise

    def refused(self, arrival: Arrival, code: str, tool: str | None = None) -> None:
        """Audits a call that was refused before anybody knew who it was, unless there are too many of them."""
        left_out = self.strangers.take()
        if left_out is not None:
            self.write(Audited(self._now(), arrival, tool=tool, outcome=code, left_out=left_out))

    def admit(self, principal: Principal, arrival: Arrival, tool: str | None = None, *, stream: bool = False) -> Admission:
        """Lets one call in, for as long as the block lasts; audits it, however it ends. Entering the block raises:

            LimitExceeded: the principal does more than it may.
            CredentialInvalid: the credential does not count any more. Leaving the block raises this, too: what was done
                meanwhile is done, and its answer must not be given.

        Args:
            tool: name of the tool that is called, if it is one that there is: the audit holds no text of callers.
            stream: it is a subscription, of which a principal may have fewer or more than calls. Who serves it says when it was
                opened (`Admission.began`), and has to end it when `until_invalid` returns.
        """
        return Admission(self, principal, Audited(self._now(), arrival, principal, tool), stream)

    def turned_away(self, principal: Principal, arrival: Arrival, code: str, tool: str | None = None) -> None:
        """Audits a call that was refused before it was its turn."""
        self.write(Audited(self._now(), arrival, principal, tool, outcome=code))

    def check(self, principal: Principal) -> None:
        """Checks that the credential still counts.

        Raises:
            CredentialInvalid: it was revoked, or has expired.
        """
        if not (principal.vouched or self._authenticator.is_valid(principal)):
            raise CredentialInvalid("The credential does not count any more: get a new one.")

    async def until_invalid(self, principal: Principal) -> None:
        """Returns when the credential by which the principal came in was revoked, or has expired. Being cancelled is safe."""
        if principal.vouched:
            await asyncio.get_running_loop().create_future()
        await self._authenticator.until_invalid(principal)

    def write(self, audited: Audited) -> None:
        """Hands something to the audit, if there is one."""
        if self._audit is not None:
            self._audit.write(audited)


def outcome_of(error: BaseException) -> str:
    """How the audit names the end of a call that raised something."""
    if isinstance(error, HeadraceError):
        return error.code
    return CANCELLED if isinstance(error, asyncio.CancelledError) else HeadraceError.code
