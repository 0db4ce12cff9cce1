"""The verbs of the command line. A verb's module is imported only when that verb runs."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any, NamedTuple

from riszoo import __version__
from riszoo.cli.startup import fast_imports
from riszoo.errors import LONGEST_NAME, UserError, find_user_error, without_controls


class Verb(NamedTuple):
    module: str
    summary: str
    example: str


LIGHTNING = "riszoo.training.lightning_cli"
"""The module whose verbs are LightningCLI's subcommands."""

NO_HOME = "Could not determine home directory."
"""What Path.expanduser says of ~nobody/folder."""
LONGEST = 390
"""Characters of an error's sentence, at most."""

VERBS = {
    "fit": Verb(LIGHTNING, "train a model", "riszoo fit --model lts"),
    "validate": Verb(LIGHTNING, "measure on val", "riszoo validate --model lts"),
    "test": Verb(LIGHTNING, "measure on all splits", "riszoo test --model lts --protocol original,published"),
    "predict": Verb(LIGHTNING, "write masks", "riszoo predict --model lts --split val"),
    "segment": Verb("riszoo.cli.inference.segment", "segment your own images", "riszoo segment --model lts --example"),
    "demo": Verb("riszoo.cli.inference.demo", "a page to try models on", "riszoo demo --model vipa"),
    "export": Verb("riszoo.cli.inference.export", "graphs for ONNX Runtime", "riszoo export --model lts --out DIR"),
    "list": Verb("riszoo.cli.listing", "models, data sets, protocols", "riszoo list"),
    "info": Verb("riszoo.cli.info", "size and cost of a model", "riszoo info lts --scale paper"),
    "convert": Verb(
        "riszoo.cli.weights.convert", "a checkpoint as plain weights", "riszoo convert FILE --out NAME.safetensors"
    ),
    "hub": Verb("riszoo.cli.weights.hub", "share models on the Hub", "riszoo hub pull hf://user/repository"),
    "data": Verb("riszoo.cli.data", "show, check, prepare data", "riszoo data show scenes"),
    "compare": Verb("riszoo.cli.results.compare", "compare two test runs", "riszoo compare RUN_A RUN_B"),
    "score": Verb("riszoo.cli.score", "masks of other code", "riszoo score FOLDER --data refcoco --split testA"),
    "bench": Verb("riszoo.cli.bench", "train and test every recipe", "riszoo bench --dry-run"),
    "tables": Verb("riszoo.cli.results.tables", "redraw the result tables", "riszoo tables --check"),
    "leaderboard": Verb("riszoo.cli.results.leaderboard", "all results as an HTML page", "riszoo leaderboard"),
    "report": Verb("riszoo.cli.results.report", "test runs as an HTML page", "riszoo report RUN..."),
    "speed": Verb("riszoo.cli.speed", "speed of a model here", "riszoo speed lts"),
    "doctor": Verb("riszoo.cli.help.doctor", "check the installation", "riszoo doctor"),
    "init-model": Verb("riszoo.cli.help.new_model", "files of a new model", "riszoo init-model NAME"),
    "completion": Verb("riszoo.cli.help.completion", "completion for your shell", "riszoo completion bash"),
}

HELP = """riszoo {version}: a zoo of referring image segmentation models, with one training and one evaluation

usage: riszoo VERB [options]

{verbs}

Options of a run (fit, validate, test, predict):
  --model NAME       a recipe (riszoo list) or your own class, my.module.Class
  --data NAME        a data set recipe; default: scenes, which is generated and needs no download
  --scale NAME       section of the recipe: tiny, paper, ...; default: tiny on scenes, paper on real data
  --ckpt_path FILE   a checkpoint; default: the best of the newest run, then the weights that riszoo ships (`shipped`);
                     `fit --ckpt_path last` resumes the newest run
  --init FILE        `fit` starts from the weights of a checkpoint: fine-tuning on other data
  --split A,B        splits; fit, validate: one      --control none,shuffled,blank,constant,exchanged
  --protocol A,B     evaluation protocols            --logger csv,wandb,tensorboard  loggers, besides CSV
  --budget N         sentences that `fit` trains on, instead of the recipe's length
  --compile          compile the repeated blocks of the model, for long trainings on a GPU
  --config FILE      any LightningCLI configuration; it may contain `model: lts`
  --print_config     print the whole configuration
  --model.optim.lr, --data.batch_size, --trainer.devices 2, ...: any option of the configuration, by its name
  riszoo VERB --help describes a verb; riszoo fit --model lts --help lists the model's options with their values
"""


def help_text() -> str:
    verbs = "\n".join(f"  {name:<12}{verb.summary:<30}{verb.example}" for name, verb in VERBS.items())
    return HELP.format(version=__version__, verbs=verbs)


def dispatch(argv: list[str]) -> int:
    """Run one verb and return its exit code; raises UserError."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0
    if argv[0] in ("--version", "-V"):
        print(f"riszoo {__version__}")
        return 0
    name, options = argv[0], argv[1:]
    if name not in VERBS:
        from riszoo.errors import unknown_name

        raise unknown_name("verb", name, VERBS)
    module = VERBS[name].module
    if module != LIGHTNING:
        return int(load_module(module).main(options))
    if "--help" in options or "-h" in options:
        from riszoo.cli.help.runs import print_help

        print_help(name, VERBS[name].summary, options)
        return 0
    from riszoo.cli.request import Request

    request = Request.read(name, options)  # reports wrong names before anything heavy is imported
    return int(load_module(module).main(request))


def load_module(name: str) -> Any:
    """The module of a verb, imported."""
    with fast_imports():
        return importlib.import_module(name)


def sentence(error: UserError) -> str:
    """The error in one line, cut where an untrusted name or file makes it longer than `LONGEST`."""
    text = without_controls(" ".join(str(error).split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def main(argv: list[str] | None = None) -> int:
    """The console script: exit code 0 for success, 2 for a user error, which is printed as one sentence."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a sign that the terminal lacks becomes '?'
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("riszoo: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        user_error = find_user_error(error)
        if user_error is None and str(error) == NO_HOME:
            user_error = UserError("a path begins with ~ and the name of nobody on this machine: correct it")
        if user_error is None and isinstance(error, OSError) and error.strerror:
            where = f"{str(error.filename)[:LONGEST_NAME]}: " if error.filename else ""
            user_error = UserError(f"{where}{error.strerror}")
        if user_error is None:
            raise
        print(f"riszoo: {sentence(user_error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
