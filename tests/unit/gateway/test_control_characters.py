"""Names with control characters: they show nothing, and end lines and keys elsewhere. None comes in, and texts may have any."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from headrace import ToolCall
from headrace.models import CallContext
from headrace_gateway.access import ALL_SCOPES, Principal
from support.access import HERE
from support.served import Served, served
from support.written_jobs import WORKER, Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

KNOWN = {"ann": Principal(subject="ann", scopes=ALL_SCOPES)}
CHARACTERS = pytest.mark.parametrize("character", ["\x00", "\n", "\t", "\x1b", "\x7f", "\x9b"])
DIGEST = {"kind": "digest", "args": {"to": ["x"]}}
ENTRIES = "/memory/trip/entries"


@pytest.fixture
async def gateway(log: WrittenLog, tmp_path: Path) -> AsyncIterator[Served]:
    Engines(log).define(kind="digest")
    async with served(log, tmp_path, KNOWN) as made:
        yield made


@pytest.fixture
async def client(gateway: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.http("ann") as made:
        yield made


def check_refused(response: httpx.Response, named: str) -> None:
    """That the answer says which name is wrong, and what with it."""
    told = response.json()
    code, message = (told["error"]["code"], told["error"]["message"]) if "error" in told else (told["code"], told["detail"])
    assert (response.status_code, code) == (400, "arguments_invalid"), told
    assert named in message and "it has control characters: leave them out" in message


@CHARACTERS
async def test_no_job_has_one_in_a_name(client: httpx.AsyncClient, log: WrittenLog, character: str) -> None:
    for name in ("orderingKey", "idempotencyKey", "userId", "conversationId"):
        check_refused(await client.post("/tools/scheduler", json={**DIGEST, name: f"a{character}b"}), name)
        check_refused(await client.post("/tools/scheduler", json={**DIGEST, name: f"a{character}"}), name)
    for name in ("userId", "conversationId"):
        asked = {"action": "list_jobs", name: character}
        check_refused(await client.post("/tools/worker_manager", json=asked), name)
        check_refused(await client.get("/jobs", params={name: f"a{character}"}), name)
        check_refused(await client.get("/events", params={name: f"a{character}"}), name)
    assert not log.cluster.topic_records(log.topics.jobs_name(WORKER))


@CHARACTERS
async def test_no_conversation_and_no_entry_has_one_in_a_name(client: httpx.AsyncClient, log: WrittenLog, character: str) -> None:
    def entries(**fields: Any) -> dict[str, Any]:
        return {"entries": [{"role": "user", "content": "x", **fields}]}

    ann = {"userId": "ann"}
    check_refused(await client.post(f"/memory/{quote('a' + character)}/entries", params=ann, json=entries()), "conversationId")
    check_refused(await client.get(f"/memory/{quote('a' + character)}/entries", params=ann), "conversationId")
    check_refused(await client.post(ENTRIES, params={"userId": f"ann{character}"}, json=entries()), "userId")
    check_refused(await client.post(ENTRIES, params=ann, json=entries(id=f"1{character}")), "id")
    assert log.topics.memory.name not in log.cluster.topic_names() or not log.cluster.topic_records(log.topics.memory.name)


async def test_a_text_may_have_any(client: httpx.AsyncClient) -> None:
    text = "one\n\ttwo \x1b[1mthree\x1b[0m \x00"
    sent = {"entries": [{"id": "1", "role": "tool", "content": text}]}
    assert (await client.post(ENTRIES, params={"userId": "ann"}, json=sent)).status_code == 200
    read = (await client.get(ENTRIES, params={"userId": "ann"})).json()
    assert read["entries"][0]["content"] == text
    args = {"to": [text]}
    made = (await client.post("/tools/scheduler", json={**DIGEST, "args": args})).json()
    assert (await client.get(f"/jobs/{made['data']['jobId']}")).json()["job"]["args"] == args


@pytest.mark.parametrize("path", ["/tools/scheduler", f"{ENTRIES}?userId=ann"])
async def test_half_a_surrogate_pair_is_no_json(client: httpx.AsyncClient, path: str) -> None:
    for half in (b"\\ud800", b"\\udfff", b"\xed\xa0\x80"):
        refused = await client.post(path, content=b'{"kind": "digest", "orderingKey": "' + half + b'"}')
        assert refused.status_code == 400
        assert "body_invalid" in refused.text


@CHARACTERS
async def test_no_context_has_one_by_whatever_it_comes(gateway: Served, log: WrittenLog, character: str) -> None:
    """As of calls that come as records, in which the context is a part of what strangers write."""
    core = gateway.app.state.gateway
    for name in ("userId", "conversationId", "source"):
        context = CallContext.model_validate({name: f"a{character}"})
        async with core.admit(KNOWN["ann"], HERE) as admission:
            answer = await core.call_tool(ToolCall(name="scheduler", arguments=DIGEST, context=context), admission)
        assert (answer.error.code, name in answer.error.message) == ("arguments_invalid", True)
    assert not log.cluster.topic_records(log.topics.jobs_name(WORKER))
