"""Protocols: what each published evaluator does between a model's logits and its numbers, as plain values.

Only a protocol resizes and thresholds. `docs/protocols.md` names the code that each one mirrors and what is
approximated.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from riszoo.data.ground_truth import GroundTruth
from riszoo.errors import UserError

Kernel = Literal["nearest", "bilinear", "bicubic"]
Border = Literal["edge", "image", "zero"]


@dataclass(frozen=True)
class Resampling:
    """One resize of a map.

    align_corners   the centres of the outermost cells of both grids coincide, instead of their outer edges
    border          the values beyond: the last cell of the grid, the last cell of the image's box (the map is
                    cropped first), or zeros
    """

    kernel: Kernel = "bilinear"
    align_corners: bool = False
    border: Border = "edge"


_UNION, _BILINEAR = GroundTruth(), Resampling()


@dataclass(frozen=True)
class Protocol:
    """From logits to numbers.

    ground_truth     how the ground truth is drawn; its frame is where prediction and ground truth are compared
    score            what is resized: the mask logit or its sigmoid
    to_frame         a first resize to the network's frame, if the mirrored code makes one
    resampling       the resize to the frame of comparison
    threshold        a score above it is foreground; also a score equal to it if `inclusive`
    threshold_at     the `end`, or already the network's `frame`: then any value above 0 after the last resize is
                     foreground
    iou              IoU of a pair from its intersection I and union U; `empty_iou` replaces it if U = 0
    tie              how a pair's IoU is compared with t in Pr@t; `> float32` compares with t as a 32-bit number
    precision        the t of Pr@t, in percent
    sentences        the sentences in oIoU, mIoU and Pr: `all`, or the `targeted` ones
    no_target        whose rules give gIoU, cIoU, N-acc and T-acc (Ref-ZOM: acc)
    punish_rejected  in oIoU, mIoU and Pr, a target that is predicted as no-target has I = 0
    min_mask_pixels  a model without a no-target head predicts no target with a mask of fewer pixels
    box_tie          how the IoU of the boxes around both masks is compared with 0.5; `>= float32`: I/(U+1e-6), in 32
                     bit
    report_ie        report IE: the share of sentences where exactly one of mask and box is right at 0.5
    pooled_as        the name under which the sentences of all splits of a run are also taken together
    band             width of the boundary band as a share of the image's diagonal; 0: not measured
    subsets          numbers for each sentence type (the first tag), or for every tag
    """

    name: str
    mirrors: str
    ground_truth: GroundTruth = _UNION
    score: Literal["logit", "probability"] = "logit"
    to_frame: Resampling | None = None
    resampling: Resampling = _BILINEAR
    threshold: float = 0.0
    inclusive: bool = False
    threshold_at: Literal["frame", "end"] = "end"
    iou: Literal["I/U", "I/(U+1e-6)", "I/(U+1e-5)", "(I+1e-10)/(U+1e-10)"] = "I/U"
    empty_iou: Literal["0", "1", "nan"] = "0"
    tie: Literal[">=", ">", "> float32"] = ">="
    precision: tuple[int, ...] = (50, 60, 70, 80, 90)
    sentences: Literal["all", "targeted"] = "all"
    no_target: Literal["none", "rela", "gsva", "lisa", "refzom"] = "none"
    punish_rejected: bool = False
    min_mask_pixels: int = 1
    box_tie: Literal[">=", ">", ">= float32"] = ">="
    report_ie: bool = False
    pooled_as: str | None = None
    band: float = 0.0
    subsets: Literal["type", "tags"] = "type"

    def definition(self) -> dict[str, Any]:
        """Everything that fixes the numbers, as plain values for `metrics.json`."""
        eval_size = "original" if self.ground_truth.frame is None else "x".join(map(str, self.ground_truth.frame))
        return {**asdict(self), "eval_size": eval_size, "ground_truth_variant": self.ground_truth.key}

    def precision_name(self, percent: int) -> str:
        return f"Pr@{percent / 100:g}"


def _table(*protocols: Protocol) -> dict[str, Protocol]:
    return {protocol.name: protocol for protocol in protocols}


_ONCE = GroundTruth(overlap="once")
_ONCE_480 = GroundTruth(overlap="once", frame=(480, 480))
_CORNERS = Resampling("bicubic", align_corners=True)
_CROPPED = Resampling(border="image")
_TO_95 = (50, 55, 60, 65, 70, 75, 80, 85, 90, 95)

_ORIGINAL = Protocol(
    name="original",
    mirrors="the zoo's default",
    sentences="targeted",
    no_target="rela",
    band=0.02,
)
_LAVT = Protocol(name="lavt480", mirrors="LAVT, CrossVLT", ground_truth=_ONCE_480)
_CRIS = Protocol(
    name="cris035",
    mirrors="CRIS, ETRIS",
    score="probability",
    to_frame=_CORNERS,
    resampling=Resampling("bicubic", border="zero"),
    threshold=0.35,
    iou="I/(U+1e-6)",
    tie="> float32",
)
_MCN = Protocol(
    name="mcn",
    mirrors="MCN",
    score="probability",
    to_frame=_BILINEAR,
    resampling=_CROPPED,
    threshold=0.35,
    iou="(I+1e-10)/(U+1e-10)",
    empty_iou="1",
    tie=">",
    precision=_TO_95,
    box_tie=">",
    report_ie=True,
)
_RELA = Protocol(
    name="rela",
    mirrors="ReLA on gRefCOCO",
    ground_truth=GroundTruth(engine="scaled", frame=(480, 480)),
    precision=(70, 80, 90),
    sentences="targeted",
    no_target="rela",
    punish_rejected=True,
    pooled_as="full",
)
_LISA = Protocol(
    name="lisa",
    mirrors="LISA",
    ground_truth=_ONCE,
    to_frame=_BILINEAR,
    resampling=_CROPPED,
    iou="I/(U+1e-5)",
    empty_iou="1",
    no_target="lisa",
)

PROTOCOLS = _table(
    _ORIGINAL,
    _LAVT,
    replace(_LAVT, name="refzom", mirrors="DMMI on Ref-ZOM", sentences="targeted", no_target="refzom"),
    replace(
        _LAVT,
        name="polyformer",
        mirrors="PolyFormer",
        ground_truth=replace(_ONCE_480, frame=(512, 512)),
        box_tie=">= float32",
    ),
    replace(_LAVT, name="maskris", mirrors="MaskRIS with --eval_ori_size", ground_truth=_ONCE, empty_iou="nan"),
    replace(_LAVT, name="mmdet", mirrors="mmdetection's RefSegMetric", ground_truth=_UNION),
    _CRIS,
    replace(
        _CRIS,
        name="cgformer",
        mirrors="CGFormer, test",
        ground_truth=_ONCE,
        to_frame=None,
        resampling=_CORNERS,
        threshold=0.5,
    ),
    _MCN,
    replace(_MCN, name="vlt", mirrors="VLT", report_ie=False),
    replace(
        _MCN,
        name="simrec",
        mirrors="SimREC",
        score="logit",
        to_frame=Resampling(align_corners=True),
        threshold=math.log(0.35 / 0.65),  # its network enlarges the logit; a sigmoid above 0.35 is foreground
        threshold_at="frame",
    ),
    Protocol(
        name="rmi",
        mirrors="text_objseg, RMI, CMPC",
        to_frame=_BILINEAR,
        threshold=1e-9,
        inclusive=True,
        threshold_at="frame",
    ),
    _RELA,
    replace(_RELA, name="rela50", mirrors="ReLA, where fewer than 50 pixels count as empty", min_mask_pixels=50),
    Protocol(
        name="gsva",
        mirrors="GSVA on gRefCOCO",
        to_frame=_BILINEAR,
        resampling=_CROPPED,
        inclusive=True,
        precision=(70, 80, 90),
        sentences="targeted",
        no_target="gsva",
    ),
    _LISA,
    replace(_LISA, name="evfsam", mirrors="EVF-SAM", iou="I/U"),
    Protocol(
        name="phrasecut",
        mirrors="the PhraseCut evaluator",
        ground_truth=GroundTruth(engine="pillow"),
        tie=">",
        box_tie=">",
        subsets="tags",
    ),
)


def get_protocols(names: str | Sequence[str], published: str | None = None) -> tuple[Protocol, ...]:
    """Protocols by name, each once; `published` stands for the protocol of the recipe's paper."""
    words = names.split(",") if isinstance(names, str) else list(names)
    resolved = [_resolve(word.strip(), published) for word in words if word.strip()]
    if not resolved:
        raise UserError(f"no protocol given; choose from {', '.join(PROTOCOLS)}")
    return tuple(dict.fromkeys(resolved))


def _resolve(word: str, published: str | None) -> Protocol:
    if word == "published":
        if published is None:
            raise UserError("the recipe has no published protocol: give the name of a protocol instead of 'published'")
        word = published
    if word not in PROTOCOLS:
        near = difflib.get_close_matches(word, PROTOCOLS, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(PROTOCOLS)}"
        raise UserError(f"unknown protocol '{word}': {hint}")
    return PROTOCOLS[word]
