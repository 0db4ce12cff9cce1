"""The SAM image encoder against segment_anything's own, with seeded random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from riszoo.encoders.adapters import (
    Adapter,
    QueryValueLoRA,
    added_names,
    load_trained_state,
    trained_names,
    trained_state,
)
from riszoo.encoders.base import Vision
from riszoo.encoders.sam import SamEncoder, build_sam
from riszoo.errors import UserError

TOY: dict[str, Any] = {"embed_dim": 64, "depth": 4, "heads": 4, "window": 14, "global_blocks": [1, 3], "stem": "patch"}
FLASH = "aten._scaled_dot_product_flash_attention_for_cpu.default"


def toy(size: tuple[int, int] = (320, 320), weights: str = "none", frozen: bool = False, **options: Any) -> SamEncoder:
    torch.manual_seed(0)
    vision = Vision("sam_vit_tiny", weights, frozen, TOY | {"peft": "full"} | options)
    return build_sam(vision, size)


def picture(size: tuple[int, int], count: int = 1) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def randomise(module: nn.Module, seed: int = 2) -> None:
    """Every parameter away from its start; position tables, norms' weights and zeroed parts included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def official(size: tuple[int, int], **changes: Any) -> ImageEncoderViT:
    """segment_anything's encoder; for a rectangle its tables are exchanged, which its forward takes as they are."""
    numbers = {
        "embed_dim": TOY["embed_dim"],
        "depth": TOY["depth"],
        "num_heads": TOY["heads"],
        "window_size": TOY["window"],
        "global_attn_indexes": TOY["global_blocks"],
    } | changes
    norm = partial(nn.LayerNorm, eps=1e-6)
    encoder = ImageEncoderViT(img_size=size[0], out_chans=256, norm_layer=norm, use_rel_pos=True, **numbers)
    h, w = size[0] // 16, size[1] // 16
    encoder.pos_embed = nn.Parameter(torch.zeros(1, h, w, numbers["embed_dim"]))
    for i in numbers["global_attn_indexes"]:
        attention = encoder.blocks[i].attn
        attention.rel_pos_w = nn.Parameter(torch.zeros(2 * w - 1, attention.rel_pos_h.shape[1]))
    randomise(encoder)
    return encoder


def official_maps(encoder: ImageEncoderViT, x: Tensor, taps: list[int]) -> list[Tensor]:
    maps: list[Tensor] = []
    hooks = [encoder.blocks[tap].register_forward_hook(lambda _m, _x, y: maps.append(y)) for tap in taps]
    out = encoder(x)
    for hook in hooks:
        hook.remove()
    return [*(y.permute(0, 3, 1, 2) for y in maps), out]


def pair(size: tuple[int, int], dtype: torch.dtype) -> tuple[ImageEncoderViT, SamEncoder]:
    reference, own = official(size).to(dtype), toy(size).to(dtype)
    own.image_encoder.load_state_dict(reference.state_dict(), strict=True)
    return reference, own


