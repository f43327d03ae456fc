"""The simulation of a fleet against what queueing theory says, and its command."""

from __future__ import annotations

import pytest
from benchmarks.fleet import POLICIES, Arrival, Fleet, Machine, bursts, cost, main, most_requests, poisson, simulate

SECOND = Machine(name="one second", floor=0, fixed=0, each=100, decode=0, price=3.6)
"""Ten steps take a second."""


def test_one_machine_waits_as_theory_says() -> None:
    """M/D/1 at half load: the mean time in the system is 1.5 times the service."""
    arrivals = list(poisson(0.5, 20_000, mix=((1.0, 10),)))
    found = simulate(Fleet(machine=SECOND), arrivals)
    assert len(found.latencies) == len(arrivals)
    assert sum(found.latencies) / len(arrivals) == pytest.approx(1.5, rel=0.05)
    assert found.busy == pytest.approx(len(arrivals))


@pytest.mark.parametrize("policy", POLICIES)
def test_everything_is_answered(policy: str) -> None:
    arrivals = list(bursts(3, 60))
    found = simulate(Fleet(machine=SECOND, count=3, policy=policy, most=4), arrivals)
    assert len(found.latencies) == len(arrivals) and min(found.latencies) >= 0.8


def test_policies_join_what_they_may() -> None:
    machine = Machine(name="joins freely", floor=100, fixed=0, each=0, decode=0)
    arrivals = [Arrival(0.0, 10), Arrival(0.05, 10), Arrival(0.05, 20)]
    ends = {policy: simulate(Fleet(machine=machine, policy=policy), arrivals).ends for policy in POLICIES}
    assert ends["alone"] == pytest.approx([1, 2, 4])
    assert ends["batches"] == pytest.approx([1, 2, 4])
    assert ends["shared"] == pytest.approx([1, 1.1, 2.1])
    together = [Arrival(0.0, 10), Arrival(0.05, 10), Arrival(0.06, 10)]
    assert simulate(Fleet(machine=machine, policy="batches"), together).ends == pytest.approx([1, 2, 2])


def test_a_line_grows_beyond_what_is_possible() -> None:
    found = simulate(Fleet(machine=SECOND), list(poisson(1.5, 2000, mix=((1.0, 10),))))
    assert found.growth(2000) == pytest.approx(0.5, abs=0.15)


def test_load_within_a_bound_and_its_cost() -> None:
    fleet = Fleet(machine=SECOND, count=4)
    rate = most_requests(fleet, 6.0, 100)
    assert 0.5 < rate < 2.2
    assert cost(fleet, 4.0) == pytest.approx(1.0)  # four machines, 3.6 an hour each, 14,400 pictures


def test_the_command_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "5", "--count", "1"]) == 0
    assert capsys.readouterr().out.count("shared") == 3
