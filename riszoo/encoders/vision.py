"""timm models as encoders in stages, between which a model can add language.

timm's `feature_info` says after which modules a model's maps are. A model whose modules form a chain is split there;
where a stage starts with a downsampling module (Swin, ConvNeXt), that becomes `down`. Only maps from stride 4 on are
used; the modules before the first one are the stem. A plain ViT has one stage, and so has a model that is not a chain.

    I images   C channels   h x w a grid
"""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import checkpoint_seq
from timm.models._features import FeatureListNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from riszoo.encoders import sam
from riszoo.encoders.base import VisionConfig, VisionEncoder
from riszoo.encoders.clip.resnet import in_timm_form
from riszoo.encoders.weights import existing, fill, first_line, load_weights, read_state
from riszoo.errors import UserError
from riszoo.layers import to_grid, to_tokens

Size = tuple[int, int]


def build_vision(vision: VisionConfig, size: Size) -> VisionEncoder:
    """The encoder of a recipe, for images of `size` (H, W)."""
    encoder: VisionEncoder
    if vision.name in sam.SIZES:
        encoder = sam.build_sam(vision, size)
    elif timm.is_model(vision.name.split(".")[0]):
        encoder = build_timm(vision, size)
    else:
        encoder = build_custom(vision)
    if vision.stages is not None:
        encoder.keep(vision.stages)
    return encoder.freeze() if vision.frozen else encoder


@dataclass
class Maps:
    """A timm model's maps from fine to coarse: the modules that return them, their channels and strides."""

    modules: list[str]
    channels: list[int]
    strides: list[int]
    chained: bool


class StagedEncoder(VisionEncoder):
    """A chain of modules, split after each map."""

    def __init__(self, model: nn.Module, maps: Maps) -> None:
        super().__init__()
        self.channels, self.strides = maps.channels, maps.strides
        self.nhwc = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        (*before, first), *rest = segments(model, maps.modules)
        self.first = nn.Sequential(*before)
        stages = [first, *(part[0] if len(part) == 1 else nn.Sequential(*part) for part in rest)]
        steps = zip(stages[1:], self.channels, self.channels[1:], strict=False)
        self.downs = nn.ModuleList([nn.Identity(), *(take_downsample(*step, self.nhwc) for step in steps)])
        self.stages = nn.ModuleList(stages)

    def stem(self, x: Tensor) -> Tensor:
        return self.to_nchw(self.first(x))

    def down(self, stage: int, x: Tensor) -> Tensor:
        return self.to_nchw(self.downs[stage](self.from_nchw(x)))

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        return self.to_nchw(self.stages[stage](self.from_nchw(x)))

    def keep(self, stages: int) -> None:
        if not 1 <= stages <= len(self.channels):
            raise UserError(f"vision.stages {stages} is invalid: {len(self.channels)} stages exist")
        self.channels, self.strides = self.channels[:stages], self.strides[:stages]
        self.downs, self.stages = self.downs[:stages], self.stages[:stages]

    def from_nchw(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1) if self.nhwc else x

    def to_nchw(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2) if self.nhwc else x


def segments(model: nn.Module, taps: list[str]) -> list[list[nn.Module]]:
    """The chain's modules; each segment ends with one whose output is a map."""
    segments: list[list[nn.Module]] = [[]]
    remaining = list(taps)
    for name, module in chain(model, taps):
        segments[-1].append(module)
        if name in remaining:
            remaining.remove(name)
            segments.append([])
        if not remaining:
            break
    return segments[:-1]


def chain(model: nn.Module, taps: list[str]) -> Iterable[tuple[str, nn.Module]]:
    """The model's children in order; one that returns maps from inside is replaced by its own children."""
    for name, child in model.named_children():
        if any(tap.startswith(f"{name}.") for tap in taps):
            yield from ((f"{name}.{inner}", module) for inner, module in child.named_children())
        else:
            yield name, child


def take_downsample(stage: nn.Module, before: int, after: int, nhwc: bool) -> nn.Module:
    """Remove the downsampling module from the start of a stage and return it; the identity where there is none."""
    names = [name for name, _ in stage.named_children()]
    if names[:1] != ["downsample"] or "blocks" not in names:
        return nn.Identity()
    downsample = stage.get_submodule("downsample")
    if not keeps_layout(downsample, before, after, nhwc):
        return nn.Identity()
    stage.downsample = nn.Identity()
    return downsample


def keeps_layout(downsample: nn.Module, before: int, after: int, nhwc: bool) -> bool:
    """Whether input and output have the layout of the model's maps; PVT and SwinV2-CR change NCHW to NHWC here."""
    skeleton = copy.deepcopy(downsample).to("meta")
    try:
        shape = skeleton(torch.empty((1, 4, 4, before) if nhwc else (1, before, 4, 4), device="meta")).shape
    except RuntimeError:
        return False
    return bool(shape[3 if nhwc else 1] == after)


