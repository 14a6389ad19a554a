"""Command ``release``: continues a run whose barrier is gone."""

from __future__ import annotations

import click


@click.command(short_help="Continue a run whose barrier is gone.")
@click.argument("broker", metavar="app:broker")
@click.argument("jid", metavar="JID")
@click.option(
    "--members",
    type=int,
    default=1,
    metavar="N",
    show_default=True,
    help="If the job is a member of a group: how many members, with this one, are still to be done or released.",
)
def release(broker: str, jid: str, members: int) -> None:
    """Continue a run whose step is done, but died because a barrier was gone (BarrierExpired).

    JID is the id of the job in dead or retry; it counts as done.
    """
    from ..workflow.resume import restart_remaining
    from .app_lookup import find_broker

    run_id = restart_remaining(find_broker(broker), jid, members=members)
    click.echo(f"Job {jid} counts as done; run {run_id} continues.")
