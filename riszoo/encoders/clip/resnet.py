"""CLIP's ResNets in sizes that timm does not name."""

from __future__ import annotations

from typing import Any

from riszoo.errors import UserError


def in_timm_form(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a timm model, with `layers` and `width` of a CLIP ResNet expressed as timm describes its blocks.

    layers  blocks of each of the four stages
    width   channels after the stem; stages have 4, 8, 16 and 32 times as many
    """
    if not (name.startswith("resnet") and "_clip" in name) or not options.keys() & {"layers", "width"}:
        return options
    from timm.models.byobnet import ByoBlockCfg

    rest = {key: value for key, value in options.items() if key not in ("layers", "width")}
    layers, width = options.get("layers", [3, 4, 6, 3]), options.get("width", 64)
    if not isinstance(layers, list) or len(layers) != 4 or not isinstance(width, int) or width < 2 or width % 2:
        raise UserError(f"{name} takes layers, four numbers, and width, an even number; change vision.options")
    blocks = tuple(
        ByoBlockCfg(type="bottle", d=depth, c=width * 4 * 2**stage, s=2 if stage else 1, br=0.25)
        for stage, depth in enumerate(layers)
    )
    return {**rest, "blocks": blocks, "stem_chs": (width // 2, width // 2, width)}
