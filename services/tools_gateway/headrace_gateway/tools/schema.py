"""JSON Schema of the wire contract, as those who write and those who read it need it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class ReadSchema(GenerateJsonSchema):
    """What a reader takes: a field with a default may be left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the signature is pydantic's
        """A title that only repeats the field's name is noise for an agent that pays for each word."""
        return False


class WrittenSchema(ReadSchema):
    """What headrace writes: a field is left out only when it has no value.

    Schemas of pydantic's own serialisation mode would call fields without a value required, and lose the format of times.
    """

    def field_is_required(self, field: Any, total: bool) -> bool:
        schema = field["schema"]
        if schema["type"] != "default":
            return super().field_is_required(field, total)
        return "default_factory" in schema or schema.get("default") is not None


def read_schema(model: type[BaseModel], ref_template: str = DEFAULT_REF_TEMPLATE) -> dict[str, Any]:
    """Schema of what is read as `model`: arguments, and records, also those of other writers."""
    return model.model_json_schema(by_alias=True, mode="validation", schema_generator=ReadSchema, ref_template=ref_template)


def written_schema(model: type[BaseModel], ref_template: str = DEFAULT_REF_TEMPLATE) -> dict[str, Any]:
    """Schema of what headrace writes as `model`: answers."""
    return model.model_json_schema(by_alias=True, mode="validation", schema_generator=WrittenSchema, ref_template=ref_template)


def arguments_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Schema of a tool's arguments."""
    return read_schema(model)


def answer_schema(*models: type[BaseModel]) -> dict[str, Any]:
    """Schema of a tool's answer, which is one of the models. Its root is an object, and closed.

    What lies deeper stays open: a job shows fields that a newer version wrote.
    """
    if len(models) == 1:
        return close_root(written_schema(models[0]))
    definitions: dict[str, Any] = {}
    for model in models:
        schema = close_root(written_schema(model))
        definitions |= schema.pop("$defs", {})
        definitions[model.__name__] = schema
    return {
        "type": "object",
        "anyOf": [{"$ref": DEFAULT_REF_TEMPLATE.format(model=model.__name__)} for model in models],
        "$defs": definitions,
    }


def close_root(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, refusing names at its root that it does not list."""
    return {**schema, "additionalProperties": False}


def open_objects(schema: dict[str, Any]) -> list[str]:
    """Where a schema has an object with named properties that takes others too, as JSON pointers; the root always counts."""
    return [path for path, part in _objects(schema, "#") if part.get("additionalProperties") is not False]


def _objects(part: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(part, list):
        for number, item in enumerate(part):
            yield from _objects(item, f"{path}/{number}")
        return
    if not isinstance(part, dict):
        return
    if path == "#" or isinstance(part.get("properties"), dict):
        yield path, part
    for name, value in part.items():
        if name in ("properties", "$defs", "patternProperties") and isinstance(value, dict):
            for inner, schema in value.items():
                yield from _objects(schema, f"{path}/{name}/{inner}")
        elif name in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "additionalProperties", "not"):
            yield from _objects(value, f"{path}/{name}")
