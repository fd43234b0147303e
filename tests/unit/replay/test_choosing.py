"""What recorded jobs cannot be chosen by is refused: else nothing is found, and that looks as if there were nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.core.records import source_header, status_header, version_header
from headrace.core.snapshots import version_of
from headrace.errors import ArgumentsInvalid
from headrace.replay.exports.exporting import export_span
from headrace.replay.exports.file_history import FileHistory, read_file_history
from headrace.replay.history import Span, Wanted
from headrace.replay.recorded.log_history import LogHistory
from headrace.replay.recorded.wanted import parse_fields
from support.timed_jobs import ALWAYS, jobs
from support.written_jobs import Engines, WrittenLog

SPAN = Span(0, 100_000)


async def chosen(file: FileHistory, **fields: str) -> list[str]:
    wanted = Wanted(span=SPAN, fields={name.replace("__", "."): value for name, value in fields.items()})
    return [job.id async for batch in file.jobs(wanted) for job in batch]


async def exported(engines: Engines, history: LogHistory, folder: Path, *redact: str) -> FileHistory:
    engines.enqueue("job", args={"customer": {"name": "ada", "city": "bern"}, "kind": "digest"})
    await export_span(history, Wanted(span=SPAN), folder / "span.gz", redact=redact)
    return read_file_history(folder / "span.gz")


@pytest.mark.parametrize(
    ("redacted", "path"),
    [
        ("args.customer", "args.customer"),
        ("args.customer", "args.customer.name"),
        ("args.customer.name", "args.customer"),
        ("args.*", "args.kind"),
        ("args.*.name", "args.customer.name"),
        ("args.kind", "args"),
        ("ctx.userId", "userId"),
    ],
)
async def test_what_was_redacted_in_an_export(
    engines: Engines, history: LogHistory, tmp_path: Path, redacted: str, path: str
) -> None:
    file = await exported(engines, history, tmp_path, redacted)
    with pytest.raises(ArgumentsInvalid, match=f"by {path}: that was redacted in .*span.gz"):
        await chosen(file, **{path.replace(".", "__"): "ada"})


async def test_what_was_not_redacted_in_an_export(engines: Engines, history: LogHistory, tmp_path: Path) -> None:
    file = await exported(engines, history, tmp_path, "args.customer.name", "memory.content", "error.message")
    assert await chosen(file, args__kind="digest", args__customer__city="bern", status="queued", userId="ann") == ["job"]
    assert await chosen(file, args__kind="other") == []


async def test_a_job_whose_newest_record_is_damaged_is_chosen_by_what_never_changes(
    log: WrittenLog, engines: Engines, history: LogHistory
) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", epoch)
    version = version_of({**engines.snapshots["job"], "sequence": 9})
    headers = (source_header(engines.worker, 0, 0), version_header(version), status_header("failed"))
    log.put(engines.state(0), b"job", b"{}", headers)
    assert [job.id for job in await jobs(history, ALWAYS, tenant="default", **parse_fields(["status=damaged"]))] == ["job"]
    assert await jobs(history, failures="0") == []


@pytest.mark.parametrize(("status", "advice"), [("faild", "Did you mean failed?"), ("no", "There are")])
def test_a_status_that_no_job_has(status: str, advice: str) -> None:
    with pytest.raises(ArgumentsInvalid, match=f"no job has that status.*{advice}"):
        parse_fields([f"userId=ada,status={status}"])
    assert parse_fields(["status=failed,userId=ada", "args.status=faild"]) == {
        "status": "failed", "userId": "ada", "args.status": "faild"
    }  # fmt: skip
