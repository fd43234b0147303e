"""What all models of the wire have in common: camelCase JSON on the wire, snake_case in Python."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

SCHEMA_VERSION: Final = 1
DEFAULT_TENANT: Final = "default"

SchemaVersion = Annotated[int, Field(ge=1, le=SCHEMA_VERSION)]


class WireModel(BaseModel):
    """Base of all that goes over a wire."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True, extra="allow"
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON object, camelCase, without fields that have no value."""
        fields = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        # An unknown field without a value is not ours to leave out.
        unknown = {name: None for name, value in (self.__pydantic_extra__ or {}).items() if value is None}
        return {**fields, **unknown}


class ClosedModel(WireModel):
    """Base of arguments that strangers send: an unknown name is refused."""

    model_config = ConfigDict(extra="forbid")
