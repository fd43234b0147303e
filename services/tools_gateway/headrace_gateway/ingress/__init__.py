"""Tool calls that come as Kafka records."""

from __future__ import annotations

from headrace_gateway.ingress.ingress import KafkaIngress

__all__ = ["KafkaIngress"]
