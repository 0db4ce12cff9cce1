"""The subsets that PhraseCut's official evaluation reports, as tags of a sentence; those by word lists are left out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from riszoo.data.readers import validation
from riszoo.errors import UserError

SMALL, LARGE, MANY = 0.02, 0.2, 5  # shares of the image, and boxes, at which a subset begins
CATEGORY_RANKS, ATTRIBUTE_RANKS = (20, 100, 500), (20, 100, 200)
STRUCTURES = {"name": "p_name", "attribute": "p_att+", "relation": "p_rel+", "verbose": "p_verbose"}
COCO_NAMES = """\
person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,
bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,
skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,
wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,
chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,
toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"""
"""COCO's 80 categories."""
COCO = frozenset(COCO_NAMES.replace("\n", "").split(","))


class Ranks(NamedTuple):
    """The rank of each category and attribute, by the counts published with the set."""

    categories: dict[str, int]
    attributes: dict[str, int]


def read_ranks(path: Path) -> Ranks | None:
    """The ranks in `name_att_rel_count.json`; None where the file is missing."""
    if not path.is_file():
        return None
    filed = validation.load_json(path)
    try:
        return Ranks(*({name: rank for rank, (name, *_) in enumerate(filed[key])} for key in ("cat", "att")))
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} has no lists 'cat' and 'att' of names and counts: get the file again, or remove it to leave out "
            "the subsets by rank"
        ) from error


def subsets(structure: dict[str, Any], boxes: int, coco: bool, share: float | None, ranks: Ranks | None) -> list[str]:
    """The tags of a phrase.

    `boxes` counts its instances, `coco` says whether COCO's training or validation set has the image, and `share` is
    the part of the image that the instances cover, where it is known.
    """
    attributes, relations = structure.get("attributes") or [], structure.get("relation_descriptions") or []
    found = {
        "c_coco": structure.get("name") in COCO,
        "i_single": boxes == 1,
        "i_multi": 1 < boxes < MANY,
        "i_many": boxes >= MANY,
        "p_att": bool(attributes),
        "p_attm": len(attributes) > 1,
        "p_rel": bool(relations),
        "p_relm": len(relations) > 1,
        "p_att_rel": bool(attributes and relations),
        "d_cocotv": coco,
        "d_notcocotv": not coco,
    }
    tags = [tag for tag, applies in found.items() if applies]
    tags += [STRUCTURES[kind] for kind in [structure.get("type")] if kind in STRUCTURES]
    if share is not None:
        tags.append("s_small" if share < SMALL else "s_large" if share > LARGE else "s_mid")
    if ranks is None:
        return tags
    category = ranks.categories.get(str(structure.get("name")))
    best = min((ranks.attributes[a] for a in map(str, attributes) if a in ranks.attributes), default=None)
    return tags + _by_rank("c", category, CATEGORY_RANKS) + _by_rank("a", best, ATTRIBUTE_RANKS)


def _by_rank(letter: str, rank: int | None, limits: Sequence[int]) -> list[str]:
    """`a20`, `a21-100` and so on: below each limit, and between two of them."""
    if rank is None or rank >= limits[-1]:
        return [f"{letter}{limits[-1]}+"]
    below = [f"{letter}{limit}" for limit in limits if rank < limit]
    return below + [f"{letter}{low + 1}-{high}" for low, high in pairwise(limits) if low <= rank < high]
