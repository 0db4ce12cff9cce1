"""The command line: verbs, help, and every answer that needs no model. Heavy imports wait until a run needs them."""

from __future__ import annotations

import importlib
import sys

from riszoo import __version__
from riszoo.errors import UserError

VERBS: dict[str, tuple[str, str]] = {
    "fit": ("riszoo.training.lightning_cli", "train a model:          riszoo fit --model lts"),
    "validate": ("riszoo.training.lightning_cli", "measure on val:         riszoo validate --model lts"),
    "test": (
        "riszoo.training.lightning_cli",
        "measure on all splits:  riszoo test --model lts --protocol original,published",
    ),
    "predict": ("riszoo.training.lightning_cli", "write masks:            riszoo predict --model lts --split val"),
    "segment": (
        "riszoo.cli.segment",
        "your own image:       riszoo segment --model lts --image a.png --text 'the star'",
    ),
    "list": ("riszoo.cli.listing", "models, data sets, protocols"),
    "info": ("riszoo.cli.info", "a model's size and cost: riszoo info lts --scale paper"),
    "data": ("riszoo.cli.data", "show, check, prepare:   riszoo data show scenes"),
    "compare": ("riszoo.cli.compare", "two test runs, paired:  riszoo compare RUN_A RUN_B"),
    "score": (
        "riszoo.cli.score",
        "masks, boxes of other code: riszoo score FOLDER --data refcoco --split testA",
    ),
    "bench": ("riszoo.cli.bench", "train and test every recipe, keep the tables: riszoo bench --dry-run"),
    "tables": ("riszoo.cli.tables", "draw the tables of benchmarks/ again: riszoo tables --check"),
    "report": ("riszoo.cli.report", "one HTML page to look at: riszoo report RUN..."),
    "speed": ("riszoo.cli.speed", "how fast a recipe is here: riszoo speed lts"),
}

HELP = """riszoo {version}: referring image segmentation models, trained and measured alike

usage: riszoo VERB [options]

{verbs}

What a run takes (fit, validate, test, predict):
  --model NAME       a recipe (riszoo list) or a class of your own, my.module.Class
  --data NAME        a data set recipe; scenes, embedded and without any download, when left out
  --scale NAME       tiny | paper | ...: which section of the recipe; tiny on scenes, paper on real data
  --ckpt_path FILE   a checkpoint; left out, the newest run's best one; `last` with fit continues the newest run
  --split A,B        the splits to measure           --control none,shuffled,blank   change the sentences
  --protocol A,B     how masks are compared          --logger csv,wandb,tensorboard  where curves go, besides CSV
  --config FILE      any LightningCLI configuration; `model: lts` works inside it too
  --print_config     the whole configuration, every option with its value
  --model.lr, --data.batch_size, --trainer.devices 2, ...: any option of the configuration, by its name
  riszoo fit --model lts --help-all lists every option with its meaning
"""


def help_text() -> str:
    verbs = "\n".join(f"  {verb:<10}{text}" for verb, (_, text) in VERBS.items())
    return HELP.format(version=__version__, verbs=verbs)


def dispatch(argv: list[str]) -> int:
    """Run one verb; a UserError is left to the caller."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0
    if argv[0] in ("--version", "-V"):
        print(f"riszoo {__version__}")
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        from riszoo.recipes import unknown

        raise UserError(unknown("verb", verb, VERBS))
    module = VERBS[verb][0]
    if module == "riszoo.training.lightning_cli":
        from riszoo.cli.request import Request

        if "--help" in rest or "-h" in rest:
            print(help_text(), end="")
            return 0
        request = Request.read(verb, rest)  # wrong names are told here, before anything heavy is imported
        return int(importlib.import_module(module).main(request))
    return int(importlib.import_module(module).main(rest))


def main(argv: list[str] | None = None) -> int:
    """The console script: 0 for success, 2 for a mistake a user can mend, told in one sentence."""
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("riszoo: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        mistake = user_error(error)
        if mistake is None:
            raise
        print(f"riszoo: {mistake}", file=sys.stderr)
        return 2


def user_error(error: BaseException | None) -> UserError | None:
    """The mistake at the root of an error; libraries between us and the user wrap it in their own."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    sys.exit(main())
