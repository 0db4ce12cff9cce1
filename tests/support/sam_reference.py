"""A small SAM encoder, segment_anything's own modules to compare with, and whole files of small SAMs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from riszoo.encoders.base import VisionConfig
from riszoo.encoders.sam import SamEncoder
from riszoo.encoders.vision import build_vision

TOY: dict[str, Any] = {"embed_dim": 64, "depth": 4, "heads": 4, "window": 14, "global_blocks": [1, 3], "stem": "patch"}


def toy(size: tuple[int, int] = (320, 320), weights: str = "none", frozen: bool = False, **options: Any) -> SamEncoder:
    torch.manual_seed(0)
    vision = VisionConfig("sam_vit_tiny", weights, frozen, options=TOY | {"peft": "full"} | options)
    encoder = build_vision(vision, size)
    assert isinstance(encoder, SamEncoder)
    return encoder


def image(size: tuple[int, int], count: int = 1) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def randomise(module: nn.Module, seed: int = 2) -> None:
    """Move every parameter from its initial value, also tables, norms and modules that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def official(size: tuple[int, int], **changes: Any) -> ImageEncoderViT:
    """segment_anything's encoder; for a rectangle its position tables are replaced, which its forward accepts."""
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
    """A scalar with another weight for each element of each map."""
    return sum((m * torch.linspace(-1, 1, m.numel(), dtype=m.dtype).view(m.shape)).sum() for m in maps)  # type: ignore


def official_decoder() -> tuple[MaskDecoder, PromptEncoder]:
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = MaskDecoder(transformer_dim=256, transformer=transformer)
    prompts = PromptEncoder(embed_dim=256, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=16)
    randomise(decoder)
    randomise(prompts)
    return decoder.eval(), prompts.eval()


def save_sam(path: Path, seed: int = 2) -> tuple[str, MaskDecoder, PromptEncoder]:
    """Save a whole SAM as the official files are, with a narrow encoder for 128 x 128 pixels."""
    encoder = official((128, 128))
    randomise(encoder, seed)
    decoder, prompts = official_decoder()
    parts = {"image_encoder": encoder, "mask_decoder": decoder, "prompt_encoder": prompts}
    torch.save({f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()},
               path)  # fmt: skip
    return str(path), decoder, prompts
