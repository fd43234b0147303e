"""Every setting of headrace, by group. Each is read from an environment variable `HEADRACE_<GROUP>_<NAME>`.

A secret can also be given as a file: `HEADRACE_KAFKA_SASL_PASSWORD_FILE` names a file whose content, without the closing line
break, is the password. The broker's address is the one exception to the prefix: `KAFKA_BOOTSTRAP_SERVERS` is what every Kafka
tool reads.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from headrace.errors import ConfigurationError
from headrace.namespaces import Namespace

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class Environment(PydanticBaseSettingsSource):
    """Reads each setting from its own variable alone, and a secret also from the file that `<VARIABLE>_FILE` names.

    pydantic-settings' source would read further names (a bare `BOOTSTRAP_SERVERS`), and a whole group as JSON.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = environment_variable(self.settings_cls, field_name)
        value = os.environ.get(variable) or None
        if value is None and is_secret(field):
            value = _content_of(f"{variable}_FILE")
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        fields = {name: field for name, field in self.settings_cls.model_fields.items() if group_of(field) is None}
        found = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def _content_of(variable: str) -> str | None:
    path = os.environ.get(variable)
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigurationError(f"{variable} names {path}, which cannot be read: {error.strerror}.") from error
    except ValueError:  # not UTF-8, and what it says of that would show a part of the secret
        raise ConfigurationError(f"{variable} names {path}, which is not a text file in UTF-8.") from None


def is_secret(field: FieldInfo) -> bool:
    """Whether the setting's value is not to be shown, and can be given as a file."""
    return SecretStr in (field.annotation, *get_args(field.annotation))


def group_of(field: FieldInfo) -> type[SettingsGroup] | None:
    """The group that stands in this field of `Settings`; None for a setting."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, SettingsGroup) else None


class SettingsGroup(BaseSettings):
    """One group of settings. Values given in code win over the environment, and the environment over secret files."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Environment(settings_cls)


class KafkaSettings(SettingsGroup):
    """How a process talks to the brokers."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_KAFKA_")

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How connections are protected."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="How the user name and password are proved."
    )
    sasl_username: str | None = Field(None, description="User name for SASL.")
    sasl_password: SecretStr | None = Field(None, description="Password for SASL.")
    ssl_ca_file: Path | None = Field(None, description="PEM file of the authorities to trust; the system's when unset.")
    ssl_certificate_file: Path | None = Field(None, description="PEM file with this client's certificate.")
    ssl_key_file: Path | None = Field(None, description="PEM file with the key of this client's certificate.")
    ssl_key_password: SecretStr | None = Field(None, description="Password of that key.")
    connect_timeout_seconds: float = Field(10.0, gt=0, description="How long to try to reach the brokers at the start.")
    replication_factor: int | None = Field(
        None, ge=1, description="Copies of each partition of new topics; the smaller of 3 and the brokers when unset."
    )


class EngineSettings(SettingsGroup):
    """How an engine runs jobs."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_ENGINE_")

    concurrency: int = Field(100, ge=1, description="Jobs of one worker that an engine runs at a time, unless the worker says.")
    partitions: int = Field(8, ge=1, description="Partitions of a new job topic. It cannot be changed later.")
    buffer_per_partition: int = Field(
        500,
        ge=2,
        le=10_000,
        description="Fetched jobs of a partition that have not ended, above which it is paused; at least a worker's concurrency.",
    )
    buffer_bytes_per_partition: int = Field(
        32 * 1024 * 1024, ge=1024, description="Bytes of such jobs' records, above which the partition is paused too."
    )
    stuck_seconds: float = Field(
        300.0,
        ge=0,
        description="How long an attempt that cannot be stopped may go on after its timeout, before its engine drains and ends.",
    )
    max_crashes: int = Field(
        3, ge=2, description="Processes that may die while a job runs in them, before it goes to dead-letters."
    )
    max_engine_deaths: int = Field(
        10,
        ge=1,
        description="Engines that may die while a job runs beside them, in a process of its own, before it goes to dead-letters.",
    )
    grace_seconds: float = Field(30.0, ge=0, description="How long running jobs may go on after SIGTERM.")
    commit_interval_seconds: float = Field(1.0, gt=0, description="How often finished offsets are committed.")
    lease_seconds: float = Field(
        25.0,
        ge=2,
        description="How long a job partition is kept without renewing its lease, which is done eight times as often."
        " Another engine waits for somewhat longer after a crash.",
    )
    lease_by_log_time: bool = Field(
        True, description="Whether a lease is over, too, when it is old by the brokers' clocks, which may differ by 10 s."
    )
    idempotency_window_seconds: float = Field(
        3600.0,
        ge=1,
        le=7 * 86_400,
        description="How long after its end a job with an idempotency key, or a job's child, is not done again."
        " Clients and engines must have the same.",
    )
    janitor: bool = Field(True, description="Whether the engine takes its part in keeping `job-state` fit for compaction.")
    janitor_records_per_second: int = Field(
        20_000, ge=100, description="How many records of `job-state` the janitor of an engine reads at most."
    )
    job_retention_seconds: float = Field(
        7 * 24 * 3600.0,
        gt=0,
        description="How long jobs that have ended are kept, from their acceptance.",
    )
    session_timeout_seconds: float = Field(45.0, ge=6, description="Silence after which the group takes an engine for dead.")
    heartbeat_interval_seconds: float = Field(1.0, gt=0, description="How often an engine tells its group that it lives.")
    presence_interval_seconds: float = Field(5.0, gt=0, description="How often an engine says in `workers` how it is doing.")
    health_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Port on which an engine answers `/healthz`; several of one command take those from there on, and 0 is any"
        " free one. When unset it answers nowhere.",
    )
    health_host: str = Field("127.0.0.1", description="Address on which it does.")


