"""The tables of ablations: the rows of configs/ablations/*.yaml as they were measured, a table for each scale."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from riszoo.bench.plan import ablations
from riszoo.bench.rows import TYPES, Row
from riszoo.bench.tables.data_table import shown_text, without_empty_columns
from riszoo.bench.tables.differences import Difference, paired_difference
from riszoo.bench.tables.entries import ORIGINAL, mean, number
from riszoo.bench.tables.formats import Grid, markdown
from riszoo.bench.tables.image_sums import IMAGES, ImageSums
from riszoo.bench.tables.results import Results

OF_CONTEXT = ("constant", "exchanged")
"""Controls that replace the keys and values of the decoder."""
KINDS = ("attribute", "place", "relation")
"""The kinds of sentences shown beside the mean of all."""
DIFFERENCE_LEGEND = (
    "*minus {reference}*: the difference in mIoU on the same images and from the same seeds; ± is half of its 95 % "
    "interval over images and, where there are several, seeds."
)
CONTEXT_LEGEND = (
    "Constant: mIoU with keys and values of zero in the decoder; exchanged: with those of another sentence about the "
    "image. A row marked *unused* loses nothing beyond its interval by the first, with any of its seeds, so it is no "
    "measurement of its keys and values."
)


def ablation_tables(results: Results, name: str) -> str:
    """The measured tables of one file, then the commands that measure the others."""
    parts, commands = [f"**{name}**"], []
    for table, content in ablations(name).items():
        variants = {f"{table}/{variant}" for variant in content["rows"]}
        measured = [row for row in results.accuracy if _is_of(row, name, variants)]
        title = content.get("title", table)
        if not measured:
            commands.append(f"- {title}: `riszoo bench --ablation {name}/{table}`")
        for scale in sorted({row["scale"] for row in measured}):
            parts.append(_Table(results, name, table, scale, content).render())
    if commands:
        parts += ["Not measured yet:", "\n".join(commands)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _is_of(row: Row, model: str, variants: Collection[str]) -> bool:
    """Whether a row measures one of a model's variants with its own sentences, under the protocol of the tables."""
    plain = (row["model"], row["protocol"], row["control"]) == (model, ORIGINAL, "none")
    return plain and row["variant"] in variants


