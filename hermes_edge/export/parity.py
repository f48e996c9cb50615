"""Does a bundle compute what its checkpoint computes? Names, axes, shapes, values, in this order.

A graph whose surface is wrong is not run, the others are; everything is reported at once.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hermes_edge.contract import GraphName
from hermes_edge.engines import Bundle
from hermes_edge.engines.views import Array
from hermes_edge.errors import BundleError, CheckpointError, EngineError, ParityError
from hermes_edge.export import checks
from hermes_edge.export.checkpoint import Checkpoint
from hermes_edge.export.costs import measure_costs
from hermes_edge.export.progress import NoProgress, Progress, stage
from hermes_edge.export.reference import Reference, run_references
from hermes_edge.export.samples import FRAMES, Samples
from hermes_edge.export.widened import WidenedBundle
from hermes_edge.manifest import ParityReport

ITSELF = "the bundle itself"


def verify_bundle(
    path: str | Path, against: str | Path | None = None, progress: Progress | None = None
) -> ParityReport:
    """Compare a bundle with its files, its contract, itself, and a checkpoint where one is given.

    Args:
        path: the bundle.
        against: the checkpoint that it was exported from, a folder or a hub id. Without one, cached
            passes are compared with whole ones and the graphs without weights with numpy.
        progress: told of every stage.

    Raises:
        BundleError: a file is missing, damaged, or of another schema.
        CheckpointError: the checkpoint cannot be read, or is of another geometry.
        ParityError: a comparison failed (all that did are listed).
    """
    progress = progress or NoProgress()
    with stage(progress, "hashes"):
        bundle = Bundle.open(path)
    if against is None:
        return _compare(bundle, None, progress)
    checkpoint = Checkpoint.open(against)
    manifest, config = bundle.manifest, checkpoint.config
    if (manifest.decoder, manifest.vision) != (config.decoder, config.vision):
        raise CheckpointError(
            f"{against} is not what {path} was exported from",
            required=f"{manifest.decoder}, {manifest.vision}",
            found=f"{config.decoder}, {config.vision}",
        )
    return _compare(bundle, checkpoint, progress)


def compare_export(folder: Path, checkpoint: Checkpoint, progress: Progress) -> ParityReport:
    """Compare a bundle just written with its checkpoint.

    Raises:
        ParityError: a comparison failed (all that did are listed).
    """
    return _compare(Bundle.open(folder, check_hashes=False), checkpoint, progress)


def _compare(bundle: Bundle, checkpoint: Checkpoint | None, progress: Progress) -> ParityReport:
    samples = Samples.of(bundle.manifest)
    quantization, precision = bundle.manifest.quantization, bundle.manifest.precision
    # What is checked at fp32's tolerances, and what a device makes of it.
    checked = used = bundle
    if precision == "bf16":
        checked, used = (WidenedBundle(bundle, rounded=rounded) for rounded in (False, True))
    original = rounded = None
    if checkpoint is not None:
        with stage(progress, "reference"):
            original, rounded = run_references(checkpoint, samples, quantization, precision)
    with stage(progress, "parity"):
        report = _run(checked, samples, rounded or original)
        if original is None or rounded is None:
            return report
        return report.model_copy(update={"costs": measure_costs(used, original)})


def _run(bundle: Bundle, samples: Samples, reference: Reference | None) -> ParityReport:
    to = checks.Checks(bundle.manifest.precision)
    embeds = _rows(bundle, samples, reference)
    runs: dict[GraphName, Callable[[], None]] = {
        "vision": lambda: checks.check_vision(bundle, samples, reference, to),
        "decoder": lambda: checks.check_decoder(bundle, embeds, reference, to),
        "score": lambda: checks.check_score(bundle, to),
        "compact": lambda: checks.check_compact(bundle, to),
        "embedding_probe": lambda: checks.check_embedding_probe(bundle, embeds, reference, to),
    }
    faults = []
    for graph in bundle.manifest.graphs:
        try:
            runs[graph]()
        except (BundleError, EngineError) as error:
            faults.append(str(error))
        gc.collect()
    faults += [
        f"{check.name}: required at most {check.tolerance:g} {check.unit}, "
        f"found {check.measured:.3g}"
        for check in to.done
        if not check.passed
    ]
    name = ITSELF if reference is None else reference.name
    if faults:
        raise ParityError(
            f"{len(faults)} comparisons of the exported graphs with {name} failed: "
            f"{'; '.join(faults)}"
        )
    return ParityReport(reference=name, checks=tuple(to.done))


def _rows(bundle: Bundle, samples: Samples, reference: Reference | None) -> Array:
    """Rows [T, E] for the decoder; without an original, visual tokens are noise of text's size."""
    if reference is not None:
        return reference.inputs_embeds
    table = bundle.embeddings()
    prefix, question = (
        table.lookup(ids.tolist()) for ids in (samples.prefix_ids, samples.question_ids)
    )
    visual = samples.visual_tokens
    if visual is None:
        count = FRAMES * bundle.manifest.tokens_per_frame
        shape = (count, bundle.manifest.decoder.embedding_width)
        noise = np.random.default_rng(5).normal(size=shape)
        visual = noise * np.concatenate((prefix, question)).astype(np.float64).std()
    rows: Array = np.concatenate((prefix, visual, question)).astype(np.float32)
    return rows
