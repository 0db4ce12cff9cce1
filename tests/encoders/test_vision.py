"""Vision encoders: stages against timm's own features, sizes, freezing and errors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from riszoo.encoders import vision as building
from riszoo.encoders.base import VisionConfig, VisionEncoder
from riszoo.encoders.sam import SamEncoder
from riszoo.encoders.vision import SingleStageEncoder, StagedEncoder, ViTEncoder, build_vision
from riszoo.errors import UserError

SIZE = (64, 96)
SWIN = {"embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4], "window_size": 4}
RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 24]}
CONVNEXT = {"dims": [8, 12, 16, 24], "depths": [1, 1, 2, 1]}
VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2}
CHAINS = {
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "convnext_atto": CONVNEXT,
    "resnet18": RESNET,
    "darknet53": {},
    "efficientnet_b0": {},
    "mobilenetv3_small_050": {},
    "pvt_v2_b0": {},
    "swinv2_cr_tiny_224": {"embed_dim": 8, "num_heads": [1, 1, 2, 2], "window_size": 4},
    "dla46_c": {},
}
SPLIT = {"swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "convnext_atto"}


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)


def image(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(2, 3, *size)


def randomised(model: nn.Module) -> nn.Module:
    """Change every parameter and running statistic, so that no module starts as the identity."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) * 0.02)
    return model


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Copies of the timm models that `build_vision` splits, made before it does."""
    models: list[nn.Module] = []
    create = building.create_timm

    def remember(name: str, **options: Any) -> nn.Module:
        model: nn.Module = create(name, **options)
        if not options.get("features_only"):
            models.append(copy.deepcopy(randomised(model)))
        return model

    monkeypatch.setattr(building, "create_timm", remember)
    return models


def timm_maps(name: str, options: dict[str, Any], source: nn.Module, x: Tensor) -> list[Tensor]:
    """timm's features_only maps from stride 4 on, NCHW, with the parameters of a whole model."""
    sized = {"img_size": SIZE} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    features = timm.create_model(name, features_only=True, **sized, **options)
    flat = {key.replace(".", "_"): tensor for key, tensor in source.state_dict().items()}
    features.load_state_dict({key: flat[key.replace(".", "_")] for key in features.state_dict()})
    maps = zip(features.double().eval()(x), features.feature_info.reduction(), strict=True)
    nhwc = str(getattr(features, "output_fmt", "")).endswith("NHWC")
    return [m.permute(0, 3, 1, 2) if nhwc else m for m, stride in maps if stride >= 4]