class GatewaySettings(SettingsGroup):
    """Where the tools gateway listens, and what it takes."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_GATEWAY_")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8787, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    enqueue_timeout_seconds: float = Field(10.0, gt=0, description="How long a tool call waits for the acknowledgement.")
    maximum_body_bytes: int = Field(1_048_576, ge=1_024, description="Largest request body that is read.")
    authentication: Literal["none", "required"] | None = Field(
        None,
        description="`required`: every call needs an API key, or a token of `HEADRACE_AUTH_ISSUER`. `none`: nobody is asked who"
        " they are, and the gateway listens on this machine alone. When unset it is `required` if there is such an issuer.",
    )
    allowed_hosts: str | None = Field(
        None,
        description="Names under which it may be addressed, with commas between, beside those of this machine's loopback and"
        " `HEADRACE_GATEWAY_HOST`; `*` for any.",
    )
    allowed_origins: str | None = Field(
        None,
        description="Web pages that may call it, as `https://host:port` with commas between, beside those of this machine's"
        " loopback; `*` for any. The headers by which browsers let pages of other origins call (CORS) are for a proxy before"
        " it to add.",
    )
    view_process: bool = Field(
        True,
        description="Whether a process of its own keeps the gateway's view of jobs, beside the one that answers calls.",
    )
    audit_retention_days: float = Field(90.0, gt=0, description="How long the records of `audit` are kept.")


class LimitSettings(SettingsGroup):
    """How much each principal (tenant and subject) may do in one gateway."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_LIMITS_")

    calls_per_second: float = Field(200.0, gt=0, description="Calls in the long run; more are answered with 429.")
    burst: int = Field(400, ge=1, description="Calls at once, after a rest.")
    calls_at_once: int = Field(100, ge=1, description="Calls under way at a time.")
    streams_at_once: int = Field(50, ge=0, description="Streams of events that are open at a time.")


class AuthSettings(SettingsGroup):
    """The issuer of the tokens (OIDC, JWT) with which one may come in, beside API keys."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_AUTH_")

    issuer: str | None = Field(None, description="The issuer, as its tokens have it in `iss`; no token counts when unset.")
    audience: str | None = Field(None, description="What a token must have in `aud`; needed with an issuer.")
    jwks_url: str | None = Field(
        None, description="Where the issuer's public keys are; its `/.well-known/openid-configuration` says it when unset."
    )
    subject_claim: str = Field("sub", description="The claim that names the user, or the service.")
    tenant_claim: str | None = Field(
        None, description="The claim that names the tenant; a token without it is refused. When unset, all are of `..._TENANT`."
    )
    tenant: str = Field("default", min_length=1, max_length=200, description="The tenant of tokens, if no claim names it.")
    scopes_claim: str = Field("scope", description="The claim with the scopes: a text with spaces between, or a list.")
    call_claim: str = Field(
        "callId",
        description="The claim that names the one call, by its id, for which a token was made. Such a token counts in the record"
        " of that call, and nowhere else; no other one counts in a record.",
    )
    digest_claim: str = Field(
        "callDigest",
        description="The claim that has the SHA-256 of the one record of a call, by its value, for which a token was made, as"
        " hexadecimal digits. A token that has it counts for no other record, whatever the call's id.",
    )
    leeway_seconds: float = Field(30.0, ge=0, le=300, description="How far the issuer's clock may differ.")
    keys_refresh_seconds: float = Field(
        600.0, ge=1, description="How often the issuer's public keys are fetched, if no unknown one is named before."
    )


class IngressSettings(SettingsGroup):
    """Tool calls that come to the gateway as Kafka records."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_INGRESS_")

    enabled: bool = Field(False, description="Whether the gateway answers the calls that stand in `tool-calls`.")
    tenants: str = Field(
        "",
        description="Tenants with a topic of calls of their own, `tool-calls.<tenant>`, with commas between. Whoever may write to"
        " it calls for that tenant: let the brokers' access lists say who that is.",
    )
    concurrency: int = Field(100, ge=1, description="Calls of one topic that a gateway answers at a time.")

    @property
    def tenant_names(self) -> tuple[str, ...]:
        """The tenants, apart."""
        return tuple(name for part in self.tenants.split(",") if (name := part.strip()))


