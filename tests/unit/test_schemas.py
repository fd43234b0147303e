"""The schemas that are written down are those of the code, and what headrace writes fits them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from typer.testing import CliRunner

from headrace.cli.main import application
from headrace.cli.schemas import kebab_case, schema_files, stale_files
from headrace.models import RECORDS, Attempt, CallContext, Job, JobError, JobProgress, JobRecord, RetryRules, Source, WireModel
from headrace.tool_models import TOOLS, JobList, SchedulerReceipt, ToolError, ToolRefusal, ToolSuccess

FOLDER = Path(__file__).parents[2] / "schemas"
FILES = schema_files()
DOCUMENTS: dict[str, Any] = {name: orjson.loads(content) for name, content in FILES.items() if name.endswith(".json")}


def test_what_is_written_down_is_up_to_date() -> None:
    assert stale_files(FOLDER, FILES) == []


def test_every_record_and_tool_has_a_file_of_its_own() -> None:
    assert len(DOCUMENTS) == len(RECORDS) + len(TOOLS)
    assert set(DOCUMENTS) == {f"{kebab_case(model.__name__)}.json" for model in (*RECORDS, *TOOLS)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_is_a_schema_of_draft_2020_12_without_a_host(name: str) -> None:
    document = DOCUMENTS[name]
    Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["$id"] == f"urn:headrace:schema:{name.removesuffix('.json')}:1"
    assert "://" not in FILES[name].decode().replace(document["$schema"], "")
    assert document["description"]


def test_the_index_names_every_file() -> None:
    index = FILES["README.md"].decode()
    assert all(f"]({name})" in index for name in DOCUMENTS)


@pytest.mark.parametrize(("name", "file"), [("Job", "job"), ("JobRecord", "job-record"), ("HTTPJob2List", "httpjob2-list")])
def test_kebab_case(name: str, file: str) -> None:
    assert kebab_case(name) == file


def validator(model: type[BaseModel]) -> Draft202012Validator:
    return Draft202012Validator(DOCUMENTS[f"{kebab_case(model.__name__)}.json"])


def made(model: type[WireModel], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Instances of a model; what is not named has its default."""
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


TEXT = st.text(min_size=1, max_size=20)
IDS = st.text(st.characters(exclude_characters="/\n", exclude_categories=["Cs"]), min_size=1, max_size=20)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))
ERRORS = made(JobError, type=TEXT, message=TEXT, traceback=st.none() | TEXT)
NUMBERS = st.integers(0, 10**9)
CONTEXTS = made(CallContext, user_id=st.none() | TEXT, conversation_id=st.none() | TEXT, source=st.none() | TEXT)
ATTEMPTS = made(
    Attempt,
    attempt=st.integers(1, 99),
    epoch=NUMBERS,
    instance_id=TEXT,
    started_at=TIMES,
    finished_at=st.none() | TIMES,
    status=st.sampled_from(["running", "completed", "failed", "interrupted"]),
    error=st.none() | ERRORS,
)
POLICIES = made(
    RetryRules,
    max_attempts=st.integers(1, 99),
    initial=st.floats(0, 1e4),
    factor=st.floats(1, 10),
    retry_on=st.lists(TEXT, max_size=2),
)
JOBS = made(
    Job,
    id=IDS,
    worker_name=st.just("a_worker"),
    status=st.sampled_from(["queued", "running", "completed", "failed", "cancelled", "scheduled"]),
    created_at=TIMES,
    updated_at=TIMES,
    args=st.none() | st.just({"a": 1}),
    ctx=CONTEXTS,
    error=st.none() | ERRORS,
    attempts=st.lists(ATTEMPTS, max_size=2),
    finished_at=st.none() | TIMES,
    progress=st.none() | made(JobProgress, fraction=st.floats(0, 1), text=st.none() | TEXT, at=TIMES),
    failures=NUMBERS,
    run_at=st.none() | TIMES,
    retry=st.none() | POLICIES,
    result=st.none() | NUMBERS | st.lists(TEXT, max_size=2),
    source=st.none() | made(Source, topic=TEXT, partition=NUMBERS, offset=NUMBERS),
)
RECORDS_OF_JOBS = made(
    JobRecord,
    id=IDS,
    worker_name=st.just("a_worker"),
    created_at=TIMES,
    args=st.just({}),
    ctx=CONTEXTS,
    retry=st.none() | POLICIES,
    attempt_timeout=st.none() | st.floats(0.001, 1e6),
)
WRITTEN = st.one_of(
    JOBS,
    RECORDS_OF_JOBS,
    made(JobList, jobs=st.lists(JOBS, max_size=2), next_cursor=st.none() | TEXT),
    made(SchedulerReceipt, job_id=IDS, worker_name=st.just("a_worker")),
    made(ToolSuccess, data=st.just({"a": 1})),
    made(ToolRefusal, error=made(ToolError, code=TEXT, message=TEXT)),
)


@given(WRITTEN)
def test_what_is_written_fits_its_schema(value: WireModel) -> None:
    validator(type(value)).validate(orjson.loads(orjson.dumps(value.to_wire())))


@pytest.mark.parametrize("model", [ToolSuccess, ToolRefusal, SchedulerReceipt, JobList])
def test_an_answer_without_what_is_always_written_does_not_fit(model: type[BaseModel]) -> None:
    assert not validator(model).is_valid({})
    required = DOCUMENTS[f"{kebab_case(model.__name__)}.json"]["required"]
    assert {"ToolSuccess": {"ok", "data"}, "ToolRefusal": {"ok", "error"}}.get(model.__name__, set(required)) == set(required)


def test_arguments_are_closed_and_records_open() -> None:
    closed = {name for name, document in DOCUMENTS.items() if document.get("additionalProperties") is False}
    assert closed == {"scheduler-arguments.json", "worker-manager-arguments.json", "memory-compaction-arguments.json"}


def test_the_command_writes_and_checks(tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = ["schemas", "--out", str(tmp_path / "made")]
    assert run(application, [*out, "--check"]).exit_code == 1
    assert run(application, out).exit_code == 0
    assert run(application, [*out, "--check"]).exit_code == 0

    (tmp_path / "made" / "job.json").write_text("{}")
    (tmp_path / "made" / "gone.json").write_text("{}")
    checked = run(application, [*out, "--check"])
    assert checked.exit_code == 1
    assert "gone.json, job.json" in checked.output
    assert run(application, out).exit_code == 0
    assert run(application, [*out, "--check"]).exit_code == 0
    assert not (tmp_path / "made" / "gone.json").exists()


def test_the_command_says_when_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(application, ["schemas", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "--out" in result.output