@dataclass(frozen=True)
class _Table:
    """The rows of one table that were measured at one scale."""

    results: Results
    model: str
    table: str
    scale: str
    content: dict[str, Any]

    def render(self) -> str:
        """A line for each measured variant, and how to read them."""
        variants = [variant for variant in self.content["rows"] if self.rows(variant)]
        columns = list(dict.fromkeys((row["data"], row["split"]) for name in variants for row in self.rows(name)))
        lines: Grid = [
            [f"{self.content.get('title', self.table)}, scale {self.scale}", *self.heading(columns)],
            *([variant, *self.line(variant, columns)] for variant in variants),
        ]
        return f"{markdown(without_empty_columns(lines))}\n{self.legend(variants)}"

    def rows(self, variant: str, control: str = "none") -> list[Row]:
        return [row for row in self.of_scale(self.results.accuracy, variant) if row["control"] == control]

    def of_scale(self, rows: Sequence[Row], variant: str) -> list[Row]:
        """The rows of a variant under the protocol of the tables."""
        chosen = (self.model, self.scale, f"{self.table}/{variant}", ORIGINAL)
        return [row for row in rows if (row["model"], row["scale"], row["variant"], row["protocol"]) == chosen]

    @property
    def reference(self) -> str:
        """The row that the others are compared with: the recipe itself, or else the first."""
        rows: dict[str, Any] = self.content["rows"]
        return next((variant for variant, change in rows.items() if not change), next(iter(rows)))

    def heading(self, columns: Sequence[tuple[str, str]]) -> list[str]:
        names = ("mIoU", f"minus {self.reference}", *OF_CONTEXT, *KINDS)
        found = [f"{data} {split} {name}" for data, split in columns for name in names]
        return [*found, "seeds", "training sentences"]

    def line(self, variant: str, columns: Sequence[tuple[str, str]]) -> list[str]:
        cells = []
        for column in columns:
            own = _of_column(self.rows(variant), column)
            cells += [shown_text(number(own, "mIoU")), self.difference(variant, column), *self.context(variant, column)]
            kinds = _of_column(self.of_scale(self.results.types, variant), column)
            by_kind = [[row for row in kinds if row["type"] == kind] for kind in KINDS]
            cells += [shown_text(number(chosen, "mIoU", TYPES)) for chosen in by_kind]
        length = mean(self.rows(variant), "training_sentences")
        seeds = len({row["seed"] for row in self.rows(variant)})
        return [*cells, str(seeds), "" if length is None else f"{length:,.0f}"]

    def context(self, variant: str, column: tuple[str, str]) -> list[str]:
        """mIoU with replaced keys and values; constant ones are marked if no seed's are below its own interval."""
        low = {row["seed"]: mean([row], "mIoU_low") for row in _of_column(self.rows(variant), column)}
        cells = []
        for control in OF_CONTEXT:
            changed = _of_column(self.rows(variant, control), column)
            of_seeds = [(mean([row], "mIoU"), low.get(row["seed"])) for row in changed]
            lost = [value is None or least is None or value < least for value, least in of_seeds]
            is_unused = control == "constant" and bool(lost) and not any(lost)
            cells.append(shown_text(number(changed, "mIoU")) + " *unused*" * is_unused)
        return cells

    def difference(self, variant: str, column: tuple[str, str]) -> str:
        found = self.compared(variant, column)
        return "" if found is None else f"{found.value:+.2f} ± {found.half:.2f}"

    def compared(self, variant: str, column: tuple[str, str]) -> Difference | None:
        """The variant's mIoU minus that of the reference, where both were evaluated on the same sentences."""
        if variant == self.reference:
            return None
        own, other = (self.sums(name, column) for name in (variant, self.reference))
        seeds = [seed for seed in own if seed in other and own[seed].sentences == other[seed].sentences]
        return paired_difference([own[s] for s in seeds], [other[s] for s in seeds], "mIoU") if seeds else None

    def sums(self, variant: str, column: tuple[str, str]) -> dict[str, ImageSums]:
        """The sums over images by seed, where they are recorded."""
        rows = _of_column(self.rows(variant), column)
        found = {row["seed"]: self.results.sums.get((*(row[n] for n in IMAGES.key), row["weights"])) for row in rows}
        return {seed: each for seed, each in found.items() if each is not None}

    def legend(self, variants: Sequence[str]) -> str:
        rows = [row for variant in variants for row in self.rows(variant)]
        parts = []
        if self.content.get("claim"):
            first = (rows[0]["data"], rows[0]["split"])
            found = {variant: mean(_of_column(self.rows(variant), first), "mIoU") for variant in variants}
            score = {variant: value for variant, value in found.items() if value is not None}
            parts.append(f"The paper's order, on its own data, best last: {', '.join(self.content['claim'])}.")
            parts.append(f"Measured: {', '.join(sorted(score, key=score.__getitem__))}.")
        if any(self.difference(variant, (row["data"], row["split"])) for variant in variants for row in rows[:1]):
            parts.append(DIFFERENCE_LEGEND.format(reference=self.reference))
        if any(self.rows(variant, "constant") for variant in variants):
            parts.append(CONTEXT_LEGEND)
        commit, device = (", ".join(sorted({row[name] for row in rows})) for name in ("commit", "device"))
        return " ".join([*parts, f"Measured at commit {commit} on {device}."])


def _of_column(rows: Sequence[Row], column: tuple[str, str]) -> list[Row]:
    return [row for row in rows if (row["data"], row["split"]) == column]
