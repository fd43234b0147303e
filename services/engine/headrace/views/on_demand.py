"""A view of jobs that is opened when somebody first looks at jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.errors import BrokerUnreachable, HeadraceError
from headrace.models import Job
from headrace.views.jobs import JobView

_logger = logging.getLogger(__name__)

_CATCH_UP_SECONDS = 60.0
_ASK_SECONDS = 2.0
_ANSWER_SECONDS = 3.0
"""How long the brokers may take to answer before nobody is told any more that all is well."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a client can accept jobs, and its view of jobs has caught up with the log.

    Attributes:
        ready: whether jobs can be accepted, and `list_jobs` tells of everything that had happened when the client started.
        behind: how many records it has yet to read.
        detail: the same in words.
    """

    ready: bool
    behind: int
    detail: str


class JobViewOnDemand:
    """The view of jobs of one client.

    Args:
        make: makes the view.
        servers: the brokers, for what is said when they do not answer.
        wanted: whether it is opened at the start; then `readiness` tells how far it is, and nobody waits for it.
    """

    def __init__(self, make: Callable[[], JobView], servers: str, *, wanted: bool) -> None:
        self._make = make
        self._servers = servers
        self.wanted = wanted
        self._view: JobView | None = None
        self._lock = asyncio.Lock()
        self._read = False
        self._asking: asyncio.Task[None] | None = None
        self._silence: str | None = None

    async def open(self) -> JobView:
        """The view, which has been read up to what the log held when it was first opened, unless it was wanted from the start.

        Raises:
            BrokerUnreachable: that took too long.
        """
        async with self._lock:
            if self._view is None:
                view = self._make()
                await view.start()
                self._view = view
                if self.wanted:
                    self._asking = asyncio.create_task(self._keep_asking(view), name="headrace-view-asking")
            view = self._view
        if not self.wanted and not self._read:
            # Whoever did not ask for it beforehand has no `readiness` to look at: half of the jobs would pass for all of them.
            try:
                await view.wait_caught_up(_CATCH_UP_SECONDS)
            except TimeoutError:
                raise self._unread(view) from None
            self._read = True
        return view

    async def open_caught_up(self, seconds: float) -> JobView:
        """The view, which has been read up to what the log held at its start.

        Raises:
            BrokerUnreachable: it was not within so many seconds.
        """
        view = await self.open()
        try:
            await view.wait_caught_up(seconds)
        except TimeoutError:
            raise self._unread(view, seconds) from None
        return view

    async def open_up_to_now(self) -> JobView:
        """The view, which knows of every job that there is at the time of the call.

        Raises:
            BrokerUnreachable: that took too long.
        """
        view = await self.open()
        try:
            await view.catch_up(_CATCH_UP_SECONDS)
        except TimeoutError:
            raise self._unread(view) from None
        return view

    async def show(self, jobs: Sequence[Job]) -> None:
        """Puts accepted jobs into the view, if it is open."""
        if self._view is not None:
            try:
                await self._view.add_accepted(*jobs)
            except Exception:  # the jobs are accepted, whatever becomes of a table on this machine
                _logger.warning("accepted jobs are not in the view yet; it will read them from the log", exc_info=True)

    async def find(self, job_id: str, tenant: str) -> Job | None:
        """A job, if the view is open and knows it."""
        return None if self._view is None else await self._view.get_job(job_id, tenant=tenant)

    def readiness(self) -> Readiness:
        """Whether the view has caught up, and how far it is."""
        if self._view is None:
            return Readiness(not self.wanted, 0, "no view of jobs is open")
        if (trouble := self._view.trouble) is not None:
            return Readiness(False, self._view.behind, f"the view of jobs cannot be read on: {trouble}")
        behind = self._view.behind
        if self._silence is not None:
            return Readiness(False, behind, f"the brokers do not answer: {self._silence}")
        if self._view.caught_up:
            return Readiness(True, behind, "the view of jobs is up to date")
        # How much there is to read is known when the ends of its topics are.
        far = f"is {behind} records behind" if behind else "is being opened, and how much it has to read is not known yet"
        return Readiness(False, behind, f"the view of jobs {far}")

    async def stop(self) -> None:
        """Closes the view, if it is open."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
            self._asking = None
        if self._view is not None:
            await self._view.stop()
            self._view = None

    async def _keep_asking(self, view: JobView) -> None:
        """Keeps knowing whether the brokers answer: a view that reads nothing new looks the same while they are away."""
        while True:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await view.ask()
                self._silence = None
            except TimeoutError:
                self._silence = f"nothing came within {_ANSWER_SECONDS:g} s."
            except HeadraceError as error:
                self._silence = str(error)
            await asyncio.sleep(_ASK_SECONDS)

    def _unread(self, view: JobView, seconds: float | None = None) -> BrokerUnreachable:
        return BrokerUnreachable(
            f"{self._servers}: the jobs could not be read within {seconds or _CATCH_UP_SECONDS:g} s "
            f"({view.trouble or f'{view.behind} records are left'}); what was read is kept, and the next look goes on."
        )
