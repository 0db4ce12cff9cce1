"""Protocols by name, and their definitions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from riszoo.errors import UserError
from riszoo.metrics.protocols import PROTOCOLS, get_protocols


def test_names_resolve_and_the_nearest_name_is_suggested():
    assert [p.name for p in get_protocols("original, published", published="mcn")] == ["original", "mcn"]
    assert [p.name for p in get_protocols(["published", "original"], published="original")] == ["original"]
    with pytest.raises(UserError, match="did you mean 'lavt480'"):
        get_protocols("lavt840")
    with pytest.raises(UserError, match="has no published protocol"):
        get_protocols("published")
    with pytest.raises(UserError, match="no protocol given"):
        get_protocols(" ,")


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_definition_is_plain_json_with_all_that_fixes_the_numbers(name):
    definition = json.loads(json.dumps(PROTOCOLS[name].definition()))
    assert definition["name"] == name
    expected = {
        "eval_size",
        "ground_truth_variant",
        "threshold",
        "threshold_at",
        "resampling",
        "empty_iou",
        "tie",
        "no_target",
        "sentences",
    }
    assert expected <= set(definition)
    assert definition["ground_truth"]["overlap"] in ("any", "once")


def test_vlt_is_mcn_without_ie():
    assert replace(PROTOCOLS["rela"], name="rela50", mirrors="ReLA", min_mask_pixels=50) != PROTOCOLS["rela50"]
    assert replace(PROTOCOLS["mcn"], name="vlt", mirrors="VLT", report_ie=False) == PROTOCOLS["vlt"]
