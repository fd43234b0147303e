"""Kafka and Redpanda behind the interfaces of `headrace.ports`. Nothing else in headrace imports aiokafka."""

from headrace.kafka.log import KafkaLog

__all__ = ["KafkaLog"]
