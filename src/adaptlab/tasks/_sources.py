"""Where a published data set's rows come from: a data root if it has them, else the hub (docs/adding-a-task.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptlab.errors import DataError, HubError
from adaptlab.tasks._base import DataAccess
from adaptlab.tasks._table import Table, parse_parquet

DATA_ROOT = "ADAPTLAB_DATA_ROOT"
#: How long one question to the hub may take before it counts as unreachable.
_HUB_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """A data set as the hub names it. ``revision`` is a branch, a tag or a commit; ``None`` is the newest."""

    hub_id: str
    config: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.hub_id}/{self.config}" if self.config else self.hub_id


@dataclass(frozen=True, slots=True)
class Found:
    """Tables by split. ``revision`` is the commit that the hub's rows have; ``None`` from a data root."""

    tables: Mapping[str, Table]
    revision: str | None


def find_rows(address: Address, needed: Sequence[str], wanted: Sequence[str], access: DataAccess) -> Found:
    """The splits ``needed``, and those of ``wanted`` that the source has.

    Raises:
        DataError: a source has the data set but lacks a split, or the data root is no folder.
        HubError: the hub cannot be reached or does not have the data set.
    """
    root = data_root(access)
    folder = None if root is None else root.joinpath(*address.hub_id.split("/"), *filter(None, [address.config]))
    if folder is not None and folder.is_dir():
        return _from_folder(folder, address, needed, wanted)
    return _from_hub(address, needed, wanted, access)


def data_root(access: DataAccess) -> Path | None:
    """The folder laid out like the hub that was given, or that ``ADAPTLAB_DATA_ROOT`` names.

    Raises:
        DataError: it is no folder.
    """
    given, said_by = access.data_root, "--data-root"
    if not given:
        given, said_by = os.environ.get(DATA_ROOT), DATA_ROOT
    if not given:
        return None
    root = Path(given).expanduser()
    if not root.is_dir():
        raise DataError(
            f"{said_by} is '{given}', which is no folder: give one that holds <data set id>/<split>.parquet."
        )
    return root


def _from_folder(folder: Path, address: Address, needed: Sequence[str], wanted: Sequence[str]) -> Found:
    tables = {}
    for split in (*needed, *wanted):
        # A split is one file, or several as the hub names its shards: train-00000-of-00002.parquet.
        files = [*folder.glob(f"{split}.parquet"), *sorted(folder.glob(f"{split}-*-of-*.parquet"))]
        if files:
            tables[split] = _joined([parse_parquet(file, f"{address}/{file.name}") for file in files])
        elif split in needed:
            there = ", ".join(sorted(file.name for file in folder.glob("*.parquet"))) or "no parquet file"
            raise DataError(f"The data root's {address} lacks {split}.parquet; it has {there}: add the missing split.")
    return Found(tables, None)


def _joined(tables: list[Table]) -> Table:
    first = tables[0]
    columns = {name: [value for table in tables for value in table.columns[name]] for name in first.columns}
    return Table(columns, first.class_names)


def _from_hub(address: Address, needed: Sequence[str], wanted: Sequence[str], access: DataAccess) -> Found:
    if "/" not in address.hub_id:
        raise HubError(
            f"{address} is not on the hub: give --data-root DIR (or set {DATA_ROOT}) with {address}/<split>.parquet "
            "in it."
        )
    import datasets
    import huggingface_hub

    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    if access.offline and not offline:
        raise HubError(f"{address} is in no data root and the hub is not to be asked. {_work_offline(address)}")
    revision = address.revision if offline else _commit(address)
    quiet = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(address.hub_id, address.config, revision=revision)
        if offline and address.revision not in (None, builder.hash):
            raise HubError(
                f"The cache has {address} at revision {builder.hash}, not {address.revision} as the task asks: "
                "unset HF_HUB_OFFLINE and run once with a connection."
            )
        builder.download_and_prepare()
        loaded = builder.as_dataset()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        if offline:
            raise HubError(
                f"{address} is in no data root and, with HF_HUB_OFFLINE set, not in the hub's cache ({reason}). "
                f"{_work_offline(address)}"
            ) from error
        raise HubError(f"The hub could not give {address} ({reason}). {_work_offline(address)}") from error
    finally:
        if quiet:
            datasets.enable_progress_bars()
    lacking = [split for split in needed if split not in loaded]
    if lacking:
        raise DataError(f"{address} on the hub has no split '{lacking[0]}': it has {', '.join(sorted(loaded))}.")
    tables = {split: _table(loaded[split]) for split in (*needed, *wanted) if split in loaded}
    return Found(tables, builder.hash)


def _commit(address: Address) -> str:
    """The commit behind the address's revision; one question, so that a hub out of reach is known within seconds."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    # OSError and the base of all errors of the HTTP library, whichever that is.
    connection_errors: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
    api = huggingface_hub.HfApi()
    try:
        info = api.dataset_info(address.hub_id, revision=address.revision, timeout=_HUB_TIMEOUT_SECONDS)
    except RepositoryNotFoundError as error:
        raise HubError(
            f"The hub has no data set '{address.hub_id}' that you may read: check the id, "
            "or log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(f"The hub's '{address.hub_id}' has no revision '{address.revision}'.") from error
    except connection_errors as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise HubError(
            f"{address} is in no data root and the hub at {api.endpoint} cannot be reached ({reason}). "
            f"{_work_offline(address)}"
        ) from error
    return str(info.sha)


def _work_offline(address: Address) -> str:
    return (
        f"To work offline, give --data-root DIR (or set {DATA_ROOT}) with {address}/<split>.parquet in it, or load it "
        "once with a connection and then set HF_HUB_OFFLINE=1, which uses the hub's cache."
    )


def _table(rows: Any) -> Table:
    import datasets

    names = {
        column: tuple(feature.names)
        for column, feature in rows.features.items()
        if isinstance(feature, datasets.ClassLabel) and feature.names
    }
    whole = rows.with_format("arrow")[:]  # row by row it takes fifty times as long
    return Table({column: whole[column].to_pylist() for column in whole.column_names}, names)
