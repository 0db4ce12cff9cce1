"""The help of fit, validate, test and predict: in general, and with the options of one model on one data set."""

from __future__ import annotations

import textwrap
from typing import Any

from riszoo import recipes
from riszoo.cli.help.options import Option, options_of_class, options_of_group
from riszoo.cli.request import Given, split_aliases

WIDTH, COLUMN = 118, 34
LONGEST_VALUE = 40

NAMES = {
    "--model NAME": "a recipe (riszoo list), or your own class, my.module.Class",
    "--data NAME": "a data set's recipe; default: scenes, which is generated and needs no download",
    "--scale NAME": "section of the recipe: tiny, paper, ...; default: tiny on scenes, paper on real data",
    "--ckpt_path FILE": "a checkpoint; default: the best of the newest run, then `shipped`; `last` continues training",
    "--config FILE": "any LightningCLI configuration; it may contain `model: lts`",
    "--print_config": "print the whole configuration",
}
EVALUATION = {
    "--split A,B": "splits to evaluate; validate takes one",
    "--protocol A,B": "evaluation protocols (riszoo list); `published`: the paper's own",
    "--control A,B": "change the sentences (none, shuffled, blank) or the decoder's input (constant, exchanged)",
    "--data.test_images N": "evaluate the first N images of each split",
}
TRAINING = {
    "--init FILE": "start from a checkpoint, or from `shipped` weights, with a tenth of the recipe's learning rates",
    "--model.vision.frozen true": "do not train the image encoder; --model.text.frozen: the text encoder",
    "--budget N": "training sentences, in place of a number of steps",
    "--logger A,B": "loggers besides the CSV file: wandb, tensorboard",
    "--seed_everything N": "seed of weights, order and augmentation; default: 0",
    "--model.optim.lr X": "learning rate",
    "--data.total_batch_size N": "sentences in one step, over all devices",
    "--trainer.max_steps N": "length of the training in steps",
}
DEVICES = {
    "--trainer.accelerator NAME": "cpu, gpu, ...; default: a GPU where one is available",
    "--trainer.devices N": "devices on each machine; with --trainer.strategy ddp or fsdp2",
    "--trainer.precision NAME": "32-true, bf16-mixed, ...",
    "--compile": "compile each repeated block of the model with torch.compile",
    "--data.root FOLDER": "of the data sets on disk; default: RISZOO_DATA, then ./data",
    "--data.workers N": "loading processes for each device",
    "--run.root FOLDER": "folder of the run folders; default: runs",
}
GROUPS = {"names and files": NAMES, "evaluation": EVALUATION, "training": TRAINING, "devices and folders": DEVICES}


def common_options(verb: str) -> list[str]:
    """The options that the general help of a verb names."""
    return [line.split()[0] for group in _groups(verb).values() for line in group]


def print_help(verb: str, summary: str, argv: list[str]) -> None:
    """Print the general help, and the model's options where the command line names one."""
    given, _ = split_aliases([word for word in argv if word not in ("-h", "--help")])
    print(f"usage: riszoo {verb} --model NAME [options]\n\n{summary}")
    for title, lines in _groups(verb).items():
        print(f"\n{title}:")
        for option, text in lines.items():
            print(entry(option, text))
    if "model" in given:
        _print_model(given)
    else:
        print(f"\nThe options of a model, with their values: riszoo {verb} --model lts --help")
    print(f"Any option of LightningCLI is accepted; all of them: riszoo {verb} --model lts --help-all")


def _groups(verb: str) -> dict[str, dict[str, str]]:
    left_out = {"fit": ("evaluation",)}.get(verb, ("training",))
    return {title: lines for title, lines in GROUPS.items() if title not in left_out}


def _print_model(given: Given) -> None:
    """The options of the model, the data set and the run, with the values of their recipes."""
    name, data = given["model"][-1], given.get("data", ["scenes"])[-1]
    own = "." in name
    if not own:
        recipes.get("models", name)
    scale = given.get("scale", [recipes.default_scale(data)])[-1]
    config = recipes.resolve_data(data, scale) if own else recipes.resolve(name, data, scale)
    from riszoo.training.checkpoint_checks import import_class
    from riszoo.training.lightning_cli import RunOptions

    model = config.get("model", {"class_path": name, "init_args": {}})
    sections = {"model": model, "data": config["data"]}
    for section, part in sections.items():
        _print_options(
            f"{section}: {part['class_path']}",
            options_of_class(import_class(part["class_path"]), f"--{section}", part["init_args"]),
        )
    _print_options("run", options_of_group(RunOptions, "--run", config.get("run", {})))
    print()


def _print_options(title: str, options: Any) -> None:
    print(f"\n{title}")
    for option in options:
        print(entry(f"{option.name} {option.kind}", _described(option)))


def _described(option: Option) -> str:
    """The description of an option with its value."""
    value = "none" if option.value is None else str(option.value)
    return f"{option.text} [{value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + '...'}]".strip()


def entry(option: str, text: str) -> str:
    """An option with its description beside it, or below where the option is long."""
    lines = textwrap.wrap(text, WIDTH - COLUMN) or [""]
    first = f"  {option}"
    if len(first) >= COLUMN:
        lines.insert(0, "")
    head = f"{first:<{COLUMN}}{lines[0]}".rstrip()
    return "\n".join([head, *(" " * COLUMN + line for line in lines[1:])])
