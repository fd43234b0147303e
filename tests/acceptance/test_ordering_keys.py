"""The ordering key of a job, however its worker and its arguments are given."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from headrace import AbstractWorker, Client, JobContext, Settings
from support.engines import engine_with


class OfUser(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)
    user_id: str


class Sorted(AbstractWorker[OfUser]):
    name = "sorted"
    order_by = ("userId",)

    async def run(self, args: OfUser, ctx: JobContext) -> None: ...


async def test_the_ordering_key_is_the_same_however_the_arguments_are_spelled(settings: Settings) -> None:
    async with engine_with(settings, Sorted) as engine:
        jobs = [
            await engine.enqueue("sorted", {"userId": "u/1"}),
            await engine.enqueue("sorted", {"user_id": "u/1"}),
            await engine.enqueue("sorted", OfUser(user_id="u/1")),
        ]
    assert {job.ordering_key for job in jobs} == {"u%2F1"}
    assert len({job.source.partition for job in jobs if job.source}) == 1


class WithDefaults(BaseModel):
    region: str = "north"
    number: int = 7
    ticket: str = Field(default_factory=lambda: "made anew")


class OfRegion(AbstractWorker[WithDefaults]):
    name = "of_region"
    order_by = ("region", "number")

    async def run(self, args: WithDefaults, ctx: JobContext) -> None: ...


async def test_the_ordering_key_is_the_same_by_class_and_by_name(settings: Settings) -> None:
    async with Client(settings) as client:
        client.define(OfRegion().definition())
        ways: tuple[Any, ...] = (OfRegion, OfRegion(), "of_region")
        keys = [
            [(await client.enqueue(way, args)).ordering_key for way in ways]
            for args in ({}, WithDefaults(), {"region": "south"}, {"region": "north", "number": 7}, {"number": 8})
        ]
    expected = ("north/7", "north/7", "south/7", "north/7", "north/8")
    assert keys == [[key] * 3 for key in expected]
