"""What of a network learns, and how fast: for weights that know something already."""

from typing import Any

from torch import nn

from training.errors import SettingError
from training.models import Classifier


def freeze(model: Classifier, up_to: str) -> list[str]:
    """Let the stages from the input to `up_to`, which is included, keep their weights.

    Their normalisation must keep its statistics too: put the network into training mode with `train_mode`.

    Args:
        model: changed in place; stages behind `up_to` are left as they are.
        up_to: a name of `Classifier.stages`.

    Returns:
        The names of the frozen stages.

    Raises:
        SettingError: there is no such stage, or nothing would be left to learn.
    """
    frozen = stages_to_freeze(model, up_to)
    for name, parameters in model.stages():
        if name in frozen:
            for parameter in parameters:
                parameter.requires_grad_(False)
    return frozen


def stages_to_freeze(model: Classifier, up_to: str) -> list[str]:
    """The names of the stages from the input to `up_to`.

    Raises:
        SettingError: there is no such stage, or nothing would be left to learn.
    """
    names = [name for name, _ in model.stages()]
    if up_to not in names[:-1]:
        nothing_left = f"; with {up_to!r} nothing would learn" if up_to == names[-1] else ""
        raise SettingError(
            f"--freeze is {up_to!r}{nothing_left}; expected a stage of {type(model).__name__}: "
            f"{', '.join(names[:-1])}"
        )
    return names[: names.index(up_to) + 1]


def unfreeze(model: Classifier) -> None:
    """Let every stage learn again. An optimizer that was made before doesn't know the parameters yet."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def freeze_heads(model: Classifier) -> None:
    """Let the head and the auxiliary heads keep their weights, for losses on embeddings, which use no logits.

    What gets no gradient would otherwise be waited for by processes that share theirs.
    """
    used = {id(parameter) for parameter in model.pool.parameters()}
    _, last = model.stages()[-1]
    for parameter in last:
        if id(parameter) not in used:
            parameter.requires_grad_(False)


def train_mode(model: nn.Module) -> None:
    """`model.train()`, but what is frozen stays in evaluation mode.

    Batch normalisation of a frozen stage would otherwise go on to move its statistics, and dropout to
    disturb features that nothing can adapt to any more.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def layer_wise_learning_rates(model: Classifier, learning_rate: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups whose learning rate falls from the head to the input.

    Each stage learns at `decay` times the rate of the next one, and the head at `learning_rate`: what is
    near the input is general already, the head is new (Howard & Ruder 2018, arXiv:1801.06146, section 3.2;
    as a constant factor Clark et al. 2020, arXiv:2003.10555).

    Args:
        model: frozen parameters are in the groups too; `optim.make_optimizer` leaves them out.
        learning_rate: of the head.
        decay: above 0 and at most 1; 1 gives every stage the same.

    Returns:
        One group a stage, from the input to the head: "params", "lr" and "name", the stage's.

    Raises:
        SettingError: the decay is out of range.
    """
    if not 0 < decay <= 1:
        raise SettingError(f"--layer-decay is {decay}; expected above 0 and at most 1")
    stages = model.stages()
    return [
        {"params": parameters, "lr": learning_rate * decay**distance, "name": name}
        for distance, (name, parameters) in zip(range(len(stages) - 1, -1, -1), stages, strict=True)
        if parameters
    ]
