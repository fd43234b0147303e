"""What watches over an engine inside of its own process: for a loop that is blocked, and for those who ask how it is doing."""

from __future__ import annotations

from headrace.engine.health import Look
from headrace.engine.health_server import HealthServer
from headrace.engine.loop_watch import LoopWatch
from headrace.settings import EngineSettings


class Oversight:
    """The threads that look at an engine.

    Attributes:
        watch: of its event loop.
        server: answers `/healthz`; None where the settings name no port.
    """

    def __init__(self, settings: EngineSettings, look: Look) -> None:
        self.watch = LoopWatch()
        self.server: HealthServer | None = None
        if settings.health_port is not None:
            self.server = HealthServer(settings.health_host, settings.health_port, look, self.watch)

    def start(self) -> None:
        """To be called in the engine's event loop.

        Raises:
            ConfigurationError: the address of `/healthz` cannot be listened on.
        """
        self.watch.start()
        if self.server is not None:
            self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
        self.watch.stop()
