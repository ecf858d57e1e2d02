"""The networks' arithmetic written out a second time, from torchvision's and the paper's definitions.

Only functions over a state dict, so that nothing of training.models can be wrong in both.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor

State = dict[str, Tensor]


def random_state(shapes: State, seed: int) -> State:
    """Values for every name, float64, that keep activations alive and make each of them matter."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in shapes.items():
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if name.endswith("running_var"):
            state[name] = noise.abs() * 0.5 + 0.5
        elif value.ndim > 1:
            state[name] = noise * (2 / value[0].numel()) ** 0.5
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        else:
            state[name] = noise * 0.3 + (0.5 if name.endswith("weight") else 0)
    return state


def basic_resnet(state: State, x: Tensor, depths: tuple[int, ...], bottleneck: bool) -> Tensor:
    """ResNet-18, -34 (basic blocks) or -50 and deeper (bottlenecks): [batch, 3, h, w] → logits."""
    x = F.relu(_norm(state, "bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3)))
    x = F.max_pool2d(x, 3, 2, padding=1)
    for stage, depth in enumerate(depths, 1):
        for number in range(depth):
            at, stride = f"layer{stage}.{number}.", 2 if stage > 1 and number == 0 else 1
            shortcut = x
            if f"{at}downsample.0.weight" in state:
                shortcut = F.conv2d(x, state[f"{at}downsample.0.weight"], stride=stride)
                shortcut = _norm(state, f"{at}downsample.1", shortcut)
            if bottleneck:
                out = F.relu(_norm(state, f"{at}bn1", F.conv2d(x, state[f"{at}conv1.weight"])))
                out = F.conv2d(out, state[f"{at}conv2.weight"], stride=stride, padding=1)
                out = F.relu(_norm(state, f"{at}bn2", out))
                out = _norm(state, f"{at}bn3", F.conv2d(out, state[f"{at}conv3.weight"]))
            else:
                out = F.conv2d(x, state[f"{at}conv1.weight"], stride=stride, padding=1)
                out = F.relu(_norm(state, f"{at}bn1", out))
                out = _norm(state, f"{at}bn2", F.conv2d(out, state[f"{at}conv2.weight"], padding=1))
            x = F.relu(shortcut + out)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def cifar_resnet(state: State, x: Tensor, blocks: int) -> Tensor:
    """ResNet-(6 × blocks + 2) for CIFAR with option A shortcuts: [batch, 3, h, w] → logits."""
    x = F.relu(_norm(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    for stage in (1, 2, 3):
        for number in range(blocks):
            at, stride = f"layer{stage}.{number}.", 2 if stage > 1 and number == 0 else 1
            shortcut = x
            if stride == 2:
                zeros = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
                shortcut = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            out = F.conv2d(x, state[f"{at}conv1.weight"], stride=stride, padding=1)
            out = F.relu(_norm(state, f"{at}bn1", out))
            out = _norm(state, f"{at}bn2", F.conv2d(out, state[f"{at}conv2.weight"], padding=1))
            x = F.relu(shortcut + out)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def _norm(state: State, at: str, x: Tensor) -> Tensor:
    return F.batch_norm(
        x,
        state[f"{at}.running_mean"],
        state[f"{at}.running_var"],
        state[f"{at}.weight"],
        state[f"{at}.bias"],
        eps=1e-5,
    )
