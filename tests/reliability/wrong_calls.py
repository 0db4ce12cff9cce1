"""Wrong command lines and a fragment of the sentence that answers each.

FAST needs neither data nor weights to be answered, so nothing heavy may be imported. LOADED needs
the classes of models and data sets. `files` creates the files that some of the calls name.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from riszoo import shipped

FAST: list[tuple[str, str]] = [
    # verbs
    ("fti --model lts", "did you mean 'fit'"),
    ("train --model lts", "unknown verb 'train'"),
    ("evaluate", "did you mean 'validate'"),
    ("--model lts", "unknown verb '--model'"),
    ("data", "name a verb: riszoo data show|check|prepare|import"),
    ("data shw", "did you mean 'show'"),
    ("data chekc refcoco", "did you mean 'check'"),
    # models
    ("fit", "name a model"),
    ("fit --model", "--model needs a value"),
    ("fit --model ltz", "did you mean 'lts'"),
    ("fit --model ''", "--model is empty: give a value"),
    ("fit --model ../lts", "unknown model '../lts'"),
    ("fit --model LTS", "unknown model 'LTS'"),
    ("fit --model lts,vipa", "unknown model 'lts,vipa'"),
    ("fit --model os.system", "os.system is not a model"),
    ("fit --model nowhere.Model", "nowhere"),
    ("fit --model lts.yaml", "lts.yaml"),
    ("test --model vipaa", "did you mean 'vipa'"),
    ("info ltz", "did you mean 'lts'"),
    ("info", "model"),
    ("speed", "model"),
    ("speed ltz", "did you mean 'lts'"),
    ("segment --image a.png --text x", "--model is missing: give a recipe's name"),
    ("segment --example --ckpt_path best", "--model is missing: give a recipe's name"),
    ("segment --model ltz --image image.png --text star", "did you mean 'lts'"),
    # data sets
    ("fit --model lts --data scene", "did you mean 'scenes'"),
    ("fit --model lts --data", "--data needs a value"),
    ("fit --model lts --data=", "--data is empty: give a value"),
    ("test --model lts --data refcocoo", "did you mean 'refcoco'"),
    ("info lts --data refcocoo", "did you mean 'refcoco'"),
    ("speed lts --data refcocoo", "did you mean 'refcoco'"),
    ("segment --model lts --image image.png --text star --data scen", "did you mean 'scenes'"),
    ("bench --data scene --dry-run", "did you mean 'scenes'"),
    ("data show scene", "did you mean 'scenes'"),
    # scales
    ("fit --model lts --scale tinny", "did you mean 'tiny'"),
    ("fit --model lts --scale", "--scale needs a value"),
    ("fit --model lts --scale ''", "--scale is empty"),
    ("fit --model lts --data refcoco --scale small", "'lts' on 'refcoco' has no scale 'small'"),
    ("info lts --scale papper", "did you mean 'paper'"),
    ("speed lts --scale papper", "did you mean 'paper'"),
    ("fit --model lts-swin --scale enormous", "'lts-swin' on 'scenes' has no scale 'enormous'"),
    ("bench --models lts --scale huge --dry-run", "'lts' on 'scenes' has no scale 'huge'"),
    ("bench --scale huge --dry-run", "no model has a scale 'huge'"),
    # splits
    ("fit --model lts --split vall", "did you mean 'val'"),
    ("test --model lts --split val,testC", "scenes has no split 'testC'"),
    ("validate --model lts --split tesst", "scenes has no split 'tesst'"),
    ("predict --model lts --data refcocog --split testA", "refcocog has no split 'testA'"),
    ("test --model lts --data refcoco --split testC", "refcoco has no split 'testC'"),
    ("test --model lts --split ''", "--split is empty"),
    ("fit --model lts --split val,testA", "scenes has no split 'val,testA'"),
    ("fit --model lts --data.train_split trian", "did you mean 'train'"),
    ("bench --splits nope --dry-run", "scenes has no split 'nope'"),
    ("data show scenes --split vall", "did you mean 'val'"),
    # protocols, controls, loggers
    ("test --model lts --protocol lavt481", "did you mean 'lavt480'"),
    ("test --model lts --protocol original,nope", "unknown protocol 'nope'"),
    ("test --model lts --protocol ''", "--protocol is empty"),
    ("test --model lts --protocol", "--protocol needs a value"),
    ("test --model lts --control shufled", "unknown control 'shufled'"),
    ("fit --model lts --control none,", "unknown control ''"),
    ("fit --model lts --logger wandv", "did you mean 'wandb'"),
    ("fit --model lts --logger csv,mlflow", "unknown logger 'mlflow'"),
    ("bench --protocol nope --dry-run", "unknown protocol 'nope'"),
    ("bench --controls nope --dry-run", "unknown control 'nope'"),
    ("score masks --protocol nope", "unknown protocol 'nope'"),
    ("compare run_a run_b --protocol nope", "unknown protocol 'nope'"),
    ("segment --model lts --image image.png --text star --protocol nope", "unknown protocol 'nope'"),
    # numbers
    ("fit --model lts --model.size 0", "--model.size 0: give"),
    ("fit --model lts --model.size -3", "--model.size -3: give"),
    ("fit --model lts --model.size 1000000", "--model.size 1000000: give"),
    ("fit --model lts --data.workers -1", "--data.workers -1: give"),
    ("fit --model lts --data.workers 100000", "--data.workers 100000: give"),
    ("fit --model lts --data.batch_size 0", "--data.batch_size 0: give"),
    ("fit --model lts --data.batch_size=-8", "--data.batch_size -8: give"),
    ("fit --model lts --data.batch_size many", "--data.batch_size many: give"),
    ("fit --model lts --data.batch_size 2.5", "--data.batch_size 2.5: give"),
    ("fit --model lts --data.total_batch_size 0", "--data.total_batch_size 0: give"),
    ("fit --model lts --data.sentences_per_image 0", "--data.sentences_per_image 0: give"),
    ("fit --model lts --data.eval_images 0", "--data.eval_images 0: give"),
    ("fit --model lts --data.val_images 0", "--data.val_images 0: give"),
    ("fit --model lts --data.seed -1", "--data.seed -1: give"),
    ("fit --ckpt_path foreign/a.ckpt", "foreign/config.yaml is not the configuration of a run"),
    ("test --model lts --data.test_images -3", "--data.test_images -3: give"),
    ("fit --model lts --seed_everything -5", "--seed_everything -5: give"),
    ("fit --model lts --seed_everything 99999999999", "--seed_everything 99999999999: give"),
    ("fit --model lts --model.optim.lr -1", "--model.optim.lr -1: give"),
    ("fit --model lts --model.optim.lr nan", "--model.optim.lr nan: give"),
    ("fit --model lts --trainer.precision bf16-true", "--trainer.precision bf16-true is not supported: choose 32-true"),
    ("test --model lts --trainer.precision=64", "--trainer.precision 64 is not supported"),
    ("fit --model lts --model.optim.lr 1e400", "--model.optim.lr 1e400: give"),
    ("fit --model lts --model.optim.lr high", "--model.optim.lr high: give"),
    ("fit --model lts --model.optim.weight_decay -0.1", "--model.optim.weight_decay -0.1: give"),
    ("fit --model lts --model.optim.ema 1.5", "--model.optim.ema 1.5: give"),
    ("fit --model lts --model.optim.warmup -1", "--model.optim.warmup -1: give"),
    ("fit --model lts --model.text.length 0", "--model.text.length 0: give"),
    ("fit --model lts --trainer.max_steps -7", "--trainer.max_steps -7: give"),
    ("fit --model lts --trainer.devices -2", "--trainer.devices -2: give"),
    ("fit --model lts --trainer.val_check_interval 0", "--trainer.val_check_interval 0: give a number above 0"),
    ("fit --model lts --trainer.gradient_clip_val -3", "--trainer.gradient_clip_val -3: give at least 0"),
    ("test --model vipa --trainer.limit_test_batches -1", "--trainer.limit_test_batches -1: give at least 0"),
    ("fit --model lts --run.images -1", "--run.images -1: give"),
    ("bench --budget 0 --dry-run", "--budget 0: give at least 1"),
    ("bench --budget -5 --dry-run", "--budget -5: give at least 1"),
    ("bench --budget few --dry-run", "--budget"),
    ("bench --models lts --budget 3 --dry-run", "--budget 3"),
    ("fit --model lts --budget 0", "--budget 0: give at least 1"),
    ("fit --model lts --budget few", "--budget few: give at least 1"),
    ("fit --model lts --budget 63", "--budget 63 is less than one batch of 64 sentences"),
    ("fit --model lts --budget", "--budget needs a value"),
    ("fit --model lts --budget 640 --trainer.max_steps 3", "--budget and --trainer.max_steps"),
    ("fit --model lts --budget 640 --trainer.max_epochs=3", "--budget and --trainer.max_epochs"),
    ("fit --model lts --budget 640 --data.total_batch_size null", "give --data.total_batch_size too"),
    ("test --model lts --budget 640 --ckpt_path text.txt", "leave it out of 'riszoo test'"),
    ("bench --seeds 0 --dry-run", "--seeds 0: give at least 1"),
    ("bench --repeats 0 --dry-run", "--repeats 0: give at least 1"),
    ("speed lts --repeats 0", "--repeats 0: give at least 1"),
    ("speed lts --batch 0", "--batch 0: give at least 1"),
    ("fit --model lts --budget 1e3", "--budget 1e3: give at least 1, a whole number"),
    ("speed lts --over {", "--over"),
    ("speed lts --over [1]", "--over"),
    ("speed lts --over '{\"model\": 3}'", "--model 3: expected a mapping"),
    ("speed lts --model.optim 3", "--model.optim 3: expected a mapping"),
    ("speed lts --model.size 0", "--model.size 0: give"),
    ("speed lts --model.nope 3", "unknown option --model.nope"),
    ("speed lts --out absent/row.json", "--out absent/row.json cannot be written"),
    ("speed lts --out .", "--out . cannot be written"),
    ("speed --paired lts ltz", "did you mean 'lts'"),
    ("speed --paired lts --repeats", "--paired"),
    ("speed lts --paired lts vipa", "leave 'lts' out"),
    ("speed --paired lts vipa --steps train", "--steps train: give forward or training"),
    ("speed lts --part vision", "--part is an option of 'riszoo speed --paired A B'"),
    ("speed lts --model.width", "option --model.width needs a value"),
    ("data show scenes --count 0", "--count 0: give at least 1"),
    ("data show scenes --count 99999999", "--count 99999999: give at most 500"),
    ("data show scenes --start -1", "--start -1: give at least 0"),
    ("report run --count 0", "--count 0"),
    # options
    ("list --all", "--all"),
    ("bench --modles lts", "did you mean --models"),
    ("bench --controlled --scale tiny --dry-run", "--controlled already sets --scale"),
    ("bench --models '' --dry-run", "--models is empty: give a value, or leave it out"),
    ("bench --splits= --dry-run", "--splits is empty"),
    ("bench --report empty_folder --models lts --dry-run", "--report empty_folder cannot be written"),
    ("bench --report text.txt/x.html --models lts --dry-run", "--report text.txt/x.html cannot be written"),
    ("bench --ablation vipa --models lts --dry-run", "--ablation already sets --models"),
    ("bench --ablation vippa --dry-run", "did you mean 'vipa'"),
    ("bench --ablation vipa/nope --dry-run", "ablation 'vipa' has no table 'nope'"),
    ("bench --models lts,nope --dry-run", "unknown model 'nope'"),
    ("bench --models '' --data", "--data"),
    ("data check", "SET"),
    ("data check refcoco --imagess", "did you mean --images"),
    ("data prepare", "SET"),
    ("segment --model lts --text star", "--image"),
    ("segment --model lts --image image.png", "--text"),
    ("segment --model lts --image image.png --text ''", "--text is empty: give a sentence"),
    ("segment --model lts image.png star", "image.png star; give images with --image and sentences with --text"),
    ("segment --model lts --image '' --text star", "--image is empty"),
    ("segment --model lts --image image.png --text star --tile 0", "--tile 0: give at least 1"),
    ("segment --model lts --image image.png --text star --protocol original,cris035", "give one, such as original"),
    ("segment --model lts --image image.png --text star --run.root text.txt", "--run.root text.txt is not a folder"),
    ("segment --model nowhere.Model --image image.png --text star", "there is no module 'nowhere'"),
    ("export --model os.system --out new", "os.system is not a model"),
    ("hub push new --model os.system --license mit", "os.system is not a model"),
    ("hub push new --model lts --license ''", "--license is empty"),
    ("hub push new --model lts --license 'My License'", "is not the Hub's name of a license"),
    ("hub push new --model lts --license mit --dataset scenes", "'scenes' is not the address of a repository"),
    ("hub pull hf://user/model --license mit", "--license is an option of `riszoo hub push`"),
    ("hub pull ''", "an argument is empty: give a value"),
    ("predict --model lts --run.root text.txt", "--run.root text.txt is not a folder"),
    ("fit --model lts --run.root ''", "--run.root is empty"),
    ("info absent.ckpt", "checkpoint absent.ckpt is not a file"),
    ("info empty_folder", "checkpoint empty_folder is not a file"),
    ("fit --ckpt_path last --run.root text.txt", "--run.root text.txt is not a folder"),
    ("score", "name the masks to score"),
    ("compare run_a", "run_b"),
    ("compare run_a run_b --by colour", "--by"),
    ("report", "RUN"),
    ("init-model ''", "an argument is empty"),
    ("init-model output", "its class Output would replace another"),
    ("speed --paired 'lts --device cuda' vipa", "--device is of both sides"),
    ("speed --paired lts 'lts --out=row.json'", "--out is of both sides"),
    # files
    ("fit --model lts --config absent.yaml", "absent.yaml"),
    ("fit --model lts --config", "--config needs a value"),
    ("fit --model lts --config .", "configuration file"),
    ("fit --config binary.yaml", "binary.yaml"),
    ("fit --config bomb.yaml", "bomb.yaml"),
    ("fit --config deep.yaml", "deep.yaml"),
    ("fit --config list.yaml", "list.yaml must be a mapping"),
    ("fit --config empty.yaml", "empty.yaml must be a mapping"),
    ("fit --config broken.yaml", "broken.yaml is not valid YAML"),
    ("fit --config python.yaml", "python.yaml is not valid YAML"),
    ("fit --config latin.yaml", "latin.yaml"),
    ("fit --config section.yaml", "section.yaml: 'data'"),
    ("fit --config '{broken'", "--config"),
    ('fit --config \'{"model": "lts", "trainer": 3}\'', "'trainer'"),
    ('fit --model lts --config \'{"model": {"init_args": {"vision": 3}}}\'', "--model.vision 3: expected a mapping"),
    ("fit --config '{\"model\": 3}'", "'model'"),
    ("bench --checkpoints absent.yaml --dry-run", "absent.yaml"),
    ("bench --checkpoints list.yaml --dry-run", "list.yaml"),
    ("bench --checkpoints checkpoints.yaml --dry-run", "nowhere.ckpt"),
    ("bench --checkpoints misspelt.yaml --models lts --dry-run", "unknown model in misspelt.yaml 'ltz'"),
    ("bench --root text.txt --dry-run", "--root text.txt is not a folder"),
    ("bench --out text.txt --dry-run", "--out text.txt is not a folder"),
    ("bench --launch '\"' --dry-run", "is not a command line: no closing quotation"),
    ("test --model lts --data refcoco", "riszoo fit --model lts"),
    ("test --model lts --ckpt_path absent.ckpt", "absent.ckpt"),
    ("test --model lts --ckpt_path .", "checkpoint . is not a file"),
    ("fit --model lts --ckpt_path last", "give --ckpt_path FILE"),
    ("fit --ckpt_path absent.ckpt", "absent.ckpt"),
    ("fit --model lts --init absent.ckpt", "give --init FILE or hf://"),
    ("fit --model lts --init text.txt --ckpt_path last", "leave one of them out"),
    ("test --model lts --init text.txt", "--init is an option of 'riszoo fit'"),
    ("convert nope --out new.safetensors", "checkpoint nope is not a file: give a file or hf://user/repository"),
    ("export --model lts --out new --ckpt_path nope", "checkpoint nope is not a file: give --ckpt_path FILE"),
    ("data import export --val 2", "--val 2: give a share"),
    ("segment --model lts --image absent.png --text star", "absent.png"),
    ("segment --model lts --image '/**[' --text star", "--image /**[ is not a pattern"),
    ("segment --model lts --image image.png --text star --ckpt_path absent.ckpt", "absent.ckpt"),
    ("segment --model lts --image image.png --text star --out text.txt", "text.txt"),
    ("segment --model lts --image image.png --text star --data refcoco", "riszoo fit --model lts"),
]
"""Command lines as a shell would take them."""

LOADED: list[tuple[str, str]] = [
    ("fit --model lts --model.optim.betas [1.5,0.9]", "--model.optim.betas [1.5, 0.9]: give two numbers"),
    ("fit --model lts --trainer.max_steps -1 --trainer.max_epochs -1", "give --trainer.max_steps or --budget"),
    ("fit --model lts --trainer.accumulate_grad_batches 7", "--trainer.accumulate_grad_batches 7: leave it out"),
    ("speed lts --batch 2", "--batch 2 is not a multiple of the 4 sentences of an image"),
    ("fit --model torch.nn.Linear", "torch.nn.Linear is not a subclass of riszoo.model.RISModule"),
    ("fit --model torch.nn.relu", "torch.nn.relu cannot be imported"),
    ("fit --model riszoo.model.RISModule", "is an abstract class: name a subclass that defines decode, loss"),
    ("report absent --model torch.nn.Linear", "torch.nn.Linear is not a subclass"),
    ("report absent --model os.system", "os.system is not a subclass"),
    ("fit --model lts --modle.optim.lr 1", "--modle.optim.lr"),
    ("fit --model lts --model.lr 1", "did you mean --model.optim.lr?"),
    ("fit --model lts --data.batchsize 3", "did you mean --data.batch_size?"),
    ("test --model lts --ckpt_path text.txt", "text.txt"),
    ("test --model lts --ckpt_path lfs.ckpt", "lfs.ckpt"),
    ("test --model lts --ckpt_path empty.yaml", "empty.yaml"),
    ("segment --model lts --image image.png --text star --ckpt_path text.txt", "text.txt"),
    ("fit --model lts --init text.txt", "text.txt is not a checkpoint"),
    ("data import absent", "absent does not exist"),
    ("data import empty_folder", "contains no .json file"),
    ("data check refcocoo", "did you mean"),
    ("data check scenes", "scenes is not read from files"),
    ("data show refcoco --root absent", "absent"),
    ("data prepare refcoco --root absent", "absent"),
    ("compare absent_a absent_b", "absent_a"),
    ("convert weights.safetensors --out text.txt/x.ckpt", "cannot write text.txt/x.ckpt"),
    ("convert weights.safetensors --out x.pt", "unknown format"),
    ("report absent", "absent"),
    ("score absent", "absent"),
    ("score text.txt", "text.txt is not valid JSON"),
    ("score rle.json", "rle.json"),
    ("score empty_folder", "empty_folder"),
    ("tables --out absent", "absent is not a folder"),
    ("tables --out other_results", "accuracy.csv has no column 'data'"),
    ("leaderboard --benchmarks other_results", "accuracy.csv has no column 'data'"),
    ("fit extra --model lts", "unexpected 'extra'"),
    ("fit --model lts --trainer.precision half", "--trainer.precision half: expected a whole number, transformer"),
    ("fit --model lts --trainer.fast_dev_run x", "--trainer.fast_dev_run x: expected a whole number or true or false"),
    ("fit --model lts --run.nonfinite ignore", "--run.nonfinite ignore: expected stop or skip"),
    ("fit --model lts --model.vision 3", "--model.vision 3: expected a mapping"),
    ("fit --model lts --data.augment nope", "--data.augment nope: expected a class such as my.module.Class or null"),
    ("fit --model lts --data.class_path os.path", "--data.class_path os.path is not a subclass of RISData"),
    ("fit --model lts --trainer.strategy nope", "the trainer's options do not fit"),
    ("fit --model lts --trainer.devices 999", "--trainer.devices 999: give at most"),
    ("speed lts --device gpu7", "gpu7"),
    ("speed lts --device cuda:99", "cuda:99"),
    ("speed lts --device meta", "--device meta is not measured"),
    ("speed lts --device ''", "--device is empty"),
    ("bench --launcher submitit --slurm foo --models lts --dry-run", "--slurm foo: give NAME=VALUE"),
    ("report absent --out empty_folder", "--out empty_folder cannot be written"),
    ("score rle.json --root absent", "scenes is not read from files: leave out --root absent"),
    ("data show scenes --root absent", "scenes is not read from files: leave out --root absent"),
]


def files(folder: Path) -> None:
    """Create the files that the calls name."""
    (folder / "binary.yaml").write_bytes(bytes(range(256)) * 8)
    (folder / "empty.yaml").write_text("")
    (folder / "list.yaml").write_text("- lts\n- vipa\n")
    (folder / "broken.yaml").write_text("model: lts\n  data: [scenes\n")
    (folder / "python.yaml").write_text("model: !!python/object/apply:os.system ['true']\n")
    (folder / "latin.yaml").write_bytes("# größe\nmodel: lts\n".encode("latin-1"))
    (folder / "section.yaml").write_text("model: lts\ndata: 3\n")
    (folder / "deep.yaml").write_text("a: " + "[" * 50_000)
    (folder / "bomb.yaml").write_text(yaml_bomb())
    (folder / "checkpoints.yaml").write_text("lts: nowhere.ckpt\n")
    (folder / "misspelt.yaml").write_text("ltz: text.txt\n")
    (folder / "text.txt").write_text("not a checkpoint, not JSON\n")
    (folder / "lfs.ckpt").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 12345\n"
    )
    (folder / "rle.json").write_text(
        json.dumps([{"id": "a", "segmentation": {"size": [2, 2], "counts": [[1], [1, 2]]}}])
    )
    (folder / "weights.safetensors").symlink_to(shipped.folder() / "lts.safetensors")
    (folder / "empty_folder").mkdir()
    (folder / "foreign").mkdir()
    (folder / "foreign" / "config.yaml").write_text("model: something\n")
    (folder / "foreign" / "a.ckpt").write_bytes(b"PK")
    (folder / "other_results").mkdir()
    (folder / "other_results" / "accuracy.csv").write_text("model,IoU\nlts,0.3\n")
    Image.new("RGB", (32, 24)).save(folder / "image.png")


def yaml_bomb(levels: int = 12, width: int = 10) -> str:
    """Lists of aliases of lists: 10^12 items in a few hundred bytes."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n".join([*lines, f"model: *a{levels - 1}", ""])
