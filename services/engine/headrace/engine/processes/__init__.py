"""Attempts in child processes: they can be killed, and their death costs that attempt only."""

from headrace.engine.processes.naming import reference_of as reference_of
from headrace.engine.processes.pool import ProcessPool as ProcessPool
from headrace.engine.processes.pool import ProcessRoom as ProcessRoom
from headrace.engine.processes.pool import process_pools as process_pools