class MemorySettings(SettingsGroup):
    """What the memory worker keeps, and how it summarises."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_MEMORY_")

    token_budget: int = Field(2_000, ge=50, description="Tokens that a conversation's memory may hold after a compaction.")
    keep_turns: int = Field(12, ge=0, description="Newest entries that a compaction leaves as they are.")
    summariser: Literal["extractive", "openai"] = Field(
        "extractive", description="`extractive` needs no network; `openai` calls an OpenAI-compatible endpoint."
    )


class OpenAISettings(SettingsGroup):
    """The OpenAI-compatible endpoint that summarises when `HEADRACE_MEMORY_SUMMARISER=openai`."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_OPENAI_")

    base_url: str | None = Field(None, description="The endpoint's address up to and including `/v1`.")
    api_key: SecretStr | None = Field(None, description="The endpoint's key.")
    model: str | None = Field(None, description="The model's name at that endpoint.")
    timeout_seconds: float = Field(60.0, gt=0, description="How long one request may take.")


class Settings(SettingsGroup):
    """All settings of a process. `Settings()` reads the environment; `load_settings` turns what is wrong into one clear error."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_")

    bootstrap_servers: str | None = Field(
        None, description="Addresses of the brokers, as host:port with commas between; the broker of this folder when unset."
    )
    namespace: Namespace = Field("headrace", description="The first part of every topic's and group's name.")
    data_directory: Path = Field(Path(".headrace"), description="Where views and the local broker keep their files.")
    api_key: SecretStr | None = Field(
        None,
        description="An API key: by it a gateway lets in who speaks to it over standard input, and `headrace keys create"
        " --from-environment` enters it.",
    )
    cache_directory: Path | None = Field(None, description="Where downloads are kept; the user's cache folder when unset.")
    log_level: LogLevel = Field("INFO", description="Least severe message that is logged.")

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    ingress: IngressSettings = Field(default_factory=IngressSettings)
    memory: MemorySettings = Field(default_factory=MemorySettings)
    openai: OpenAISettings = Field(default_factory=OpenAISettings)

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, level: Any) -> Any:
        known = level.upper() if isinstance(level, str) else level
        return known if known in get_args(LogLevel) else level  # a message is to show what was given

    @field_validator("data_directory", "cache_directory")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        try:
            return path.expanduser() if path else path
        except RuntimeError as error:
            raise ValueError(str(error)) from error


def load_settings(**values: Any) -> Settings:
    """Settings from the environment, with `values` over them.

    Raises:
        ConfigurationError: a variable has a value that its setting does not allow; the message names each.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        problems = "; ".join(
            f"{_variable_of(error.title, item['loc'])} = {item['input']!r}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"Settings are wrong: {problems}. docs/configuration.md lists them all.") from None


def environment_variable(group: type[BaseSettings], field_name: str) -> str:
    """The environment variable that sets the field `field_name` of `group`."""
    if group is Settings and field_name == "bootstrap_servers":
        return "KAFKA_BOOTSTRAP_SERVERS"
    return f"{group.model_config.get('env_prefix', '')}{field_name}".upper()


def unknown_variables() -> dict[str, str | None]:
    """Variables of the environment that look like settings and are none, each with the nearest that is one, if it is near."""
    known: set[str] = set()
    groups: list[type[SettingsGroup]] = SettingsGroup.__subclasses__()
    for group in groups:
        for name, field in group.model_fields.items():
            if group_of(field) is None:
                variable = environment_variable(group, name)
                known |= {variable, f"{variable}_FILE"} if is_secret(field) else {variable}
    strange = sorted(name for name in os.environ if name.startswith("HEADRACE_") and name not in known)
    return {name: next(iter(difflib.get_close_matches(name, sorted(known), 1, 0.8)), None) for name in strange}


def _variable_of(group_name: str, location: tuple[int | str, ...]) -> str:
    """The variable of a setting that pydantic complains about; where it knows none, what it says itself."""
    groups: dict[str, type[SettingsGroup]] = {group.__name__: group for group in SettingsGroup.__subclasses__()}
    group = groups.get(group_name)
    if group is not None and location and location[0] in group.model_fields:
        return environment_variable(group, str(location[0]))
    return ".".join(map(str, location)) or group_name
