"""What the benchmark refuses, word for word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hermes_edge.bench.accelerator import measure_gpu_rates
from hermes_edge.bench.against import Reference
from hermes_edge.bench.command import Against, bench
from hermes_edge.bench.run import BenchSettings, run_bench
from hermes_edge.engines import Bundle
from hermes_edge.errors import (
    BudgetError,
    BundleError,
    CheckpointError,
    DependencyError,
    HermesEdgeError,
    SettingsError,
    StorageError,
)
from hermes_edge.export import make_random_checkpoint


def refusal(kind: type[HermesEdgeError], settings: BenchSettings) -> str:
    """The message of the error with which a run ends."""
    with pytest.raises(kind) as caught:
        run_bench(settings, lambda stage: None)
    assert type(caught.value) is kind
    return str(caught.value)


def test_against_without_checkpoint(random_bundle: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        bench(random_bundle, against=Against.TRANSFORMERS)
    assert str(caught.value) == (
        "--against transformers and --checkpoint go together: "
        "required both or none, found --against alone"
    )


def test_checkpoint_without_against(random_bundle: Path, checkpoint: Path) -> None:
    with pytest.raises(SettingsError, match=r"found --checkpoint alone$"):
        bench(random_bundle, checkpoint=checkpoint)


def test_json_file_that_cannot_be_written(random_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "report.json"
    with pytest.raises(StorageError) as caught:
        bench(random_bundle, json_file=path)
    assert str(caught.value) == f"cannot write {path}: found no such folder {path.parent}"


def test_full_disk_loses_the_file_and_not_the_report(
    random_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = Path("/dev/full")
    with pytest.raises(StorageError) as caught:
        bench(random_bundle, budget=512, repeats=1, chunk_repeats=1, warmup=0, json_file=full)
    assert str(caught.value) == "cannot write /dev/full: found No space left on device"
    last_line = capsys.readouterr().out.rstrip("\n").rpartition("\n")[2]
    assert json.loads(last_line)["against_transformers"] is None


def test_no_bundle(tmp_path: Path) -> None:
    message = refusal(BundleError, BenchSettings(tmp_path / "none"))
    assert message.startswith(f"{tmp_path / 'none'} is not a bundle: required")


def test_missing_checkpoint_is_named_before_anything_is_measured(random_bundle: Path) -> None:
    settings = BenchSettings(random_bundle, checkpoint=Path("/nowhere/model"))
    assert refusal(CheckpointError, settings) == "no checkpoint folder at /nowhere/model"


def test_rows_beyond_the_positions(random_bundle: Path) -> None:
    assert refusal(BudgetError, BenchSettings(random_bundle, rows=5000)) == (
        "the budget does not fit the model's positions: required at most 1259 tokens "
        "(positions less prefix, chunk and reserve), found 5000. "
        "Lower the budget, chunk_frames or reserve_tokens"
    )


def test_rows_beyond_the_budget(random_bundle: Path) -> None:
    assert refusal(SettingsError, BenchSettings(random_bundle, rows=600, budget=512)) == (
        "more rows than the budget keeps: required rows of at most 512, found 600"
    )


def test_one_answer_token_times_nothing(random_bundle: Path) -> None:
    assert refusal(SettingsError, BenchSettings(random_bundle, answer_tokens=1)) == (
        "too few answer tokens to time one: required answer_tokens of at least 2, found 1"
    )


def test_checkpoint_with_other_weights(random_bundle: Path, tmp_path: Path) -> None:
    other = make_random_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError) as caught:
        Reference.open(other, Bundle.open(random_bundle))
    assert str(caught.value) == (
        f"{other} is not the checkpoint that {random_bundle} was exported from: "
        "required its embedding table, found 64 of 64 rows differ. "
        "Give the checkpoint of this bundle, or export this one"
    )


def test_checkpoint_of_another_geometry(random_bundle: Path, checkpoint: Path) -> None:
    bundle = Bundle.open(random_bundle)
    decoder = replace(bundle.manifest.decoder, mlp_width=256)
    wider = Bundle(random_bundle, bundle.manifest.model_copy(update={"decoder": decoder}))
    with pytest.raises(CheckpointError) as caught:
        Reference.open(checkpoint, wider)
    assert (caught.value.required, caught.value.found) == ("mlp_width 256", "mlp_width 128")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_floors_of_a_gpu_that_torch_cannot_use() -> None:
    with pytest.raises(DependencyError) as caught:
        measure_gpu_rates("cuda:0", "fp16")
    assert str(caught.value) == (
        "a GPU's floors are measured with torch: required torch with CUDA, "
        f"found torch {torch.__version__} without a usable GPU. Install torch for this GPU"
    )
