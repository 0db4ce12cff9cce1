"""Official weight files, options and adaptation of the SAM encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F

from riszoo.encoders.adapters import Adapter, added_names
from riszoo.encoders.base import VisionConfig
from riszoo.encoders.sam import build_sam
from riszoo.errors import UserError
from tests.support.sam_reference import distance, image, official, official_maps, randomise, toy, weigh
from tests.support.zoo import trained_names


def save_official(path: Path, reference: ImageEncoderViT, **more: Tensor) -> str:
    """Save a file as the official ones are: the encoder beside other parts."""
    state = {f"image_encoder.{name}": value for name, value in reference.state_dict().items()}
    torch.save(state | {"mask_decoder.iou_token.weight": torch.zeros(1, 256), **more}, path)
    return str(path)


@pytest.mark.parametrize("peft", ["none", "adapter", "lora", "full"])
def test_official_file_loads_at_its_own_size(tmp_path: Path, peft: str) -> None:
    reference = official((320, 320))
    own = toy(weights=save_official(tmp_path / "sam.pth", reference), peft=peft)
    assert distance(own(image((320, 320)))[-1], reference(image((320, 320)))) < 1e-4


@pytest.mark.parametrize("size", [(320, 320), (256, 640), (1152, 64)], ids=str)
def test_official_file_loads_at_another_size(tmp_path: Path, size: tuple[int, int]) -> None:
    """segment_anything resizes its relative tables itself; the absolute one is resized here."""
    reference = official((1024, 1024)).double()
    own = toy(size, weights=save_official(tmp_path / "sam.pth", reference)).double()
    grid = (size[0] // 16, size[1] // 16)
    table = F.interpolate(reference.pos_embed.permute(0, 3, 1, 2), size=grid, mode="bicubic", antialias=True)
    reference.pos_embed = nn.Parameter(table.permute(0, 2, 3, 1))
    x = image(size).double()
    assert max(distance(a, b) for a, b in zip(own(x), official_maps(reference, x, [1, 3]), strict=True)) < 1e-6


def test_the_absolute_table_is_resized_as_an_image(tmp_path: Path) -> None:
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


def garble(path: Path) -> str:
    """A name inside that is not UTF-8, which torch does not report as a damaged file."""
    save_official(path, official((320, 320)))
    path.write_bytes(path.read_bytes().replace(b"patch_embed.proj.weight", b"patch_embed.proj.w\xffight", 1))
    return str(path)


def save_table(value: Tensor) -> Callable[[Path], str]:
    """An official file with another absolute position table."""
    return lambda path: save_official(path, official((320, 320)), **{"image_encoder.pos_embed": value})


WRONG_FILES: dict[str, tuple[Callable[[Path], str], str]] = {
    "absent": (str, "no SAM weights"),
    "broken": (break_file, "cannot be read"),
    "garbled": (garble, "cannot be read"),
    "flat table": (save_table(torch.zeros(400)), "pos_embed is 400 in the file"),
    "empty table": (save_table(torch.zeros(1, 0, 0, 64)), "does not fit"),
    "table of whole numbers": (save_table(torch.zeros(1, 8, 8, 64, dtype=torch.int64)), "does not fit"),
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


def test_pretrained_weights_are_never_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with torch.device("meta"), pytest.raises(UserError, match=r"sam_vit_b_01ec64\.pth"):
        build_sam(VisionConfig("sam_vit_b", "pretrained"), (64, 64))
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


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"320 x 336.*built for 320 x 320"):
        toy()(image((320, 336)))


# ---- what trains


@pytest.mark.parametrize("peft", ["adapter", "lora"])
def test_an_adapted_encoder_starts_exactly_equal(peft: str) -> None:
    plain, adapted = toy(peft="none"), toy(peft=peft)
    randomise(plain)
    adapted.load_state_dict(plain.state_dict(), strict=False)
    maps = zip(adapted(image((320, 320))), plain(image((320, 320))), strict=True)
    assert all(torch.equal(a, b) for a, b in maps)


def test_a_seed_gives_the_same_encoder_for_every_kind_of_adaptation() -> None:
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
        weigh(own(image((192, 192)))).backward()
        optimiser.step()
    grads = {name: p.grad for name, p in own.named_parameters()}
    assert all(grads[name] is not None and grads[name].any() for name in expected)
    changed = {name for name, value in own.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == expected


def test_adapters_follow_the_formula() -> None:
    block: Any = toy(peft="adapter", scale=0.3).image_encoder.blocks[1]
    randomise(block)
    x = torch.randn(1, 20, 20, 64, generator=torch.Generator().manual_seed(3))
    adapted = block(x)

    def update(part: Adapter, value: Tensor) -> Tensor:
        hidden = F.gelu(value @ part.down.weight.T + part.down.bias)
        return hidden @ part.up.weight.T + part.up.bias

    beside_attention, block.attn.adapter = block.attn.adapter, None
    a = block.attn(block.norm1(x))
    y = x + a + update(beside_attention, a)
    n = block.norm2(y)
    z = y + block.mlp.lin2(F.gelu(block.mlp.lin1(n))) + 0.3 * update(block.mlp.adapter, n)
    assert torch.allclose(adapted, z, atol=1e-5)


def test_lora_equals_a_change_of_the_query_and_value_weights() -> None:
    adapted, merged = toy(peft="lora"), toy(peft="none")
    randomise(adapted)
    merged.load_state_dict({name: value for name, value in adapted.state_dict().items() if "lora" not in name})
    for block, plain in zip(adapted.image_encoder.blocks, merged.image_encoder.blocks, strict=True):
        lora, weight = block.attn.lora, plain.attn.qkv.weight  # type: ignore
        weight.data[:64] += lora.query_up.weight @ lora.query_down.weight
        weight.data[128:] += lora.value_up.weight @ lora.value_down.weight
    pairs = zip(adapted(image((320, 320))), merged(image((320, 320))), strict=True)
    assert max(distance(a, b) for a, b in pairs) < 1e-4


@pytest.mark.parametrize(
    ("name", "total", "adapters", "lora"),
    [
        ("sam_vit_b", 89_670_912, 2_379_264, 147_456),
        ("sam_vit_l", 308_278_272, 6_343_680, 393_216),
        ("sam_vit_h", 637_026_048, 10_571_776, 655_360),
    ],
)
def test_encoders_have_the_published_number_of_parameters(name: str, total: int, adapters: int, lora: int) -> None:
    counts = {}
    with torch.device("meta"):
        for peft in ("none", "adapter", "lora"):
            own = build_sam(VisionConfig(name, options={"peft": peft}), (1024, 1024))
            counts[peft] = (
                sum(p.numel() for p in own.parameters()),
                sum(p.numel() for p in own.parameters() if p.requires_grad),
            )
    assert counts == {"none": (total, 0), "adapter": (total + adapters, adapters), "lora": (total + lora, lora)}


def test_the_neck_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        own = build_sam(VisionConfig("sam_vit_b"), (1024, 1024))
    assert sum(p.numel() for p in own.image_encoder.neck.parameters()) == 787_456
