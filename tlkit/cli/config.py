"""tlkit config: the resolved config, and where each value came from."""

from __future__ import annotations

from typing import Any

import click

from tlkit.cli.options import chosen_options, config_options, json_option, split_arguments


@click.command(short_help="Show the resolved config and where each value came from.")
@click.argument("arguments", nargs=-1, metavar="[CONFIG.yaml] [key.path=value]...")
@config_options()
@click.option("--yaml", "as_yaml", is_flag=True, help="Print a config file that says the same.")
@json_option
def config(arguments: tuple[str, ...], as_yaml: bool, as_json: bool, **parameters: Any) -> None:
    """Show the resolved config, and where each value came from: default, file, option or override."""
    from tlkit.cli.output import print_json, print_table
    from tlkit.config import dump, flatten, load_config, to_yaml

    path, overrides = split_arguments(arguments)
    loaded = load_config(path, overrides, chosen_options(parameters))
    tree = dump(loaded.config)
    if as_json:
        print_json({"config": tree, "origins": loaded.origins})
    elif as_yaml:
        click.echo(to_yaml(tree), nl=False)
    else:
        rows = [[key, _shown(value), loaded.origins[key]] for key, value in flatten(tree).items()]
        print_table(["key", "value", "from"], rows)


def _shown(value: Any) -> str:
    """A value as one would type it."""
    import yaml

    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
