"""Answers the tool calls that stand in topics.

Kafka does not tell a consumer who wrote a record. So it is known whose a call is either by its topic, into which, by the brokers'
access lists, one tenant alone can write; or by a token in its record.
"""

from __future__ import annotations

import asyncio
import uuid
from functools import partial

from headrace import (
    CallOwner,
    CallTopics,
    Client,
    LastingRefusal,
    OwnedCall,
    ReceivedCall,
    Settings,
    ToolCall,
    ToolCallConsumer,
    ToolError,
    ToolRefusal,
    ToolSuccess,
)
from headrace_gateway.access import ALL_SCOPES, Arrival, Principal, RateLimited
from headrace_gateway.gateway import Gateway
from headrace_gateway.tools.refusals import refusal_for


class KafkaIngress:
    """The gateway's part in answering calls: one consumer for all callers, and one for each tenant with a topic of its own.

    Args:
        client: a started one; its owner stops it.
    """

    def __init__(self, settings: Settings, gateway: Gateway, client: Client) -> None:
        instance_id = f"gateway-{uuid.uuid4().hex[:12]}"
        self._running: list[ToolCallConsumer] = []
        self._consumers: dict[str, ToolCallConsumer] = {}
        for tenant in (None, *settings.ingress.tenant_names):
            answerer = Answerer(gateway, None if tenant is None else principal_of_topic(tenant))
            self._consumers[CallTopics.of(client.topics, tenant).calls.name] = client.tool_calls(
                answerer,
                tenant=tenant,
                instance_id=instance_id,
                refused=answerer.refused,
                concurrency=settings.ingress.concurrency,
            )

    @property
    def trouble(self) -> str | None:
        """Why calls are left lying at the moment, or None."""
        for topic, consumer in self._consumers.items():
            if (trouble := consumer.trouble) is not None:
                return f"tool calls are not taken in from {topic}: {trouble}"
        return None

    async def start(self) -> None:
        """Begins to answer.

        Raises:
            BrokerError: the brokers cannot be reached.
        """
        try:
            for consumer in self._consumers.values():
                await consumer.start()
                self._running.append(consumer)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Takes in no more calls, answers those that were taken in, and returns.

        Of all topics side by side: each may take as long as its grace, and whoever stops the gateway waits for no sum of them.
        """
        stopping, self._running = self._running, []
        ends = await asyncio.gather(*(consumer.stop() for consumer in stopping), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end


def principal_of_topic(tenant: str) -> Principal:
    """Whoever writes to a tenant's own topic of calls."""
    return Principal(subject="kafka", tenant=tenant, scopes=ALL_SCOPES, credential=f"topic:tool-calls.{tenant}", vouched=True)


class Answerer:
    """Does calls.

    Args:
        principal: who calls; None where each call has to say it.
    """

    def __init__(self, gateway: Gateway, principal: Principal | None) -> None:
        self._gateway = gateway
        self._principal = principal

    async def __call__(self, received: ReceivedCall) -> OwnedCall | ToolRefusal:
        """Whose a call is; a refusal where nobody knows."""
        call = received.call
        arrival = Arrival("kafka", call_id=call.id, call_digest=received.digest)
        try:
            principal = self._principal or await self._gateway.authenticate(received.credential, arrival)
        except Exception as error:
            return refusal_for(error, call.name)
        owner = CallOwner(principal.tenant, principal.only_user)
        return OwnedCall(
            owner,
            partial(self._do, call, principal, arrival),
            turn=partial(self._gateway.access.limits.turn, principal),
            turn_away=partial(self._turn_away, call, principal, arrival),
            caller=(principal.tenant, principal.subject),
            at_once=partial(self._gateway.access.limits.allows, principal),
        )

    def refused(self, code: str) -> None:
        """Audits a record that was refused because it is no call: in a topic for all nobody knows whose it was to be."""
        arrival = Arrival("kafka")
        if self._principal is None:
            self._gateway.access.refused(arrival, code)
        else:
            self._gateway.access.turned_away(self._principal, arrival, code)

    def _turn_away(self, call: ToolCall, principal: Principal, arrival: Arrival) -> ToolRefusal:
        error = RateLimited(
            f"{principal.subject!r} has called faster than it may for so long that too many of its calls wait: slow down, and "
            "send this one again.",
            retry_after=1,
        )
        self._gateway.access.turned_away(principal, arrival, error.code, self._gateway.tool_name(call.name))
        return refusal_for(error, call.name)

    async def _do(self, call: ToolCall, principal: Principal, arrival: Arrival) -> ToolSuccess | ToolRefusal:
        answer: ToolSuccess | ToolRefusal | None = None
        begun = asyncio.Event()
        try:
            async with self._gateway.admit(principal, arrival, self._gateway.tool_name(call.name)) as admission:
                answer = await self._gateway.call_tool(call, admission, began=begun.set)
        except asyncio.CancelledError:
            if not begun.is_set() or self._gateway.tools.changes_nothing(call.name):
                raise
            # The next owner of its partition would do it once more.
            return LastingRefusal(error=ToolError(code="interrupted", message="The gateway had to give the call up."))
        except Exception as error:
            refusal = refusal_for(error, call.name)
            return LastingRefusal(error=refusal.error) if self._is_done(call, answer) else refusal
        return answer

    def _is_done(self, call: ToolCall, answer: ToolSuccess | ToolRefusal | None) -> bool:
        """Whether a call whose answer must not be told, as its credential does not count any more, would be done twice if it came
        again."""
        if isinstance(answer, ToolSuccess):
            return not self._gateway.tools.changes_nothing(call.name)
        return isinstance(answer, LastingRefusal)
