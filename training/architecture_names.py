"""The names that --arch takes, for help texts: the networks themselves need PyTorch."""

ARCHITECTURE_NAMES = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"resnet{depth}-cifar" for depth in (20, 32, 44, 56, 110, 1202)),
    "googlenet",
    "inception-v3",
    "inception-v4",
    "inception-resnet-v2",
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
    "lenet5",
    "zfnet",
    "nin",
    "capsnet",
)
ARCH_HELP = (
    "resnet18, 34, 50, 101 or 152; googlenet, inception-v3, inception-v4, inception-resnet-v2; "
    "efficientnet-lite0, -lite1 or -lite2; zfnet; for pictures of about 32 pixels resnet20-cifar, 32, 44, "
    "56, 110 or 1202, lenet5, nin and capsnet; any other through its library as timm:NAME or "
    "torchvision:NAME (extras timm and torchvision). `fovea-train architectures` describes them."
)
