"""`hactl completion`: what a shell needs to complete words. The words themselves come from the commands (and the modules from hactld)."""

from __future__ import annotations

import click

from orchestrator.hactl.output import say
from orchestrator.hactl.session import Session, session_options

INTO = {
    "bash": "hactl completion bash > /etc/bash_completion.d/hactl",
    "zsh": 'hactl completion zsh > "${fpath[1]}/_hactl"',
    "fish": "hactl completion fish > ~/.config/fish/completions/hactl.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(INTO)))
@session_options
def completion(session: Session, shell: str) -> None:
    """Print what makes SHELL complete hactl's words.

    \b
    hactl completion bash > /etc/bash_completion.d/hactl
    source <(hactl completion bash)          for this shell only
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    assert found is not None, "click knows these three"
    say(f"# Put it where your shell looks:  {INTO[shell]}")
    say(found(root, {}, "hactl", "_HACTL_COMPLETE").source())
