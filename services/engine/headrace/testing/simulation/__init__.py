"""Real engines over a Kafka in memory, in virtual time, while everything goes wrong that a seed draws.

report = simulate(Scenario.of(17))
assert not report.violations
"""

from headrace.testing.simulation.run import Report, simulate
from headrace.testing.simulation.scenario import FaultKind, Scenario

__all__ = ["FaultKind", "Report", "Scenario", "simulate"]
