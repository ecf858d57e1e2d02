"""Which file of a package a provider runs, and at which precision."""

from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import ProviderUnavailable
from service.manifest import Manifest, Variant
from service.processor import BF16_INSTRUCTIONS, INT8_INSTRUCTIONS, instruction_sets


@dataclass(frozen=True)
class _Kind:
    """A kind of variant that a provider can run.

    Attributes:
        precision: of it.
        made_for: the manifest's `provider` that it may have, the best first.
        auto: whether `auto` takes it without being asked.
        needs: instruction sets, of which one is enough; empty for any processor.
    """

    precision: str
    made_for: tuple[str, ...]
    auto: bool = True
    needs: frozenset[str] = frozenset()


_FP32_CPU = _Kind("fp32", ("any", "cpu"))
_FP16_GPU = _Kind("fp16", ("cuda", "tensorrt", "any"))
# For whoever wants a GPU's answers without one, hence never by `auto`: it is computed in float32, between
# casts. ONNX Runtime's own kernels take a third longer so than for fp32 (ResNet-20), OpenVINO's as long.
_FP16_PROCESSOR = _Kind("fp16", ("any", "cuda", "tensorrt"), auto=False)
# Per provider, the fastest first. int8 for "cpu" is U8S8, for "cuda" and "tensorrt" S8S8: the one is slow or
# not possible where the other is at home. OpenVINO's bf16 is the fp32 file run in bf16.
KINDS = {
    "tensorrt": (_Kind("int8", ("tensorrt", "cuda")), _FP16_GPU, _Kind("fp32", ("any", "cuda", "tensorrt"))),
    "cuda": (
        _FP16_GPU,
        _Kind("fp32", ("any", "cuda", "tensorrt")),
        _Kind("int8", ("cuda", "tensorrt"), auto=False),
    ),
    "openvino": (
        _Kind("int8", ("openvino", "cpu"), needs=INT8_INSTRUCTIONS),
        _Kind("bf16", ("openvino",), needs=BF16_INSTRUCTIONS),
        _Kind("fp32", ("openvino", "any", "cpu")),
        _FP16_PROCESSOR,
    ),
    "cpu": (_Kind("int8", ("cpu",), needs=INT8_INSTRUCTIONS), _FP32_CPU, _FP16_PROCESSOR),
}


@dataclass(frozen=True)
class Choice:
    """A variant that could run, or the reason why it doesn't.

    Attributes:
        variant: the file.
        refused: why `auto` passes it over; empty if it takes it.
        warning: what the log shall say if it runs; empty for nothing.
    """

    variant: Variant
    refused: str = ""
    warning: str = ""


def choices(
    manifest: Manifest, provider: str, precision: str, processor: frozenset[str] | None = None
) -> Iterator[Choice]:
    """The variants that a provider can run, the fastest first.

    Args:
        manifest: of the package.
        provider: "tensorrt", "cuda", "openvino" or "cpu".
        precision: "auto", or the one that is wanted.
        processor: its instruction sets; this machine's by default.

    Raises:
        ProviderUnavailable: the precision that is wanted isn't in the package for this provider, or this
            processor hasn't got it.
    """
    there = instruction_sets() if processor is None else processor
    made = manifest.variants[0]
    if made.precision != "fp32":
        yield _as_made(manifest, made, precision)
        return
    if precision != "auto":
        yield _asked_for(manifest, provider, precision, there)
        return
    for kind in KINDS[provider]:
        variant = _find(manifest, kind)
        if variant is None or not kind.auto:
            continue
        lacking = kind.needs and not kind.needs & there
        if lacking:
            yield Choice(variant, refused=f"this processor has none of {', '.join(sorted(kind.needs))}")
        else:
            yield Choice(variant, refused=_shortfall(variant))


def _as_made(manifest: Manifest, made: Variant, precision: str) -> Choice:
    """The only variant, of a model that was imported in another precision; every provider runs it."""
    if precision not in ("auto", made.precision):
        raise ProviderUnavailable(
            f"precision is {precision!r}, but {manifest.folder} was imported in {made.precision}, which is "
            "all that it has; expected that, or auto"
        )
    return Choice(made)


def _asked_for(manifest: Manifest, provider: str, precision: str, there: frozenset[str]) -> Choice:
    kind = next((kind for kind in KINDS[provider] if kind.precision == precision), None)
    if kind is None:
        can = ", ".join(kind.precision for kind in KINDS[provider])
        raise ProviderUnavailable(
            f"{manifest.folder}: precision is {precision!r}; expected one that {provider} runs: {can}"
        )
    variant = _find(manifest, kind)
    if variant is None:
        has = ", ".join(f"{variant.precision} for {variant.provider}" for variant in manifest.variants)
        raise ProviderUnavailable(
            f"precision is {precision!r}, but {manifest.folder} has no such variant for {provider}; it has "
            f"{has}; `fovea-train export --precision {_export_name(provider, precision)}` makes one"
        )
    lacking = bool(kind.needs) and not kind.needs & there
    if lacking and precision == "bf16":
        raise ProviderUnavailable(
            f"{manifest.folder}: precision is 'bf16', but this processor has none of "
            f"{', '.join(sorted(kind.needs))}"
        )
    warnings = [_shortfall(variant)]
    if lacking:
        warnings.append("this processor multiplies 8-bit integers with saturation: expect lower accuracy")
    if (provider, precision) == ("cpu", "fp16"):
        warnings.append("computed in float32 between casts, which is slower than fp32")
    return Choice(variant, warning="; ".join(filter(None, warnings)))


def _export_name(provider: str, precision: str) -> str:
    """What the export calls the variant."""
    return "int8-gpu" if precision == "int8" and provider in ("cuda", "tensorrt") else precision


def _find(manifest: Manifest, kind: _Kind) -> Variant | None:
    for made_for in kind.made_for:
        for variant in manifest.variants:
            if (variant.precision, variant.provider) == (kind.precision, made_for):
                return variant
    return None


def _shortfall(variant: Variant) -> str:
    if variant.agreement is None:
        return "" if variant.precision == "fp32" else "its agreement with fp32 isn't recorded"
    return variant.agreement.shortfall(variant.precision)
