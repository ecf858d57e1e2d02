"""The cores are shared between the models' runs and decoding."""

import pytest
from structlog.testing import capture_logs

from service.config import Config
from service.model_settings import ModelSettings
from service.threads import share_threads


def on_cpu(_: ModelSettings) -> bool:
    return False


def on_gpu(settings: ModelSettings) -> bool:
    return settings.execution_provider == "cuda"


@pytest.mark.parametrize(
    ("cores", "intra_op", "decode"),
    [(1, 1, 0), (2, 2, 1), (3, 3, 1), (4, 3, 1), (8, 6, 2), (16, 12, 4), (64, 48, 16)],
)
def test_one_model_gets_what_decoding_leaves(cores: int, intra_op: int, decode: int) -> None:
    budget = share_threads(Config(), ["a"], on_cpu, cores)
    assert (budget.models["a"].intra_op_threads, budget.decode_threads) == (intra_op, decode)
    assert budget.total == intra_op + decode


def test_models_and_instances_share() -> None:
    config = Config(model_settings=("a.instances=2",))
    budget = share_threads(config, ["a", "b"], on_cpu, 16)
    assert {name: model.intra_op_threads for name, model in budget.models.items()} == {"a": 4, "b": 4}
    assert budget.total == 2 * 4 + 4 + 4


def test_more_instances_than_cores_get_one_thread_each() -> None:
    budget = share_threads(Config(instances=8), ["a"], on_cpu, 2)
    assert budget.models["a"].intra_op_threads == 1
    assert budget.total == 9


def test_what_is_set_stays() -> None:
    config = Config(decode_threads=5, intra_op_threads=3, model_settings=("b.intra_op_threads=7",))
    budget = share_threads(config, ["a", "b"], on_cpu, 4)
    assert {name: model.intra_op_threads for name, model in budget.models.items()} == {"a": 3, "b": 7}
    assert budget.decode_threads == 5


def test_the_runs_decode_where_that_is_asked_for_or_there_is_one_core() -> None:
    assert share_threads(Config(decoding="inference"), ["a"], on_cpu, 16).decode_threads == 0
    assert share_threads(Config(decoding="inference"), ["a"], on_cpu, 16).models["a"].intra_op_threads == 16
    assert share_threads(Config(), ["a", "b"], on_cpu, 1).decode_threads == 0
    assert share_threads(Config(decoding="threads"), ["a"], on_cpu, 1).decode_threads == 1
    assert share_threads(Config(decode_threads=2), ["a"], on_cpu, 1).decode_threads == 2
    assert share_threads(Config(execution_provider="cuda"), ["a"], on_gpu, 1).decode_threads == 1


def test_gpus_leave_the_cores_to_decoding() -> None:
    config = Config(execution_provider="cuda", devices=(0, 1), instances=2)
    budget = share_threads(config, ["a"], on_gpu, 16)
    assert budget.models["a"].intra_op_threads == 1
    assert (budget.runs["a"], budget.decode_threads) == (4, 12)


def test_the_log_has_every_number_and_warns_of_too_many() -> None:
    with capture_logs() as logs:
        share_threads(Config(), ["a"], on_cpu, 4).log()
        share_threads(Config(instances=8, intra_op_threads=4), ["a"], on_cpu, 4).log()
    good, much = logs
    assert good == {
        "event": "thread_budget",
        "log_level": "info",
        "cores": 4,
        "decode_threads": 1,
        "inference_threads": {"a": {"instances": 1, "intra_op_threads": 3}},
        "total": 4,
    }
    assert (much["log_level"], much["total"]) == ("warning", 33)
    assert much["advice"] == "more than 2 threads per core: lower instances (8), intra_op_threads (4)"


def test_many_models_of_one_thread_each_are_no_fault_of_the_settings() -> None:
    with capture_logs() as logs:
        share_threads(Config(), list("abcdef"), on_cpu, 2).log()
    (many,) = logs
    assert (many["log_level"], many["total"]) == ("info", 7)
    assert "every model has one thread already" in many["advice"]
    assert "lower" not in many["advice"]
