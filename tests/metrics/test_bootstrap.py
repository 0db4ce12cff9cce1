"""Confidence intervals over images."""

from __future__ import annotations

import numpy as np
import pytest

from riszoo.metrics.bootstrap import FIXED, ratio_interval, sign_flip_p_value, sum_by_image


def test_an_interval_keeps_an_images_sentences_together():
    """Sixteen equal sentences about each of 20 images say no more than one each."""
    rng = np.random.default_rng(0)
    value = rng.integers(0, FIXED, 20)
    one = ratio_interval(value, np.full(20, FIXED), np.arange(20))
    many = ratio_interval(np.repeat(value, 16), np.full(320, FIXED), np.repeat(np.arange(20), 16))
    assert many == one
    apart = ratio_interval(np.repeat(value, 16), np.full(320, FIXED), np.arange(320))
    assert apart[1] - apart[0] < 0.4 * (one[1] - one[0])


def test_sentences_of_an_image_are_added_up():
    sums = sum_by_image(np.array([[1, 10], [2, 20], [4, 40]]), np.array([1, 0, 1]))
    assert sums.tolist() == [[2, 20], [5, 50]]


def test_an_interval_is_as_wide_as_the_normal_approximation():
    values = np.random.default_rng(1).uniform(size=400)
    low, high = ratio_interval(np.rint(values * FIXED).astype(np.int64), np.full(400, FIXED), np.arange(400))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_p_values_of_noise_and_of_a_constant_gain():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=200) * 1000
    images = np.arange(200) // 4
    assert sign_flip_p_value(noise.astype(np.int64), images) > 0.05
    assert sign_flip_p_value((noise + 800).astype(np.int64), images) < 0.01
    assert sign_flip_p_value(np.zeros(200, np.int64), images) == 1
