"""What is said of the L1 penalty's curve."""

from __future__ import annotations

from typing import Any

from searchae.compare.penalty_curve import CurvePoint, PenaltyCurve

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
    assert "Hoyer 0.400 against 0.250" in text


def test_a_shown_effect_is_said_with_its_interval() -> None:
    text = said(point(1e-3, 0.8), point(1e-2, 0.1))
    assert "penalty: 0.001: +0.80 dB (0.30 to 1.30)." in text
    assert "0.01: +0.10" not in text


def test_opposite_effects_are_said_even_where_their_mean_shows_nothing() -> None:
    text = said(point(1e-3, 0.0, by_base_db=(0.9, -0.9), is_opposite=True))
    assert "0.001: +0.00 dB (-0.50 to 0.50), from -0.90 in tanh adam to +0.90 in relu adam" in text