class ViTEncoder(VisionEncoder):
    """timm's VisionTransformer: one normalised map, without class and register tokens."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        vit.reset_classifier(0, "")
        vit.fc_norm = nn.Identity()
        self.vit = vit
        self.channels, self.strides = [vit.embed_dim], [vit.patch_embed.patch_size[0]]

    def stem(self, x: Tensor) -> Tensor:
        patch = self.strides[0]
        tokens = self.with_positions(self.vit.patch_embed(x))[:, self.vit.num_prefix_tokens :]  # (I, h w, C)
        return to_grid(tokens, (x.shape[2] // patch, x.shape[3] // patch))

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        tokens = torch.cat([self.prefix(x), to_tokens(x)], 1)  # (I, prefix + h w, C)
        tokens = checkpoint_seq(self.vit.blocks, tokens) if self.recomputes else self.vit.blocks(tokens)
        return to_grid(self.vit.norm(tokens)[:, self.vit.num_prefix_tokens :], (x.shape[2], x.shape[3]))

    def with_positions(self, patches: Tensor) -> Tensor:
        tokens: Tensor = self.vit.norm_pre(self.vit._pos_embed(patches))
        return tokens

    def prefix(self, x: Tensor) -> Tensor:
        """Class and register tokens (I, prefix, C), which do not depend on the image before the first block."""
        patches = x.new_zeros(1, x.shape[2], x.shape[3], x.shape[1])
        patches = patches if self.vit.dynamic_img_size else patches.flatten(1, 2)
        return self.with_positions(patches)[:, : self.vit.num_prefix_tokens].expand(x.shape[0], -1, -1)

    def attend(self, index: int, tokens: Tensor) -> Tensor:
        """The first half of a block, self-attention: (I, prefix + h w, C) -> the same."""
        block = self.block(index)

        def attention(x: Tensor) -> Tensor:
            attended: Tensor = block.drop_path1(block.ls1(block.attn(block.norm1(x))))
            return attended

        return tokens + self.recomputed(attention, tokens)

    def feed_forward(self, index: int, tokens: Tensor, beside: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The second half of a block; the result of `beside`, of the same normalised tokens, is added to the MLP's."""
        block = self.block(index)
        normed = block.norm2(tokens)
        update = self.recomputed(block.mlp, normed)
        update = update if beside is None else update + beside(normed)
        updated: Tensor = tokens + block.drop_path2(block.ls2(update))
        return updated

    @property
    def recomputes(self) -> bool:
        """Whether the backward pass computes activations again: `grad_checkpointing`."""
        return bool(self.vit.grad_checkpointing) and torch.is_grad_enabled()

    def recomputed(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The result of a part of a block."""
        result: Tensor = checkpoint(part, x, use_reentrant=False) if self.recomputes else part(x)
        return result

    def block(self, index: int) -> Block:
        block = self.vit.blocks[index]
        if not isinstance(block, Block):
            raise UserError(f"the blocks of {type(self.vit).__name__} are not pre-norm blocks: choose a plain ViT")
        return block


class OffsetViTEncoder(ViTEncoder):
    """A ViT whose position table has the side of its training and is resized for each grid as DINOv2's code does it.

    A grid of n cells is sampled with the factor (n + offset) / side, bicubic, without antialiasing; timm samples with
    n / side and antialiasing. Tables without rows for the class and register tokens only.
    """

    def __init__(self, vit: Any, offset: float) -> None:
        super().__init__(vit)
        self.offset = offset

    def with_positions(self, patches: Tensor) -> Tensor:
        """(I, h, w, C) -> (I, prefix + h w, C)"""
        vit, (h, w) = self.vit, patches.shape[1:3]
        special = torch.cat([vit.cls_token, vit.reg_token], 1).expand(patches.shape[0], -1, -1)
        return torch.cat([special, patches.flatten(1, 2) + self.positions((h, w))], 1)

    def positions(self, grid: Size) -> Tensor:
        """The position table (1, h w, C) of a grid."""
        table, side = self.vit.pos_embed, self.vit.patch_embed.grid_size
        if grid == tuple(side):
            return table  # type: ignore[no-any-return]
        cells = to_grid(table, side)
        if not self.offset:
            return to_tokens(F.interpolate(cells, grid, mode="bicubic"))
        factors = [(n + self.offset) / s for n, s in zip(grid, side, strict=True)]
        return to_tokens(F.interpolate(cells, scale_factor=factors, mode="bicubic"))


class SingleStageEncoder(VisionEncoder):
    """A model that cannot be split: its last map, normalised where all depths share one grid, as in a ViT."""

    def __init__(self, model: Any, maps: Maps) -> None:
        super().__init__()
        model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.model, self.normalised = model, len(maps.strides) == 1
        self.channels, self.strides = maps.channels[-1:], maps.strides[-1:]

    def stem(self, x: Tensor) -> Tensor:
        return x

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        last: Tensor = self.model.forward_intermediates(
            x, indices=1, norm=self.normalised, output_fmt="NCHW", intermediates_only=True
        )[-1]
        return last


def build_timm(vision: VisionConfig, size: Size) -> VisionEncoder:
    options = in_timm_form(vision.name, dict(vision.options))
    checkpointed, slope = options.pop("grad_checkpointing", False), options.pop("negative_slope", None)
    padded_first, offset = options.pop("pad_before_shift", False), options.pop("position_offset", None)
    if padded_first:
        options.setdefault("always_partition", True)  # windows keep their size on maps smaller than a window
    fixed_size = bool(timm.get_pretrained_cfg(vision.name).fixed_input_size)  # windows or position tables
    if offset is not None:
        options |= {"dynamic_img_size": True}
    elif fixed_size:
        options.setdefault("img_size", size)
    model = create_timm(vision.name, num_classes=0, **options)
    if slope is not None:
        set_negative_slope(model, slope, vision.name)
    loaded = None if vision.weights == "none" else load_weights(model, vision.weights, vision.name)
    if padded_first:
        from riszoo.encoders.swin import pad_before_shift

        pad_before_shift(model, vision.name)
    encoder = in_stages(model, vision.name, options) if offset is None else offset_vit(model, vision.name, offset)
    if loaded:
        loaded.check(encoder)
        encoder.weight_file = loaded.path
    if checkpointed:
        enable_checkpointing(model, encoder, vision.name)
    if fixed_size:
        check_size(encoder, vision.name, size)
    return encoder


def create_timm(name: str, **options: Any) -> Any:
    try:
        return timm.create_model(name, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(f"timm cannot build {name} with vision.options {options}: {first_line(error)}") from error


def in_stages(model: Any, name: str, options: dict[str, Any]) -> VisionEncoder:
    if isinstance(model, VisionTransformer):
        return ViTEncoder(model)
    maps = find_maps(name, options)
    if maps.chained and len(segments(model, maps.modules)) == len(maps.modules):
        return StagedEncoder(model, maps)
    if not hasattr(model, "prune_intermediate_layers"):
        raise UserError(f"timm's {name} does not return intermediate maps; choose a Swin, ConvNeXt, ResNet or ViT")
    return SingleStageEncoder(model, maps)


def offset_vit(model: Any, name: str, offset: float) -> OffsetViTEncoder:
    if not isinstance(model, VisionTransformer) or not model.no_embed_class or model.reg_token is None:
        raise UserError(f"vision.options.position_offset is for DINOv2 with registers, not for {name}: remove it")
    return OffsetViTEncoder(model, offset)


def find_maps(name: str, options: dict[str, Any]) -> Maps:
    """The deepest map of each stride from 4 on, as timm reports them for a model on the meta device."""
    with torch.device("meta"):
        skeleton = create_timm(name, features_only=True, **options)
    infos = {info["reduction"]: info for info in skeleton.feature_info.get_dicts() if info["reduction"] >= 4}
    return Maps(
        modules=[info["module"] for info in infos.values()],
        channels=[info["num_chs"] for info in infos.values()],
        strides=list(infos),
        chained=isinstance(skeleton, FeatureListNet | EfficientNetFeatures | MobileNetV3Features),
    )


def set_negative_slope(model: nn.Module, slope: float, name: str) -> None:
    leaky = [module for module in model.modules() if isinstance(module, nn.LeakyReLU)]
    if not leaky:
        raise UserError(f"{name} has no LeakyReLU; remove negative_slope from vision.options")
    for module in leaky:
        module.negative_slope = slope


def enable_checkpointing(model: Any, encoder: VisionEncoder, name: str) -> None:
    """Recompute blocks in the backward pass, if timm implements that inside the stages."""
    if isinstance(encoder, StagedEncoder) and not all(hasattr(stage, "grad_checkpointing") for stage in encoder.stages):
        raise UserError(f"timm's {name} has no gradient checkpointing by stage; remove it from vision.options")
    model.set_grad_checkpointing(True)


def check_size(encoder: VisionEncoder, name: str, size: Size) -> None:
    patch = encoder.strides[0]
    if size[0] % patch or size[1] % patch:
        raise UserError(
            f"size {size[0]} x {size[1]} is not a multiple of the {patch} pixel patches of {name}; change it"
        )


def build_custom(vision: VisionConfig) -> VisionEncoder:
    """A class given by its dotted name; its weight file must contain exactly its state dict."""
    encoder = import_class(vision.name)(**vision.options)
    if not isinstance(encoder, VisionEncoder):
        raise UserError(f"{vision.name} is not a VisionEncoder; derive it from riszoo.encoders.base.VisionEncoder")
    if vision.weights == "pretrained":
        raise UserError(f"{vision.name} has no pretrained weights by name; give --model.vision.weights PATH or `none`")
    if vision.weights != "none":
        path = existing(vision.weights)
        fill(encoder, read_state(path), path).check(encoder)
        encoder.weight_file = path
    return encoder


def import_class(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        near = difflib.get_close_matches(name, [*sam.SIZES, *timm.list_models()], n=1)
        hint = f"did you mean {near[0]}?" if near else "`timm.list_models()` lists the names"
        raise UserError(f"unknown vision encoder {name!r}; {hint}") from error