@pytest.mark.parametrize("name", CHAINS)
def test_the_maps_equal_timms_own_features(name: str, whole: list[nn.Module]) -> None:
    encoder = build_vision(VisionConfig(name, options=CHAINS[name]), SIZE).eval().double()
    assert isinstance(encoder, StagedEncoder)
    x = image().double()
    maps, expected = encoder(x), timm_maps(name, CHAINS[name], whole[0], x)
    assert encoder.strides == [4, 8, 16, 32]
    assert len(maps) == len(expected) == 4
    for level, (ours, theirs) in enumerate(zip(maps, expected, strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        assert ours.shape[1:] == (encoder.channels[level], *(side // encoder.strides[level] for side in SIZE))


@pytest.mark.parametrize("name", CHAINS)
def test_a_downsampling_module_at_the_start_of_a_stage_becomes_down(name: str) -> None:
    encoder = build_vision(VisionConfig(name, options=CHAINS[name]), SIZE).eval()
    x = encoder.blocks(0, encoder.down(0, encoder.stem(image())))
    below = encoder.down(1, x)
    side = 8 if name in SPLIT else 4
    assert below.shape[2:] == (SIZE[0] // side, SIZE[1] // side)
    assert (below is x) == (name not in SPLIT)


@pytest.mark.parametrize(
    ("name", "options", "patch"),
    [
        ("vit_tiny_patch16_224", {}, 16),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True, "pos_drop_rate": 0.1}, 16),
        ("vit_small_patch14_reg4_dinov2", {"reg_tokens": 3}, 14),
        ("vit_base_patch16_clip_224", {}, 16),
    ],
)
def test_a_plain_vit_equals_timms_forward_features(
    name: str, options: dict[str, Any], patch: int, whole: list[nn.Module]
) -> None:
    size = (4 * patch, 5 * patch)
    encoder = build_vision(VisionConfig(name, options={**VIT, **options}), size).eval().double()
    assert isinstance(encoder, ViTEncoder)
    x = image(size).double()
    model: Any = whole[0].eval().double()
    tokens = model.forward_features(x)[:, model.num_prefix_tokens :]
    (only,) = encoder(x)
    assert only.shape == (2, 16, 4, 5)
    torch.testing.assert_close(only.flatten(2).transpose(1, 2), tokens, rtol=1e-9, atol=1e-9)
    assert encoder.stem(x).shape == (2, 16, 4, 5)
    assert (encoder.channels, encoder.strides) == ([16], [patch])


def test_every_parameter_of_an_encoder_gets_a_gradient() -> None:
    """Parameters that only classification uses would break data-parallel training."""
    for name, options in {"vit_base_patch16_siglip_224": VIT, "swin_tiny_patch4_window7_224": SWIN}.items():
        encoder = build_vision(VisionConfig(name, options=options), SIZE)
        sum(m.square().sum() for m in encoder(image())).backward()
        assert not [name for name, p in encoder.named_parameters() if p.grad is None]


@pytest.mark.parametrize(("name", "cells"), [("xcit_nano_12_p16_224", 6), ("hiera_tiny_224", 3)])
def test_a_model_that_cannot_be_split_has_one_stage(name: str, cells: int) -> None:
    encoder = build_vision(VisionConfig(name), (96, 96)).eval()
    assert isinstance(encoder, SingleStageEncoder)
    (only,) = encoder(image((96, 96)))
    assert only.shape == (2, encoder.channels[0], cells, cells)


def test_swin_takes_other_sizes_when_not_strict() -> None:
    options = {**SWIN, "strict_img_size": False}
    encoder = build_vision(VisionConfig("swin_tiny_patch4_window7_224", options=options), (64, 64)).eval()
    assert [m.shape[-1] for m in encoder(image((96, 160)))] == [40, 20, 10, 5]


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_a_frozen_encoder_does_not_change_in_a_training_step(name: str) -> None:
    options = {**CHAINS[name], "drop_path_rate": 0.5}
    encoder = build_vision(VisionConfig(name, frozen=True, options=options), SIZE)
    model = nn.Sequential(encoder).train()
    before = copy.deepcopy(model.state_dict())
    head = nn.Conv2d(encoder.channels[-1], 1, 1)
    optimiser = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=1.0, weight_decay=0.1)
    maps = model(image())
    head(maps[-1]).sum().backward()
    optimiser.step()
    assert not maps[-1].requires_grad
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_drop_path_is_active_in_training_only() -> None:
    encoder = build_vision(VisionConfig("convnext_atto", options={**CONVNEXT, "drop_path_rate": 0.9}), SIZE)
    x = image()
    assert not torch.equal(encoder(x)[-1], encoder(x)[-1])
    encoder.eval()
    assert torch.equal(encoder(x)[-1], encoder(x)[-1])


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto", "vit_tiny_patch16_224"])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    options = {**CHAINS.get(name, VIT), "drop_path_rate": 0.0}
    plain = build_vision(VisionConfig(name, options=options), SIZE).double()
    thrifty = build_vision(VisionConfig(name, options={**options, "grad_checkpointing": True}), SIZE).double()
    thrifty.load_state_dict(plain.state_dict())
    x = image().double()
    (expected, many), (gradients, few) = _gradients(plain, x), _gradients(thrifty, x)
    torch.testing.assert_close(gradients, expected)
    assert few < many


def _gradients(encoder: VisionEncoder, x: Tensor) -> tuple[list[Tensor], int]:
    """The gradient of every parameter, and the number of tensors that the forward pass saved for it."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += 1
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = sum(m.square().mean() for m in encoder(x))
    assert isinstance(loss, Tensor)
    loss.backward()
    return [p.grad for p in encoder.parameters() if p.grad is not None], kept


class Custom(VisionEncoder):
    """A user's encoder."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 4, 4)
        self.channels, self.strides = [width], [4]

    def stem(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        return x


def test_a_custom_class_by_its_dotted_name() -> None:
    encoder = build_vision(VisionConfig(f"{__name__}.Custom", frozen=True, options={"width": 6}), SIZE)
    assert type(encoder).__name__ == "Custom"
    assert encoder(image())[0].shape == (2, 6, 16, 24)
    assert encoder.frozen


def test_names_of_sam_build_a_sam_encoder() -> None:
    options = {"embed_dim": 32, "depth": 2, "global_blocks": [0, 1]}
    assert isinstance(build_vision(VisionConfig("sam_vit_tiny", options=options), SIZE), SamEncoder)


def test_swin_base_has_the_published_number_of_parameters() -> None:
    """86,878,584 without head; the norm after the last stage (2 x 1024) serves classification only."""
    with torch.device("meta"):
        encoder = build_vision(VisionConfig("swin_base_patch4_window12_384"), (480, 480))
    assert sum(p.numel() for p in encoder.parameters()) == 86_878_584 - 2048


@pytest.mark.parametrize(
    ("vision", "size", "message"),
    [
        (VisionConfig("resnet81"), SIZE, "did you mean resnet"),
        (VisionConfig("sam_vit_x"), SIZE, "did you mean sam_vit"),
        (
            VisionConfig("torch.nn.Conv2d", options={"in_channels": 1, "out_channels": 1, "kernel_size": 1}),
            SIZE,
            "derive it",
        ),
        (VisionConfig("resnet18", options={"chanels": 3}), SIZE, "chanels"),
        (VisionConfig("vit_tiny_patch16_224", options=VIT), (64, 72), "not a multiple of the 16 pixel patches"),
        (VisionConfig("resnet18", options={**RESNET, "grad_checkpointing": True}), SIZE, "no gradient checkpointing"),
        (VisionConfig("resnet18", options={**RESNET, "negative_slope": 0.1}), SIZE, "no LeakyReLU"),
        (VisionConfig("sam_vit_tiny", stages=2), SIZE, "cannot be cut after 2 stages"),
    ],
)
def test_user_errors_are_one_sentence(vision: VisionConfig, size: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_vision(vision, size)
    assert "\n" not in str(caught.value)


# blocks in halves, and DINOv2's position table

DINO = {"embed_dim": 16, "depth": 3, "num_heads": 2, "init_values": 1.0}


def dino(size: tuple[int, int] = (126, 98), **options: Any) -> Any:
    config = VisionConfig("vit_base_patch14_reg4_dinov2", options={**DINO, **options})
    return randomised(build_vision(config, size)).double().eval()


def test_the_halves_of_the_blocks_are_the_whole_vit() -> None:
    encoder, x = dino(), image((126, 98)).double()
    (expected,) = encoder(x)
    cells = encoder.stem(x)
    tokens = torch.cat([encoder.prefix(cells), cells.flatten(2).mT], 1)
    for block in range(3):
        tokens = encoder.feed_forward(block, encoder.attend(block, tokens))
    assert tokens.shape == (2, 1 + 4 + 9 * 7, 16)
    torch.testing.assert_close(encoder.vit.norm(tokens)[:, 5:].mT.reshape(2, 16, 9, 7), expected)


def test_checkpointing_recomputes_the_halves_too() -> None:
    plain, thrifty = dino(), dino(grad_checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    tokens = torch.randn(1, 10, 16, dtype=torch.float64)
    kept: list[int] = []

    def gradients(encoder: Any) -> list[Tensor]:
        kept.append(0)

        def count(tensor: Tensor) -> Tensor:
            kept[-1] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            x = tokens
            for block in range(3):
                x = encoder.feed_forward(block, encoder.attend(block, x), lambda normed: 2 * normed)
        return list(torch.autograd.grad(x.square().sum(), list(encoder.vit.blocks.parameters())))

    torch.testing.assert_close(gradients(thrifty), gradients(plain))
    assert kept[0] < kept[1]


def test_an_update_beside_the_mlp_passes_its_layer_scale() -> None:
    encoder, tokens = dino(), torch.randn(1, 10, 16, dtype=torch.float64)
    usual = encoder.feed_forward(0, tokens)
    updated = encoder.feed_forward(0, tokens, lambda normed: 2 * normed)
    block = encoder.vit.blocks[0]
    torch.testing.assert_close(updated - usual, 2 * block.ls2.gamma * block.norm2(tokens))


def sampled(table: Tensor, grid: tuple[int, int], offset: float) -> Tensor:
    """A bicubic resize by torch's grid_sample at the positions that DINOv2's factor gives."""
    side = table.shape[-1]
    y, x = ((torch.arange(n, dtype=table.dtype) + 0.5) * side / (n + offset) * 2 / side - 1 for n in grid)
    positions = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    return nn.functional.grid_sample(table, positions, mode="bicubic", padding_mode="border", align_corners=False)


@pytest.mark.parametrize("offset", [0.1, 0.0])
def test_the_position_table_is_sampled_as_in_dinov2(offset: float) -> None:
    encoder = dino(position_offset=offset)
    table = encoder.vit.pos_embed.mT.reshape(1, 16, 37, 37)
    expected = sampled(table, (9, 7), offset).flatten(2).mT
    torch.testing.assert_close(encoder.positions((9, 7)), expected)


def test_the_position_table_is_used_as_it_is_at_its_own_size() -> None:
    encoder = dino((518, 518), position_offset=0.1)
    assert encoder.positions((37, 37)) is encoder.vit.pos_embed


def test_timms_table_differs_from_dinov2s() -> None:
    plain, offset = dino(dynamic_img_size=True, img_size=518), dino(position_offset=0.1)
    offset.load_state_dict(plain.state_dict())
    x = image((126, 98)).double()
    assert (plain.stem(x) - offset.stem(x)).abs().max() > 1e-3


def test_a_position_offset_needs_dinov2_with_registers() -> None:
    with pytest.raises(UserError, match="position_offset is for DINOv2 with registers, not for vit_tiny_patch16_224"):
        build_vision(VisionConfig("vit_tiny_patch16_224", options={**VIT, "position_offset": 0.1}), (224, 224))


class Reader:
    """A class whose constructor has an encoder's options, as a model's has."""

    def __init__(self, vision: VisionConfig = VisionConfig()) -> None:  # noqa: B008 - read only
        self.vision = vision


def test_null_on_the_command_line_is_none() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Reader, "reader")
    options = {"vision": {"options": {"output_stride": 8, "stages": 3}}}
    parser.set_defaults({"reader": {"class_path": f"{__name__}.Reader", "init_args": options}})
    given = parser.parse_args(["--reader.vision.options.output_stride", "null"])
    assert parser.instantiate_classes(given).reader.vision.options == {"output_stride": None, "stages": 3}
