"""`riszoo completion SHELL`: a script that completes verbs, options and names in bash, zsh or fish.

bash: source <(riszoo completion bash)      in ~/.bashrc
zsh:  source <(riszoo completion zsh)       in ~/.zshrc
fish: riszoo completion fish > ~/.config/fish/completions/riszoo.fish
"""

from __future__ import annotations

import argparse
import importlib

from riszoo import recipes
from riszoo.cli.help.runs import common_options
from riszoo.cli.parser import CommandParser

SHELLS = ("bash", "zsh", "fish")

BASH = """\
_riszoo() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{verbs}"
    else
        case "$previous" in
{values}
        *)
            case "${{COMP_WORDS[1]}}" in
{options}
            esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _riszoo riszoo
"""
ZSH = "autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit\n"


def parser() -> CommandParser:
    parser = CommandParser(
        prog="riszoo completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser


def main(argv: list[str]) -> int:
    shell = parser().parse_args(argv).shell
    print(fish() if shell == "fish" else ZSH * (shell == "zsh") + bash(), end="")
    return 0


def words_of_verbs() -> dict[str, list[str]]:
    """The options of each verb, and the names that it takes as arguments."""
    from riszoo.cli import data
    from riszoo.cli.main import LIGHTNING, VERBS

    found: dict[str, list[str]] = {}
    for name, verb in VERBS.items():
        if verb.module == LIGHTNING:
            found[name] = common_options(name)
        elif name != "data":
            found[name] = importlib.import_module(verb.module).parser().options()
    parsers = [make().options() for make in data.PARSERS.values()]
    found |= {"data": [*data.VERBS, *recipes.names("data"), *dict.fromkeys(word for each in parsers for word in each)]}
    for name in ("info", "speed"):
        found[name] = [*recipes.names("models"), *found[name]]
    found["completion"] = [*SHELLS]
    return found


def values() -> dict[str, list[str]]:
    """The values of options that take a name."""
    from riszoo.metrics.protocols import PROTOCOLS

    scales = {scale for name in recipes.names("models") for scale in recipes.scales(name, "scenes")}
    return {
        "--model": recipes.names("models"),
        "--data": recipes.names("data"),
        "--scale": sorted(scales),
        "--protocol": [*PROTOCOLS, "published"],
        "--control": ["none", "shuffled", "blank", "constant", "exchanged"],
        "--logger": ["csv", "wandb", "tensorboard"],
        "--ckpt_path": ["best", "last", "shipped"],
        "--init": ["shipped"],
    }


def bash() -> str:
    verbs = words_of_verbs()
    return BASH.format(
        verbs=" ".join(verbs),
        values="\n".join(f'        {option}) words="{" ".join(names)}" ;;' for option, names in values().items()),
        options="\n".join(f'            {verb}) words="{" ".join(words)}" ;;' for verb, words in verbs.items()),
    )


def fish() -> str:
    from riszoo.cli.main import VERBS

    lines = [
        f'complete -c riszoo -n __fish_use_subcommand -f -a {name} -d "{verb.summary}"' for name, verb in VERBS.items()
    ]
    known = values()
    for verb, words in words_of_verbs().items():
        condition = f'complete -c riszoo -n "__fish_seen_subcommand_from {verb}"'
        names = [word for word in words if not word.startswith("--")]
        lines += [f'{condition} -a "{" ".join(names)}"'] if names else []
        for option in (word for word in words if word.startswith("--")):
            taken = f' -x -a "{" ".join(known[option])}"' if option in known else ""
            lines.append(f"{condition} -l {option.removeprefix('--')}{taken}")
    return "\n".join(lines) + "\n"
