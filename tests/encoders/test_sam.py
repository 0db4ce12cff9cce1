"""The SAM image encoder against segment_anything's own, with seeded random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from riszoo.encoders.base import VisionConfig
from riszoo.encoders.sam import build_sam
from tests.support.sam_reference import distance, image, official_maps, pair, randomise, toy, weigh
from tests.support.zoo import trained_names

FLASH = "aten._scaled_dot_product_flash_attention_for_cpu.default"


class Recorder(TorchDispatchMode):
    """Records the operators that run and the size of the tensors that they return."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((str(func), args))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.numel())
        return result

    def queries(self) -> list[Tensor]:
        return [args[0] for name, args in self.calls if name == FLASH]


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """The bytes that autograd saves for the backward pass, tensor by tensor."""
    sizes: list[int] = []

    def pack(value: Tensor) -> Tensor:
        sizes.append(value.numel() * value.element_size())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield sizes


def assert_equals_segment_anything(size: tuple[int, int], dtype: torch.dtype, bound: float, images: int = 1) -> None:
    """Compare the maps and the gradients of every weight with those of the original encoder."""
    reference, own = pair(size, dtype)
    x = image(size, images).to(dtype)
    expected, maps = official_maps(reference, x, [1, 3]), own(x)
    assert [m.shape for m in maps] == [m.shape for m in expected]
    assert max(distance(a, b) for a, b in zip(maps, expected, strict=True)) < bound
    weigh(expected).backward()
    weigh(maps).backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in own.image_encoder.named_parameters():
        assert distance(parameter.grad, theirs[name].grad) < bound, name


# 320: windows padded from 20 to 28 cells. 448: 28 cells, no padding. 512: 32 to 42. The rectangles: each side its own.
@pytest.mark.parametrize("size", [(320, 320), (448, 448), (512, 512), (192, 512), (448, 240)], ids=str)
def test_maps_and_gradients_equal_segment_anything(size: tuple[int, int]) -> None:
    assert_equals_segment_anything(size, torch.float64, 1e-10, images=2 if size == (320, 320) else 1)


def test_single_precision_equals_segment_anything() -> None:
    assert_equals_segment_anything((320, 320), torch.float32, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=str)
def test_pretrained_size_equals_segment_anything(dtype: torch.dtype, bound: float) -> None:
    assert_equals_segment_anything((1024, 1024), dtype, bound)


def test_autocast_keeps_attention_in_half_precision() -> None:
    _, own = pair((320, 320), torch.float32)
    exact = own(image((320, 320)))
    with torch.autocast("cpu", torch.bfloat16), Recorder() as record:
        rough = own(image((320, 320)))
    assert {query.dtype for query in record.queries()} == {torch.bfloat16}
    assert all(
        F.cosine_similarity(a.flatten().float(), b.flatten(), 0) > 0.999 for a, b in zip(rough, exact, strict=True)
    )


def test_the_other_images_of_a_batch_change_nothing() -> None:
    _, own = pair((320, 320), torch.float64)
    x = image((320, 320), 2).double()
    assert all(distance(both[:1], one) < 1e-12 for both, one in zip(own(x), own(x[:1]), strict=True))


# ---- the contract


def test_forward_runs_the_stages_in_order() -> None:
    own = toy(taps=[0, 2])
    x = own.stem(image((320, 320)))
    assert x.shape == (1, 64, 20, 20)
    maps = []
    for stage in range(3):
        assert own.down(stage, x) is x
        x = own.blocks(stage, x)
        maps.append(x)
    assert all(torch.equal(a, b) for a, b in zip(maps, own(image((320, 320))), strict=True))
    assert [m.shape[1] for m in maps] == own.channels == [64, 64, 256]
    assert own.strides == [16, 16, 16]


@pytest.mark.parametrize("taps", [[], [0], [3], [0, 1, 2, 3]], ids=str)
def test_taps_are_the_outputs_of_their_blocks(taps: list[int]) -> None:
    reference, _ = pair((192, 192), torch.float64)
    own = toy((192, 192), taps=taps).double()
    own.image_encoder.load_state_dict(reference.state_dict(), strict=True)
    x = image((192, 192)).double()
    expected = official_maps(reference, x, taps)
    assert len(expected) == len(own.channels)
    assert max(distance(a, b) for a, b in zip(own(x), expected, strict=True)) < 1e-10