def distance(a: Tensor, b: Tensor) -> float:
    """Relative: the largest difference over the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()


def weigh(maps: list[Tensor]) -> Tensor:
    """A scalar that every element of every map has a say in, each its own."""
    return sum((m * torch.linspace(-1, 1, m.numel(), dtype=m.dtype).view(m.shape)).sum() for m in maps)  # type: ignore


class Recorder(TorchDispatchMode):
    """The operators that run, and the tensors they give."""

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
def kept() -> Iterator[list[int]]:
    """The bytes autograd keeps for the backward pass."""
    sizes: list[int] = []

    def pack(value: Tensor) -> Tensor:
        sizes.append(value.numel() * value.element_size())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield sizes


# 320: windows padded from 20 to 28 cells. 448: 28 cells, no padding. 512: 32 to 42. The rectangles: each side its own.
@pytest.mark.parametrize("size", [(320, 320), (448, 448), (512, 512), (192, 512), (448, 240)], ids=str)
def test_maps_and_gradients_equal_segment_anything(size: tuple[int, int]) -> None:
    reference, own = pair(size, torch.float64)
    x = picture(size, 2 if size == (320, 320) else 1).double()
    expected, found = official_maps(reference, x, [1, 3]), own(x)
    assert [m.shape for m in found] == [m.shape for m in expected]
    assert max(distance(a, b) for a, b in zip(found, expected, strict=True)) < 1e-10
    weigh(expected).backward()
    weigh(found).backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in own.image_encoder.named_parameters():
        assert distance(parameter.grad, theirs[name].grad) < 1e-10, name


def test_single_precision_equals_segment_anything() -> None:
    reference, own = pair((320, 320), torch.float32)
    expected, found = official_maps(reference, picture((320, 320)), [1, 3]), own(picture((320, 320)))
    assert max(distance(a, b) for a, b in zip(found, expected, strict=True)) < 1e-4
    weigh(expected).backward()
    weigh(found).backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in own.image_encoder.named_parameters():
        assert distance(parameter.grad, theirs[name].grad) < 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_pretrained_size_equals_segment_anything(dtype: torch.dtype) -> None:
    reference, own = pair((1024, 1024), dtype)
    bound = 1e-10 if dtype == torch.float64 else 1e-4
    x = picture((1024, 1024)).to(dtype)
    expected, found = official_maps(reference, x, [1, 3]), own(x)
    assert max(distance(a, b) for a, b in zip(found, expected, strict=True)) < bound
    weigh(expected).backward()
    weigh(found).backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in own.image_encoder.named_parameters():
        assert distance(parameter.grad, theirs[name].grad) < bound, name


def test_autocast_keeps_attention_in_half_precision() -> None:
    _, own = pair((320, 320), torch.float32)
    exact = own(picture((320, 320)))
    with torch.autocast("cpu", torch.bfloat16), Recorder() as record:
        rough = own(picture((320, 320)))
    assert {query.dtype for query in record.queries()} == {torch.bfloat16}
    assert all(
        F.cosine_similarity(a.flatten().float(), b.flatten(), 0) > 0.999 for a, b in zip(rough, exact, strict=True)
    )


def test_a_neighbour_in_the_batch_changes_nothing() -> None:
    _, own = pair((320, 320), torch.float64)
    x = picture((320, 320), 2).double()
    assert all(distance(both[:1], one) < 1e-12 for both, one in zip(own(x), own(x[:1]), strict=True))


# ---- the contract


def test_forward_is_the_loop_of_its_stages() -> None:
    own = toy(taps=[0, 2])
    x = own.stem(picture((320, 320)))
    assert x.shape == (1, 64, 20, 20)
    maps = []
    for stage in range(3):
        assert own.down(stage, x) is x
        x = own.blocks(stage, x)
        maps.append(x)
    assert all(torch.equal(a, b) for a, b in zip(maps, own(picture((320, 320))), strict=True))
    assert [m.shape[1] for m in maps] == own.channels == [64, 64, 256]
    assert own.strides == [16, 16, 16]


@pytest.mark.parametrize("taps", [[], [0], [3], [0, 1, 2, 3]], ids=str)
def test_taps_are_the_outputs_of_their_blocks(taps: list[int]) -> None:
    reference, _ = pair((192, 192), torch.float64)
    own = toy((192, 192), taps=taps).double()
    own.image_encoder.load_state_dict(reference.state_dict(), strict=True)
    x = picture((192, 192)).double()
    expected = official_maps(reference, x, taps)
    assert len(expected) == len(own.channels)
    assert max(distance(a, b) for a, b in zip(own(x), expected, strict=True)) < 1e-10


def test_default_taps_are_the_first_two_global_blocks() -> None:
    with torch.device("meta"):
        spans = {n: build_sam(Vision(f"sam_vit_{n}"), (1024, 1024)).spans for n in "blh"}
    assert spans["b"] == [range(0, 3), range(3, 6), range(6, 12)]
    assert spans["l"] == [range(0, 6), range(6, 12), range(12, 24)]
    assert spans["h"] == [range(0, 8), range(8, 16), range(16, 32)]


def test_tiny_trains_from_scratch() -> None:
    torch.manual_seed(0)
    own = build_sam(Vision("sam_vit_tiny"), (160, 224))
    maps = own(picture((160, 224), 2))
    assert [tuple(m.shape) for m in maps] == [(2, 128, 10, 14), (2, 128, 10, 14), (2, 256, 10, 14)]
    assert trained_names(own) == {name for name, _ in own.named_parameters()}
    weigh(maps).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in own.parameters())


# ---- attention


@pytest.mark.parametrize("size", [(320, 320), (192, 512)], ids=str)
def test_flash_kernel_takes_windows_and_globals(size: tuple[int, int]) -> None:
    own = toy(size)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), Recorder() as record:
        weigh(own(picture(size))).backward()
    windowed, globally = 16 + 28, 16 + size[0] // 16 + size[1] // 16
    assert [query.shape[-1] for query in record.queries()] == [windowed, globally, windowed, globally]


def test_no_matrix_of_all_cells_is_made() -> None:
    own = toy((1024, 256), window=4)
    cells = 64 * 16
    with Recorder() as record:
        weigh(own(picture((1024, 256)))).backward()
    assert record.largest < 4 * cells * cells / 4  # heads x cells x cells, with room for the widest activation


def test_frozen_encoder_keeps_nothing() -> None:
    own = toy(frozen=True, peft="adapter")
    with kept() as sizes:
        maps = own(picture((320, 320)))
    assert not sizes
    assert not any(m.requires_grad for m in maps)


def test_language_between_stages_learns_through_a_frozen_encoder() -> None:
    own = toy(peft="none")
    language = torch.zeros(1, 64, 1, 1, requires_grad=True)
    x = own.blocks(0, own.stem(picture((320, 320)))) + language
    own.blocks(2, own.blocks(1, x)).square().sum().backward()
    assert language.grad is not None
    assert language.grad.any()
    assert all(parameter.grad is None for parameter in own.parameters())


@pytest.mark.parametrize("peft", ["adapter", "full"])
def test_checkpointing_changes_memory_and_nothing_else(peft: str) -> None:
    runs = {}
    for checkpoint in (False, True):
        own = toy(peft=peft, checkpoint=checkpoint)
        randomise(own)
        with kept() as sizes:
            loss = weigh(own(picture((320, 320))))
        loss.backward()
        grads = {name: p.grad for name, p in own.named_parameters() if p.requires_grad}
        runs[checkpoint] = loss.detach(), grads, sum(sizes)
    assert torch.equal(runs[False][0], runs[True][0])
    assert all(torch.equal(grad, runs[True][1][name]) for name, grad in runs[False][1].items())
    assert runs[True][2] < runs[False][2] / 2


def test_graph_is_whole_for_the_compiler() -> None:
    own = toy((192, 192))
    compiled = torch.compile(own, fullgraph=True, backend="eager")
    found, expected = compiled(picture((192, 192))), own(picture((192, 192)))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# ---- weights


def save_official(path: Path, reference: ImageEncoderViT, **more: Tensor) -> str:
    """A file as the official ones are: the encoder beside parts that are none of ours."""
    state = {f"image_encoder.{name}": value for name, value in reference.state_dict().items()}
    torch.save(state | {"mask_decoder.iou_token.weight": torch.zeros(1, 256), **more}, path)
    return str(path)


@pytest.mark.parametrize("peft", ["none", "adapter", "lora", "full"])
def test_official_file_loads_at_its_own_size(tmp_path: Path, peft: str) -> None:
    reference = official((320, 320))
    own = toy(weights=save_official(tmp_path / "sam.pth", reference), peft=peft)
    assert distance(own(picture((320, 320)))[-1], reference(picture((320, 320)))) < 1e-4


@pytest.mark.parametrize("size", [(320, 320), (256, 640), (1152, 64)], ids=str)
def test_official_file_loads_at_another_size(tmp_path: Path, size: tuple[int, int]) -> None:
    """Relative tables: segment_anything resizes its own on the fly. The absolute one is resized here for it."""
    reference = official((1024, 1024)).double()
    own = toy(size, weights=save_official(tmp_path / "sam.pth", reference)).double()
    grid = (size[0] // 16, size[1] // 16)
    table = F.interpolate(reference.pos_embed.permute(0, 3, 1, 2), size=grid, mode="bicubic", antialias=True)
    reference.pos_embed = nn.Parameter(table.permute(0, 2, 3, 1))
    own.image_encoder.pos_embed.data.copy_(reference.pos_embed)
    x = picture(size).double()
    assert max(distance(a, b) for a, b in zip(own(x), official_maps(reference, x, [1, 3]), strict=True)) < 1e-6


def test_absolute_table_is_resized_as_a_picture(tmp_path: Path) -> None:
    reference = official((512, 512))
    ramp = torch.linspace(0, 1, 32)  # rises from top to bottom
    reference.pos_embed.data.copy_(ramp.view(1, 32, 1, 1).expand(1, 32, 32, 64))
    table = toy((256, 512), save_official(tmp_path / "sam.pth", reference)).image_encoder.pos_embed
    assert table.shape == (1, 16, 32, 64)
    assert torch.allclose(table[0, 2:-2, 5, 7], (ramp[0::2] + ramp[1::2])[2:-2] / 2, atol=1e-6)
    assert torch.allclose(table[0, :, 0, 0], table[0, :, 31, 63], atol=1e-6)


def break_file(path: Path) -> str:
    path.write_bytes(b"<html>not found</html>")
    return str(path)


def save_other(path: Path) -> str:
    torch.save({"model": torch.zeros(1)}, path)
    return str(path)


WRONG_FILES: dict[str, tuple[Callable[[Path], str], str]] = {
    "absent": (str, "not a file"),
    "broken": (break_file, "cannot be read"),
    "foreign": (save_other, "no image_encoder"),
    "narrower": (lambda p: save_official(p, official((320, 320), embed_dim=32)), "does not fit.*32.*64"),
    "shallower": (
        lambda p: save_official(p, official((320, 320), depth=2, global_attn_indexes=[1])),
        "absent in the file",
    ),
    "deeper": (lambda p: save_official(p, official((320, 320), depth=5)), "absent in the encoder"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_file_is_named(tmp_path: Path, kind: str) -> None:
    make, words = WRONG_FILES[kind]
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=words) as caught:
        toy(weights=make(path))
    assert "weights.pth" in str(caught.value)


def test_pretrained_is_looked_for_and_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with torch.device("meta"), pytest.raises(UserError, match=r"sam_vit_b_01ec64\.pth"):
        build_sam(Vision("sam_vit_b", "pretrained"), (64, 64))
    with pytest.raises(UserError, match="no pretrained weights"):
        toy(weights="pretrained")


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"tap": [1]}, "no option 'tap'"),
    ({"taps": [2, 1]}, "rising"),
    ({"taps": [4]}, "0 to 3"),
    ({"global_blocks": [1, 9]}, "global_blocks"),
    ({"heads": 5}, "heads"),
    ({"peft": "prefix"}, "'prefix'.*adapter"),
    ({"stem": "pool"}, "'pool'.*conv"),
    ({"peft": "lora", "rank": 0}, "rank 0"),
]


@pytest.mark.parametrize(("options", "words"), WRONG_OPTIONS, ids=lambda value: str(value))
def test_a_wrong_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        toy(**options)


@pytest.mark.parametrize("size", [(320, 300), (8, 320), (0, 0)], ids=str)
def test_a_size_between_patches_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="multiples of 16"):
        toy(size)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"320 x 336.*built for 320 x 320"):
        toy()(picture((320, 336)))


# ---- what trains


@pytest.mark.parametrize("peft", ["adapter", "lora"])
def test_adapted_encoder_begins_equal_bit_for_bit(peft: str) -> None:
    plain, adapted = toy(peft="none"), toy(peft=peft)
    randomise(plain)
    adapted.load_state_dict(plain.state_dict(), strict=False)
    maps = zip(adapted(picture((320, 320))), plain(picture((320, 320))), strict=True)
    assert all(torch.equal(a, b) for a, b in maps)


def test_a_seed_gives_the_same_base_whatever_is_put_in() -> None:
    plain = toy(peft="none").state_dict()
    for peft in ("adapter", "lora", "full"):
        state = toy(peft=peft).state_dict()
        assert all(torch.equal(state[name], value) for name, value in plain.items())


@pytest.mark.parametrize("peft", ["adapter", "lora", "none", "full"])
def test_only_what_was_chosen_trains(peft: str) -> None:
    own = toy((192, 192), peft=peft)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    expected = {name for name in before if peft == "full"} | added_names(own)
    assert trained_names(own) == expected
    if not expected:
        return
    optimiser = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):  # a zeroed up-projection blocks what lies under it in the first step
        optimiser.zero_grad()
        weigh(own(picture((192, 192)))).backward()
        optimiser.step()
    grads = {name: p.grad for name, p in own.named_parameters()}
    assert all(grads[name] is not None and grads[name].any() for name in expected)
    changed = {name for name, value in own.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == expected


def test_adapters_sit_where_the_formula_says() -> None:
    block: Any = toy(peft="adapter", scale=0.3).image_encoder.blocks[0]
    randomise(block)
    x = torch.randn(1, 20, 20, 64, generator=torch.Generator().manual_seed(3))

    def adapter(part: Adapter, value: Tensor) -> Tensor:
        hidden = F.gelu(value @ part.down.weight.T + part.down.bias)
        return hidden @ part.up.weight.T + part.up.bias

    a = block.attn(block.norm1(x))
    y = x + a + adapter(block.attn_adapter, a)
    n = block.norm2(y)
    z = y + block.mlp(n) + 0.3 * adapter(block.mlp_adapter, n)
    assert torch.allclose(block(x), z, atol=1e-5)


def test_lora_equals_a_change_of_the_query_and_value_weights() -> None:
    adapted, merged = toy(peft="lora"), toy(peft="none")
    randomise(adapted)
    merged.load_state_dict({name: value for name, value in adapted.state_dict().items() if "lora" not in name})
    for block, plain in zip(adapted.image_encoder.blocks, merged.image_encoder.blocks, strict=True):
        lora, weight = block.attn.lora, plain.attn.qkv.weight  # type: ignore
        weight.data[:64] += lora.query_up.weight @ lora.query_down.weight
        weight.data[128:] += lora.value_up.weight @ lora.value_down.weight
    pairs = zip(adapted(picture((320, 320))), merged(picture((320, 320))), strict=True)
    assert max(distance(a, b) for a, b in pairs) < 1e-4


@pytest.mark.parametrize(
    ("name", "total", "adapters", "lora"),
    [
        ("sam_vit_b", 89_670_912, 2_379_264, 147_456),
        ("sam_vit_l", 308_278_272, 6_343_680, 393_216),
        ("sam_vit_h", 637_026_048, 10_571_776, 655_360),
    ],
)
def test_parameters_count_as_published(name: str, total: int, adapters: int, lora: int) -> None:
    counts = {}
    with torch.device("meta"):
        for peft in ("none", "adapter", "lora"):
            own = build_sam(Vision(name, options={"peft": peft}), (1024, 1024))
            counts[peft] = (
                sum(p.numel() for p in own.parameters()),
                sum(p.numel() for p in own.parameters() if p.requires_grad),
            )
    assert counts == {"none": (total, 0), "adapter": (total + adapters, adapters), "lora": (total + lora, lora)}


def test_neck_counts_as_published() -> None:
    with torch.device("meta"):
        own = build_sam(Vision("sam_vit_b"), (1024, 1024))
    assert sum(p.numel() for p in own.image_encoder.neck.parameters()) == 787_456


def test_a_checkpoint_holds_only_what_was_trained(tmp_path: Path) -> None:
    weights = save_official(tmp_path / "sam.pth", official((320, 320)))
    trained, fresh = (nn.Sequential(toy(weights=weights, peft="adapter"), nn.BatchNorm2d(256)) for _ in range(2))
    randomise(nn.ModuleList(m for m in trained.modules() if isinstance(m, Adapter | QueryValueLoRA | nn.BatchNorm2d)))
    trained[1](torch.randn(2, 256, 4, 4))
    state = trained_state(trained)
    assert {name for name in state if name.startswith("0.")} == {f"0.{name}" for name in added_names(trained[0])}
    assert {"1.weight", "1.running_mean"} <= state.keys()
    load_trained_state(fresh, state)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_a_trained_state_that_does_not_fit_is_refused() -> None:
    state = trained_state(toy(peft="adapter"))
    with pytest.raises(UserError, match=r"missing: .*lora"):
        load_trained_state(toy(peft="lora"), state)
    with pytest.raises(UserError, match=r"unknown: .*adapter"):
        load_trained_state(toy(peft="none"), state)
