"""`make soak` runs every campaign that there is."""

from pathlib import Path

from tools.soak import simulations

SUPPORT = Path(__file__).resolve().parents[1] / "support"


def test_soak_runs_every_campaign_with_new_seeds() -> None:
    campaigns = {f"tests.support.{path.stem}" for path in SUPPORT.glob("*_campaign.py")}
    run = {line[1]: line[2:] for line in simulations(17)}
    assert campaigns
    assert campaigns <= set(run)
    assert all(run[one][:2] == ["--first", "17"] for one in campaigns)