def test_default_taps_are_the_first_two_global_blocks() -> None:
    with torch.device("meta"):
        spans = {n: build_sam(VisionConfig(f"sam_vit_{n}"), (1024, 1024)).spans for n in "blh"}
    assert spans["b"] == [range(0, 3), range(3, 6), range(6, 12)]
    assert spans["l"] == [range(0, 6), range(6, 12), range(12, 24)]
    assert spans["h"] == [range(0, 8), range(8, 16), range(16, 32)]


def test_every_parameter_of_the_tiny_encoder_trains() -> None:
    torch.manual_seed(0)
    own = build_sam(VisionConfig("sam_vit_tiny"), (160, 224))
    maps = own(image((160, 224), 2))
    assert [tuple(m.shape) for m in maps] == [(2, 128, 10, 14), (2, 128, 10, 14), (2, 256, 10, 14)]
    assert trained_names(own) == {name for name, _ in own.named_parameters()}
    weigh(maps).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in own.parameters())


# ---- attention


@pytest.mark.parametrize("size", [(320, 320), (192, 512)], ids=str)
def test_the_flash_kernel_accepts_windowed_and_global_attention(size: tuple[int, int]) -> None:
    own = toy(size)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), Recorder() as record:
        weigh(own(image(size))).backward()
    windowed, globally = 16 + 28, 16 + size[0] // 16 + size[1] // 16
    assert [query.shape[-1] for query in record.queries()] == [windowed, globally, windowed, globally]


def test_no_matrix_of_all_pairs_of_cells_is_stored() -> None:
    own = toy((1024, 256), window=4)
    cells = 64 * 16
    with Recorder() as record:
        weigh(own(image((1024, 256)))).backward()
    assert record.largest < 4 * cells * cells / 4  # heads x cells x cells, with room for the widest activation


def test_a_frozen_encoder_saves_nothing_for_the_backward_pass() -> None:
    own = toy(frozen=True, peft="adapter")
    with saved_bytes() as sizes:
        maps = own(image((320, 320)))
    assert not sizes
    assert not any(m.requires_grad for m in maps)


@pytest.mark.parametrize("peft", ["none", "adapter", "lora", "full"])
def test_statistics_of_a_convolutional_stem_change_only_where_it_trains(peft: str) -> None:
    own = toy(stem="conv", peft=peft).train()
    before = {name: value.clone() for name, value in own.named_buffers() if "running" in name}
    own(image((320, 320)))
    assert before
    assert all(
        torch.equal(value, before[name]) != (peft == "full") for name, value in own.named_buffers() if name in before
    )


def test_gradients_reach_language_added_between_frozen_stages() -> None:
    own = toy(peft="none")
    language = torch.zeros(1, 64, 1, 1, requires_grad=True)
    x = own.blocks(0, own.stem(image((320, 320)))) + language
    own.blocks(2, own.blocks(1, x)).square().sum().backward()
    assert language.grad is not None
    assert language.grad.any()
    assert all(parameter.grad is None for parameter in own.parameters())


@pytest.mark.parametrize("peft", ["adapter", "full"])
def test_checkpointing_saves_memory_and_changes_no_gradient(peft: str) -> None:
    runs = {}
    for checkpoint in (False, True):
        own = toy(peft=peft, checkpoint=checkpoint).double()
        randomise(own)
        with saved_bytes() as sizes:
            loss = weigh(own(image((320, 320)).double()))
        loss.backward()
        grads = {name: p.grad for name, p in own.named_parameters() if p.requires_grad}
        runs[checkpoint] = loss.detach(), grads, sum(sizes)
    torch.testing.assert_close(runs[True][:2], runs[False][:2], rtol=1e-9, atol=1e-9)
    assert runs[True][2] < runs[False][2] / 2


def test_the_encoder_compiles_without_graph_breaks() -> None:
    own, x = toy((192, 192)).double(), image((192, 192)).double()
    compiled = torch.compile(own, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), own(x), rtol=1e-9, atol=1e-9)
