"""Every setting of the server, with its unit, its limits and its help, checked once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from service.errors import ConfigError
from service.model_settings import ModelSettings
from service.processor import available_cores
from service.setting import BATCHING, LIMITS, MODELS, NETWORK, OPERATION, RETRIEVAL, parse, setting

DECODING = ("auto", "threads", "inference")
LOG_FORMATS = ("auto", "json", "console")
INDEX_ENGINES = ("embedded", "pgvector", "milvus")
# Of fewer items there is too little to learn an index from.
_LEAST_APPROXIMATE = 256
# By name: what one model may have of its own.
MODEL_SETTINGS = {one.name: one for one in fields(ModelSettings)}


@dataclass(frozen=True)
class Config(ModelSettings):
    """The settings of `fovea serve`; `fovea serve --help` prints the help of each.

    Those of `ModelSettings` are the models' defaults; `for_model` says what one of them has.

    Raises:
        ConfigError: names the setting, its value and what was expected.
    """

    host: str = setting(
        "127.0.0.1",
        NETWORK,
        "Address to listen on. There is no authentication: 0.0.0.0 lets every machine in.",
    )
    port: int = setting(50051, NETWORK, "gRPC port; 0 takes a free one and logs it.", low=0, high=65535)
    metrics_port: int = setting(
        8002, NETWORK, "HTTP port of /metrics; 0 takes a free one and logs it.", low=0, high=65535
    )
    max_concurrent_streams: int = setting(
        256, NETWORK, "Calls at a time on one connection; more wait in the client.", low=1, high=100_000
    )
    max_connection_age_s: float = setting(
        0.0,
        NETWORK,
        "Close a connection after this long, so that clients spread over new replicas; 0: never.",
        low=0,
        high=86_400,
    )

    model_repository: Path = setting(
        Path("models"), MODELS, "Folder of model packages: <model>/<version>/manifest.json."
    )
    models: tuple[str, ...] = setting(
        (),
        MODELS,
        "Models to serve, as NAME (its highest version) or NAME:VERSION; may be given several times. "
        "Default: the highest version of every model.",
        option="model",
    )
    default_model: str = setting(
        "", MODELS, "Answers requests that name no model. Default: the only model, if there is one."
    )
    model_settings: tuple[str, ...] = setting(
        (),
        MODELS,
        "One model's own value, as NAME.SETTING=VALUE (digits.precision=int8); may be given several times. "
        f"The settings: {', '.join(MODEL_SETTINGS)}.",
        option="model-setting",
    )

    queue_capacity: int = setting(
        1024,
        BATCHING,
        "Images per model that may be in: decoding, waiting or running. Beyond it requests are refused "
        "(RESOURCE_EXHAUSTED); streams use half of it and wait instead.",
        low=2,
        high=1_000_000,
    )
    decoding: str = setting(
        "auto",
        BATCHING,
        "Which threads decode images: threads of their own, beside the models' runs; or inference, those of "
        "the runs, each its batch's images, which are not handed over. auto: inference where there is one "
        "core, no GPU, and decode_threads isn't set.",
        choices=DECODING,
    )
    decode_threads: int = setting(
        0,
        BATCHING,
        "Threads that decode images, where they have their own; 0: a quarter of the cores, at least one.",
        low=0,
        high=1024,
    )

    max_message_bytes: int = setting(
        16 * 1024 * 1024,
        LIMITS,
        "Largest gRPC message, in and out; a larger one is refused whole.",
        low=64 * 1024,
        high=1024**3,
    )
    max_image_bytes: int = setting(
        15 * 1024 * 1024, LIMITS, "Largest image file; a larger one is that image's own error.", low=1024
    )
    max_arriving_bytes: int = setting(
        160 * 1024 * 1024,
        LIMITS,
        "Bytes of single calls' messages that may be in memory, being read or not yet answered; other calls "
        "wait with their message unread. One being read counts as max_message_bytes.",
        low=64 * 1024,
    )
    max_waiting_calls: int = setting(
        1024, LIMITS, "Calls that may wait with their message unread; more are refused.", low=1, high=100_000
    )
    max_queued_bytes: int = setting(
        512 * 1024 * 1024,
        LIMITS,
        "Bytes of images per model that may be in, as queue_capacity counts them.",
        low=128 * 1024,
    )
    max_image_pixels: int = setting(
        50_000_000, LIMITS, "Largest width × height, read before decoding.", low=1, high=1_000_000_000
    )
    max_decoding_pixels: int = setting(
        100_000_000,
        LIMITS,
        "Pixels that are decoded at the same time: what bounds the memory of decoding (4 to 16 bytes "
        "each). A larger image is decoded alone.",
        low=1,
    )
    max_images_per_request: int = setting(
        256, LIMITS, "Images, items or queries in one message.", low=1, high=100_000
    )
    stream_window_images: int = setting(
        64,
        LIMITS,
        "Images of one stream in work at a time, or one message's bytes; then its caller waits.",
        low=1,
        high=100_000,
    )

    index_engine: str = setting(
        "embedded",
        RETRIEVAL,
        "What keeps the collections: embedded: a folder of this server's own; pgvector: PostgreSQL; milvus.",
        choices=INDEX_ENGINES,
    )
    index_path: Path = setting(
        Path("index"),
        RETRIEVAL,
        "Folder of the embedded engine's index, made if missing; one server at a time.",
    )
    index_url: str = setting(
        "",
        RETRIEVAL,
        "Where PostgreSQL (postgresql://…) or Milvus (http://…) is. With a password in it, give it as "
        "FOVEA_INDEX_URL or in the file, where other users of the machine can't read it.",
        secret=True,
    )
    approximate_from_items: int = setting(
        0,
        RETRIEVAL,
        "From how many items on a collection is searched by an approximate index; 0: as the engine does by "
        "itself (embedded: 5,000; pgvector: 10,000). Not for milvus.",
        low=0,
        high=1_000_000_000,
    )
    index_schema: str = setting(
        "fovea",
        RETRIEVAL,
        "PostgreSQL's schema that has our tables, apart from others'; made if missing. In Milvus the prefix "
        "of our collections.",
    )
    snapshot_path: str = setting(
        "", RETRIEVAL, "Folder of collections' snapshots, made if missing. Empty: there are none."
    )
    image_roots: tuple[str, ...] = setting(
        (),
        RETRIEVAL,
        "Folder that the server itself may open images in, to re-embed collections; may be given several "
        "times. Default: none.",
        option="image-root",
    )
    upkeep_timeout_s: float = setting(
        3600.0,
        RETRIEVAL,
        "How long a flush, snapshot, restore or re-embedding may take whose caller states no deadline.",
        low=1,
        high=30 * 86_400,
    )
    search_threads: int = setting(
        0, RETRIEVAL, "Threads that search; 0: the cores this process may use.", low=0, high=1024
    )
    max_top_k: int = setting(1000, RETRIEVAL, "Most neighbours of one query.", low=1, high=10_000)

    lame_duck_s: float = setting(
        2.5,
        OPERATION,
        "After SIGTERM, how long calls are still taken while health already says NOT_SERVING, "
        "so that balancers look elsewhere first. SIGINT (Ctrl-C) skips it, and so does a server whose health "
        "nobody has asked for.",
        low=0,
        high=600,
    )
    drain_timeout_s: float = setting(
        30.0, OPERATION, "How long calls that are under way may then take to finish.", low=0, high=3600
    )
    log_format: str = setting(
        "auto",
        OPERATION,
        "Log lines on stderr: json, console, or auto: console on a terminal, else json.",
        choices=LOG_FORMATS,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", self.host.strip("[]"))  # frozen, but not yet made
        super().__post_init__()
        for name in ("", *self.own_settings):
            size = self.for_model(name).max_batch_size
            if self.queue_capacity < 2 * size:
                of_model = f" of model {name!r}" if name else ""
                raise ConfigError(
                    f"queue_capacity is {self.queue_capacity}; "
                    f"expected at least 2 × max_batch_size{of_model} = {2 * size}"
                )
        if self.decode_threads and self.decoding == "inference":
            raise ConfigError(
                f"decode_threads is {self.decode_threads} and decoding is 'inference'; "
                "expected one of the two, not both"
            )
        if bool(self.index_url) == (self.index_engine == "embedded"):
            # The URL itself may have a password.
            found = "set" if self.index_url else "empty"
            raise ConfigError(
                f"index_engine is {self.index_engine!r} and index_url is {found}; "
                "expected a URL with pgvector and milvus, and none with embedded"
            )
        if 0 < self.approximate_from_items < _LEAST_APPROXIMATE:
            raise ConfigError(
                f"approximate_from_items is {self.approximate_from_items}; expected 0, or at least "
                f"{_LEAST_APPROXIMATE}"
            )
        if self.max_images_per_request > self.queue_capacity // 2:
            raise ConfigError(
                f"max_images_per_request is {self.max_images_per_request}; "
                f"expected at most half of queue_capacity = {self.queue_capacity // 2}"
            )
        if self.max_arriving_bytes < self.max_message_bytes:
            raise ConfigError(
                f"max_arriving_bytes is {self.max_arriving_bytes}; "
                f"expected at least max_message_bytes = {self.max_message_bytes}"
            )
        if self.max_queued_bytes < 2 * self.max_message_bytes:
            raise ConfigError(
                f"max_queued_bytes is {self.max_queued_bytes}; "
                f"expected at least 2 × max_message_bytes = {2 * self.max_message_bytes}"
            )

    @property
    def address_host(self) -> str:
        """The host as it stands before ':port': IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def own_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """What single models have of their own: model → setting → value.

        Raises:
            ConfigError: an entry of `model_settings` can't be used; lists the settings there are.
        """
        own: dict[str, dict[str, Any]] = {}
        for entry in self.model_settings:
            path, equals, text = entry.partition("=")
            model, dot, name = path.strip().rpartition(".")
            if not equals or not dot or not model:
                raise ConfigError(f"model_settings has {entry!r}; expected NAME.SETTING=VALUE")
            if name not in MODEL_SETTINGS:
                raise ConfigError(
                    f"model_settings has {entry!r}: unknown setting {name!r}; "
                    f"known are {', '.join(MODEL_SETTINGS)}"
                )
            try:
                own.setdefault(model, {})[name] = parse(MODEL_SETTINGS[name], text.strip())
            except ConfigError as error:
                raise ConfigError(f"model_settings has {entry!r}: {error}") from None
        return own

    def for_model(self, name: str) -> ModelSettings:
        """What a model runs with: its own settings over the server's.

        Raises:
            ConfigError: names the model, the setting, its value and what was expected.
        """
        common = {setting: getattr(self, setting) for setting in MODEL_SETTINGS}
        try:
            return ModelSettings(**{**common, **self.own_settings.get(name, {})})
        except ConfigError as error:
            raise ConfigError(f"model_settings of {name!r}: {error}") from None

    def check_models(self, known: Collection[str]) -> None:
        """Refuse settings for a model that isn't there.

        Raises:
            ConfigError: lists the models there are.
        """
        for name in self.own_settings:
            if name not in known:
                raise ConfigError(
                    f"model_settings names model {name!r}; the repository has {', '.join(sorted(known))}"
                )

    @property
    def search_thread_count(self) -> int:
        """Threads that search, the 0 resolved."""
        return self.search_threads or available_cores()
