"""The topics of tool calls that a gateway answers: one for all callers, and one for each tenant that has its own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import orjson
import pytest

from headrace import (
    BrokerUnreachable,
    Client,
    ClosedModel,
    LastingRefusal,
    OwnedCall,
    ReceivedCall,
    ToolCall,
    ToolRefusal,
    WireModel,
    load_settings,
)
from headrace.ports import NewRecord, TopicPartition
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace_gateway import Caller, Gateway, ToolAnnotations, ToolDefinition, ToolRegistry
from headrace_gateway.access import Anyone, Principal
from headrace_gateway.access.strangers import Strangers
from headrace_gateway.ingress import KafkaIngress
from headrace_gateway.ingress.ingress import Answerer, principal_of_topic
from support.access import RememberedAudit, a_principal
from support.engines import eventually

TENANTS = (None, "acme", "rival")


class Nothing(ClosedModel):
    """No arguments."""


class Done(WireModel):
    """Nothing to tell."""


class HeldTool:
    """A tool whose calls end when their tenant is let go.

    Attributes:
        entered: the tenants whose calls have begun.
    """

    def __init__(self) -> None:
        self.entered: set[str] = set()
        self.let_go: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def handle(self, arguments: Nothing, caller: Caller) -> Done:
        self.entered.add(caller.tenant)
        await self.let_go[caller.tenant].wait()
        return Done()

    def registry(self) -> ToolRegistry:
        hints = ToolAnnotations(read_only=True)
        tool = ToolDefinition(
            name="held", description="For tests.", arguments=Nothing, answers=(Done,), annotations=hints, handler=self.handle
        )
        return ToolRegistry([tool])


@pytest.mark.parametrize("last", TENANTS)
async def test_all_topics_are_left_side_by_side(tmp_path: Path, last: str | None) -> None:
    """What is under way in one of them holds up none of the others."""
    cluster = InMemoryCluster()
    settings = load_settings(
        bootstrap_servers="memory:9092",
        data_directory=tmp_path,
        namespace="test",
        ingress={"enabled": True, "tenants": "acme,rival"},
    )
    tool = HeldTool()
    async with Client(settings, log=InMemoryLog(cluster)) as client:
        topics = client.topics
        ingress = KafkaIngress(settings, Gateway(settings, client, tool.registry()), client)
        await ingress.start()
        value = orjson.dumps({"callId": "a", "name": "held"})
        for tenant in TENANTS:
            cluster.append(TopicPartition(topics.tool_calls(tenant).name, 0), NewRecord(b"a", value))

        async def begun() -> bool:
            return len(tool.entered) == len(TENANTS)

        async def others_left() -> bool:
            return not any(cluster.members(topics.tool_call_group(each)) for each in TENANTS if each != last)

        await eventually(begun)
        for tenant in TENANTS:
            if tenant != last:
                tool.let_go[tenant or "default"].set()
        stopping = asyncio.create_task(ingress.stop())
        await eventually(others_left)
        assert not stopping.done()
        assert cluster.members(topics.tool_call_group(last))
        tool.let_go[last or "default"].set()
        await stopping
        assert [len(cluster.topic_records(topics.tool_results(each).name)) for each in TENANTS] == [1, 1, 1]


@pytest.mark.parametrize("tenant", [None, "acme"], ids=["shared", "own"])
async def test_a_backlog_is_taken_in_at_the_rate_and_none_of_it_is_refused(tmp_path: Path, tenant: str | None) -> None:
    cluster = InMemoryCluster()
    settings = load_settings(
        bootstrap_servers="memory:9092",
        data_directory=tmp_path,
        namespace="test",
        ingress={"enabled": True, "tenants": "acme"},
        limits={"calls_per_second": 200.0, "burst": 20, "calls_at_once": 3},
    )
    tool, audit = HeldTool(), RememberedAudit()
    tool.let_go[tenant or "default"].set()
    async with Client(settings, log=InMemoryLog(cluster)) as client:
        topics = client.topics
        await InMemoryLog(cluster).create_topics([topics.tool_calls(tenant)])
        for number in range(150):
            value = orjson.dumps({"callId": f"call-{number}", "name": "held"})
            cluster.append(TopicPartition(topics.tool_calls(tenant).name, 0), NewRecord(f"call-{number}".encode(), value))
        ingress = KafkaIngress(settings, Gateway(settings, client, tool.registry(), audit=audit), client)
        await ingress.start()

        async def answered() -> bool:
            return len(cluster.topic_records(topics.tool_results(tenant).name)) >= 150

        await eventually(answered)
        await ingress.stop()
    answers = [orjson.loads(record.value or b"") for record in cluster.topic_records(topics.tool_results(tenant).name)]
    assert {each["callId"] for each in answers if each["ok"]} == {f"call-{number}" for number in range(150)}
    assert len(answers) == 150
    assert [told.outcome for told in audit.told] == ["ok"] * 150


async def test_calls_are_counted_by_what_the_limits_count(tmp_path: Path) -> None:
    """Not by whose they are: users of one tenant who may all act for all of it have a share each."""
    settings = load_settings(
        bootstrap_servers="memory:9092", data_directory=tmp_path, namespace="test", limits={"burst": 20, "calls_at_once": 3}
    )
    received = ReceivedCall(ToolCall(id="a", name="scheduler"), None, "")
    async with Client(settings, log=InMemoryLog(InMemoryCluster())) as client:
        gateway = Gateway(settings, client)
        ann, bob = [await Answerer(gateway, a_principal(subject))(received) for subject in ("ann", "bob")]
        assert isinstance(ann, OwnedCall) and isinstance(bob, OwnedCall)
        assert ann.owner == bob.owner
        assert ann.caller != bob.caller
        assert ann.at_once is not None
        assert (ann.at_once(3), ann.at_once(4)) == (True, False)


class Revoking(Anyone):
    """Lets everybody in until they are revoked."""

    revoked = False

    def is_valid(self, principal: Principal) -> bool:
        return not self.revoked


@pytest.mark.parametrize("ends", ["done", "refused"])
@pytest.mark.parametrize("repeatable", [False, True])
async def test_a_call_that_was_done_when_its_credential_ceased_to_count_is_done_again_only_if_that_changes_nothing(
    tmp_path: Path, repeatable: bool, ends: str
) -> None:
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path, namespace="test")
    authenticator = Revoking()

    async def handle(arguments: Nothing, caller: Caller) -> Done:
        authenticator.revoked = True
        if ends == "refused":
            raise BrokerUnreachable("gone, after something was done")
        return Done()

    hints = ToolAnnotations(read_only=False)
    tool = ToolDefinition(
        name="own",
        description="For tests.",
        arguments=Nothing,
        answers=(Done,),
        annotations=hints,
        handler=handle,
        repeatable=repeatable,
    )
    async with Client(settings, log=InMemoryLog(InMemoryCluster())) as client:
        answerer = Answerer(Gateway(settings, client, ToolRegistry([tool]), authenticator), None)
        owned = await answerer(ReceivedCall(ToolCall(id="a", name="own"), None, ""))
        assert isinstance(owned, OwnedCall)
        done = await owned.do()
        assert isinstance(done, ToolRefusal)
        assert (done.error.code, isinstance(done, LastingRefusal)) == ("unauthenticated", not repeatable)
        # Before anything is done it is for now.
        again = await owned.do()
        assert isinstance(again, ToolRefusal) and not isinstance(again, LastingRefusal)


@pytest.mark.parametrize("kind", ["own", "repeatable", "read-only"])
async def test_a_call_that_is_cut_off_is_done_again_only_if_that_changes_nothing(tmp_path: Path, kind: str) -> None:
    settings = load_settings(
        bootstrap_servers="memory:9092", data_directory=tmp_path, namespace="test", ingress={"enabled": True, "tenants": "acme"}
    )
    begun: list[str | None] = []
    held, cluster = asyncio.Event(), InMemoryCluster()

    async def handle(arguments: Nothing, caller: Caller) -> Done:
        begun.append(caller.call_id)
        await held.wait()
        return Done()

    tool = ToolDefinition(
        name="own",
        description="For tests.",
        arguments=Nothing,
        answers=(Done,),
        annotations=ToolAnnotations(read_only=kind == "read-only"),
        handler=handle,
        repeatable=kind == "repeatable",
    )
    async with Client(settings, log=InMemoryLog(cluster)) as client:
        topics, gateway = client.topics, Gateway(settings, client, ToolRegistry([tool]))
        results = topics.tool_results("acme").name
        value = orjson.dumps({"callId": "a", "name": "own"})
        source = TopicPartition(topics.tool_calls("acme").name, 0)
        await InMemoryLog(cluster).create_topics([topics.tool_calls("acme")])
        cluster.append(source, NewRecord(b"a", value))

        async def is_begun() -> bool:
            return len(begun) == 1

        async def is_answered() -> bool:
            return len(cluster.topic_records(results)) == 1

        async def is_committed() -> bool:
            return cluster.committed_offsets(topics.tool_call_group("acme")).get(source) == 1

        answerer = Answerer(gateway, principal_of_topic("acme"))
        first = client.tool_calls(answerer, tenant="acme", instance_id="one")
        await first.start()
        await eventually(is_begun)
        await first.stop(grace_seconds=0)
        held.set()
        async with client.tool_calls(answerer, tenant="acme", instance_id="two"):
            await eventually(is_answered)
            await eventually(is_committed)
        [record] = cluster.topic_records(results)
        answer = orjson.loads(record.value or b"")
    if kind == "own":
        assert (begun, answer["error"]["code"]) == (["a"], "interrupted")
        assert dict(record.headers)["headrace-may-be-done"] == b"true"
    else:
        assert (begun, answer["ok"]) == (["a", "a"], True)


async def test_what_is_no_call_is_audited_as_far_as_it_is_known_whose_it_was_and_no_further(tmp_path: Path) -> None:
    settings = load_settings(
        bootstrap_servers="memory:9092", data_directory=tmp_path, namespace="test", ingress={"enabled": True, "tenants": "acme"}
    )
    cluster, audit = InMemoryCluster(), RememberedAudit()
    calls = [
        (b"a", b"no json"),
        (b"b", orjson.dumps({"callId": "other", "name": "held"})),
        (b"c", orjson.dumps({"callId": "c", "name": "held", "arguments": [1]})),
    ]
    async with Client(settings, log=InMemoryLog(cluster)) as client:
        topics = client.topics
        gateway = Gateway(settings, client, HeldTool().registry(), audit=audit)
        gateway.access.strangers = Strangers(at_once=2)
        ingress = KafkaIngress(settings, gateway, client)
        await ingress.start()
        for tenant in ("acme", None):
            for key, value in calls:
                cluster.append(TopicPartition(topics.tool_calls(tenant).name, 0), NewRecord(key, value))

            async def refused(tenant: str | None = tenant) -> bool:
                return len(cluster.topic_records(topics.tool_results(tenant).name)) >= len(calls)

            await eventually(refused)
        await ingress.stop()
    told = [(each.outcome, each.arrival.transport, each.principal and each.principal.tenant) for each in audit.told]
    assert told == [("call_invalid", "kafka", "acme")] * 3 + [("call_invalid", "kafka", None)] * 2
    assert gateway.access.strangers.left_out == 1


async def test_a_call_that_is_turned_away_is_audited(tmp_path: Path) -> None:
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path, namespace="test")
    audit = RememberedAudit()
    async with Client(settings, log=InMemoryLog(InMemoryCluster())) as client:
        answerer = Answerer(Gateway(settings, client, HeldTool().registry(), audit=audit), a_principal("ann"))
        owned = await answerer(ReceivedCall(ToolCall(id="a", name="held"), None, ""))
        assert isinstance(owned, OwnedCall) and owned.turn_away is not None
        assert owned.turn_away().error.code == "rate_limited"
    [told] = audit.told
    assert told.principal is not None
    assert (told.outcome, told.tool, told.principal.subject) == ("rate_limited", "held", "ann")
