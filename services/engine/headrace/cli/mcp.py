"""`headrace mcp`: the tools gateway for one host, over standard input and output."""

from __future__ import annotations

import signal

from headrace.cli.common import BootstrapServers, NamespaceOption, errors_shown, log_to_stderr, settings_from
from headrace.runtime import run


def mcp(bootstrap_servers: BootstrapServers = None, namespace: NamespaceOption = None) -> None:
    """Serve the Model Context Protocol on standard input and output, for a host that starts this command; it ends when the host
    closes its input. HEADRACE_API_KEY has the host's API key, where keys are asked for."""
    # Here, as in every command that needs it: the protocol takes most of a second to import.
    from headrace_gateway import run_stdio

    with errors_shown():
        settings = settings_from(bootstrap_servers, namespace)
        # The host shows what comes on standard error to a user who did not ask for it.
        log_to_stderr(settings, default="WARNING")
        # Nothing has to be put in order: what was accepted stands in the log. Who reads standard input cannot be interrupted.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        run(run_stdio(settings))
