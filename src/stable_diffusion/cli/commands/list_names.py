"""`stable-diffusion list`: the samplers and noise schedules that can be named."""

from __future__ import annotations

import click

from ..command import Command
from ..format import echo_json, echo_table

EXAMPLES = """
stable-diffusion list
stable-diffusion list samplers --json
"""


@click.command("list", cls=Command, examples=EXAMPLES)
@click.argument("what", type=click.Choice(["samplers", "schedules", "all"]), default="all")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def command(what: str, as_json: bool) -> None:
    """List the samplers and noise schedules.

    Display names of other programs ("DPM++ 2M Karras", "k_euler_a") are accepted wherever a name is asked for.
    """
    from ...diffusion.samplers import solver
    from ...request.names import SAMPLERS, SCHEDULES

    solvers = [(info, solver(info.id)) for info in SAMPLERS.values()]
    samplers = [
        {"name": info.id, "label": info.label, "stochastic": found.stochastic, "order": found.order}
        for info, found in solvers
    ]
    schedules = [{"name": name} for name in SCHEDULES]
    if as_json:
        listing = {"samplers": samplers, "schedules": schedules}
        echo_json(listing if what == "all" else listing[what])
        return
    if what != "schedules":
        rows = [(i.id, i.label, str(found.order), "yes" if found.stochastic else "no") for i, found in solvers]
        echo_table(rows, ("sampler", "also called", "order", "stochastic"))
    if what == "all":
        click.echo()
    if what != "samplers":
        click.echo("schedule")
        for entry in schedules:
            click.echo(entry["name"])
