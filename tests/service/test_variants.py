"""Which file runs where: by provider, processor and recorded agreement."""

from typing import Any

import pytest

from service.agreement import Agreement
from service.errors import ProviderUnavailable
from service.manifest import Manifest, Variant, read_manifest
from service.processor import BF16_INSTRUCTIONS, INT8_INSTRUCTIONS
from service.variants import choices
from tests.packages import write_network

GOOD = Agreement(200, 1.0, 0.0, 1.0)
BAD = Agreement(200, 0.5, 0.9, 0.7)
FULL = BF16_INSTRUCTIONS | INT8_INSTRUCTIONS


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_network(tmp_path_factory.mktemp("models")))


def package(plain: Manifest, *others: tuple[str, str], agreement: Agreement | None = GOOD) -> Manifest:
    """The manifest with variants (precision, provider) beside fp32."""
    variants = [Variant("v.onnx", "0" * 64, *other, agreement) for other in others]
    values: dict[str, Any] = {**vars(plain), "variants": (*plain.variants, *variants)}
    return Manifest(**values)


ALL = (("int8", "cpu"), ("int8", "cuda"), ("fp16", "cuda"), ("bf16", "openvino"))


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("tensorrt", [("int8", "cuda"), ("fp16", "cuda"), ("fp32", "any")]),
        ("cuda", [("fp16", "cuda"), ("fp32", "any")]),
        ("openvino", [("int8", "cpu"), ("bf16", "openvino"), ("fp32", "any")]),
        ("cpu", [("int8", "cpu"), ("fp32", "any")]),
    ],
)
def test_auto_goes_from_fast_to_exact(
    plain: Manifest, provider: str, expected: list[tuple[str, str]]
) -> None:
    found = list(choices(package(plain, *ALL), provider, "auto", FULL))
    assert [(choice.variant.precision, choice.variant.provider) for choice in found] == expected
    assert not any(choice.refused for choice in found)


@pytest.mark.parametrize("agreement", [BAD, None])
def test_auto_refuses_what_does_not_agree_but_never_fp32(
    plain: Manifest, agreement: Agreement | None
) -> None:
    manifest = package(plain, *ALL, agreement=agreement)
    refused = {
        choice.variant.precision: choice.refused for choice in choices(manifest, "openvino", "auto", FULL)
    }
    assert refused["fp32"] == ""
    words = "0.5 is below 0.98" if agreement else "isn't recorded"
    assert words in refused["int8"]
    assert refused["bf16"]


def test_auto_refuses_what_the_processor_has_not(plain: Manifest) -> None:
    found = choices(package(plain, *ALL), "openvino", "auto", frozenset({"avx2"}))
    refused = {choice.variant.precision: choice.refused for choice in found}
    assert "none of amx_bf16, avx512_bf16" in refused["bf16"]
    assert "avx512_vnni" in refused["int8"]
    assert refused["fp32"] == ""


def test_what_is_asked_for_is_served_with_a_warning(plain: Manifest) -> None:
    manifest = package(plain, *ALL, agreement=BAD)
    (choice,) = choices(manifest, "cpu", "int8", frozenset())
    assert choice.refused == ""
    assert "top1_agreement 0.5 is below 0.98" in choice.warning
    assert "saturation" in choice.warning
    (choice,) = choices(package(plain, *ALL), "cuda", "int8", FULL)
    assert (choice.variant.provider, choice.warning) == ("cuda", "")


@pytest.mark.parametrize(("provider", "words"), [("cpu", "slower than fp32"), ("openvino", "")])
def test_a_processor_runs_fp16_only_when_it_is_asked_for(plain: Manifest, provider: str, words: str) -> None:
    manifest = package(plain, ("fp16", "cuda"))
    (choice,) = choices(manifest, provider, "fp16", frozenset())
    assert (choice.variant.precision, choice.variant.provider, choice.refused) == ("fp16", "cuda", "")
    assert words in choice.warning
    assert bool(choice.warning) == bool(words)
    automatic = choices(manifest, provider, "auto", frozenset())
    assert [choice.variant.precision for choice in automatic] == ["fp32"]


@pytest.mark.parametrize(
    ("provider", "precision", "words"),
    [
        ("cpu", "bf16", "expected one that cpu runs: int8, fp32, fp16"),
        ("cpu", "fp16", "it has fp32 for any; `fovea-train export --precision fp16` makes one"),
        ("cuda", "bf16", "expected one that cuda runs: fp16, fp32, int8"),
        ("openvino", "bf16", "fovea-train export --precision bf16"),
        ("cpu", "int8", "it has fp32 for any; `fovea-train export --precision int8` makes one"),
        ("cuda", "int8", "--precision int8-gpu"),
        ("cuda", "fp16", "--precision fp16"),
    ],
)
def test_what_cannot_be_had_says_how_to_get_it(
    plain: Manifest, provider: str, precision: str, words: str
) -> None:
    with pytest.raises(ProviderUnavailable, match=words.replace("(", r"\(")):
        list(choices(plain, provider, precision, FULL))


def test_bf16_needs_the_processor_also_when_asked_for(plain: Manifest) -> None:
    with pytest.raises(ProviderUnavailable, match="this processor has none of amx_bf16, avx512_bf16"):
        list(choices(package(plain, *ALL), "openvino", "bf16", frozenset({"avx2"})))


def test_x86s_int8_is_not_the_gpus(plain: Manifest) -> None:
    words = "no such variant for tensorrt; it has fp32 for any, int8 for cpu"
    with pytest.raises(ProviderUnavailable, match=words):
        list(choices(package(plain, ("int8", "cpu")), "tensorrt", "int8", FULL))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("provider", ["tensorrt", "cuda", "openvino", "cpu"])
def test_a_model_imported_in_another_precision_runs_everywhere(
    plain: Manifest, provider: str, precision: str
) -> None:
    made = Variant("v.onnx", "0" * 64, precision, "any", BAD)  # agreement with itself is no gate
    values: dict[str, Any] = {**vars(plain), "variants": (made,)}
    manifest = Manifest(**values)
    for asked in ("auto", precision):
        assert [
            (choice.variant, choice.refused, choice.warning) for choice in choices(manifest, provider, asked)
        ] == [(made, "", "")]
    with pytest.raises(ProviderUnavailable, match=f"was imported in {precision}, which is all that it has"):
        list(choices(manifest, provider, "fp32"))
