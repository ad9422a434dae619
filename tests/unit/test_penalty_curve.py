"""What is said of the L1 penalty's curve."""

from __future__ import annotations

from typing import Any

import pytest

from searchae.compare.penalty_curve import CurvePoint, PenaltyCurve, _weights
from searchae.config.parameters import Parameter

BASES = ("relu adam", "tanh adam")


def point(weight: float, gain_db: float = 0.0, half_db: float = 0.5, **more: Any) -> CurvePoint:
    found: dict[str, Any] = {
        "weight": weight,
        "gain_db": gain_db,
        "low_db": gain_db - half_db,
        "high_db": gain_db + half_db,
        "psnr_db": 27.0 + gain_db,
        "near_zero": 0.002,
        "hoyer": 0.25,
        "hoyer_low": 0.2,
        "hoyer_high": 0.3,
        "is_dominated": False,
        "by_base_db": (gain_db, gain_db),
        "is_opposite": False,
    }
    return CurvePoint(**(found | more))


def said(*points: CurvePoint) -> str:
    return PenaltyCurve(BASES, 3, (point(0.0), *points)).sentence


def test_weights_that_show_nothing_are_not_listed() -> None:
    text = said(point(1e-3, 0.1), point(1e-2, -0.3, near_zero=0.05, hoyer=0.4))
    assert "no difference in PSNR shown (the largest, 0.01: -0.30 dB (-0.80 to 0.20))" in text
    assert "0.001" not in text
    assert "with 0.01: 5.0% of them near zero against 0.2% without" in text
    assert "Hoyer 0.400 (0.200 to 0.300) against 0.250" in text
    assert "No weight made the latents sparser" in said(point(1e-3), point(1e-2, hoyer=0.2))


def test_weights_are_decades_within_the_range_or_its_ends() -> None:
    def weights(low: float, high: float) -> tuple[float, ...]:
        return _weights(Parameter("train.l1_weight", low=low, high=high, log=True))

    assert weights(1e-7, 1e-2) == pytest.approx((1e-5, 1e-4, 1e-3, 1e-2))
    assert weights(5e-4, 5e-3) == pytest.approx((1e-3,))
    assert weights(2e-4, 8e-4) == (2e-4, 8e-4)


def test_a_shown_effect_is_said_with_its_interval() -> None:
    text = said(point(1e-3, 0.8), point(1e-2, 0.1))
    assert "penalty: 0.001: +0.80 dB (0.30 to 1.30)." in text
    assert "0.01: +0.10" not in text


def test_opposite_effects_are_said_even_where_their_mean_shows_nothing() -> None:
    text = said(point(1e-3, 0.0, by_base_db=(0.9, -0.9), is_opposite=True))
    assert "0.001: +0.00 dB (-0.50 to 0.50), from -0.90 in tanh adam to +0.90 in relu adam" in text
