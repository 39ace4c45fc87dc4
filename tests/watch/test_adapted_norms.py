"""The lengths of the parts of adapted matrices equal those of the matrices themselves, in float64."""

from __future__ import annotations

import pytest
import torch

from etude.model.adapter import LoRA
from etude.model.build import build_model
from etude.watch.low_rank import adapted_norms, factor_names, product_of
from networks import make_config


@pytest.mark.parametrize("kind", ["llama-grouped-tied", "gpt2"])
def test_the_norms_are_those_of_the_products(kind: str) -> None:
    base = make_config(kind)
    config = base.replace(
        adapter=LoRA(2, 6.0, ("c_attn", "c_proj") if kind == "gpt2" else ("q_proj", "down_proj"))
    )
    generator = torch.Generator().manual_seed(3)
    before = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in build_model(config, seed=1).state_dict().items()
    }
    after = {
        name: value + 1e-3 * torch.randn(value.shape, generator=generator) for name, value in before.items()
    }
    rows = adapted_norms(config, before, after, before)
    assert [row["name"] for row in rows] == list(factor_names(config))
    for row in rows:
        old, new = (
            3.0 * side[row["up_name"]].double() @ side[row["down_name"]].double() for side in (before, after)
        )
        assert row["product_norm"] == pytest.approx(float(old.norm()), rel=1e-9)
        assert row["moved"] == pytest.approx(float((new - old).norm()), rel=1e-6)
        assert row["share"] == pytest.approx(
            float(old.norm() / before[row["name"]].double().norm()), rel=1e-6
        )
        assert row["shape"] == list(old.shape)
        product = product_of(config, row["name"], before)
        assert product is not None
        torch.testing.assert_close(product.double(), old, rtol=1e-4, atol=1e-5)
    assert product_of(config, "model.embed_tokens.weight", before) is None
    assert adapted_norms(base, before, after, before) == []
