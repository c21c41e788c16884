"""Describe photos on the nodes of a Ray cluster with Ray Data.

There is one worker per GPU or, without GPUs, per CPU; each loads the network once. Ray replaces a lost worker and
repeats its work. A node needs this package, and the network and the photos under the same paths.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import re
import signal
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Any

import dolglab
from dolglab.data.addresses import VARIABLE
from dolglab.data.photos import PhotoFile
from dolglab.errors import UserError
from dolglab.library.local_engine import Described
from dolglab.library.ray_worker import Answer, Settings, Worker, is_readable
from dolglab.sharing.loading import LoadedExtractor

# A cluster of only this machine's cores, and the cluster that this machine is a node of.
LOCAL, AUTO = "local", "auto"
# Number of photos in a batch, whose work is lost with its worker.
BATCH_PHOTOS = 16
# How often a worker is replaced, so that a photo that crashes every worker is not retried forever.
REPLACED = 20
# Number of characters of Ray's error messages that are shown.
LINE = 240
# Seconds to wait for an address to answer.
ANSWER_SECONDS = 5
# Shared memory of a local cluster in bytes; it transfers names and descriptors, but no pixels.
STORE_BYTES = 256 * 2**20


def check_address(address: str) -> None:
    """Raise UserError if Ray is not installed, or no cluster answers."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray needs Ray: pip install 'dolglab[ray-data]'")
    if address == LOCAL:
        return
    if address != AUTO:
        _check_port(address)
    with _connected(address):
        pass


def _check_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UserError(f"--address takes HOST:PORT of a cluster's head, auto on a node of it, or local, not {address}")
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray answers at {address}: {error}") from error


def describe_files(
    loaded: LoadedExtractor,
    files: Iterable[PhotoFile],
    threads: int = 2,
    damaged: bool = False,
    local: Mapping[str, object] | None = None,
    backend: str = "auto",
    address: str = LOCAL,
) -> Iterator[Described]:
    """The results for files, as from `local_engine.describe_files`, in the order in which workers finish.

    Args:
        loaded: the network on this machine; workers load it by its address.
        threads: number of threads per worker that read and decode.
        damaged: as in `local_engine.describe_files`.
        local: the kind of local features to compute too, see `SpatialVerifier.config`; None for none.
        backend: see `load_extractor`.
        address: HOST:PORT of a cluster's head, "auto" for the cluster that this machine is a node of, "local" for this
            machine's own cores.

    Raises UserError if the cluster does not answer, or if a node lacks the network or cannot read the photos.
    """
    files = iter(files)
    batches = [pickle.dumps(batch) for batch in iter(lambda: list(islice(files, BATCH_PHOTOS)), [])]
    if not batches:
        return
    allowed = os.environ.get(VARIABLE, "")
    settings = Settings(loaded.identity, backend, threads, damaged, allowed, local, loaded.adapter)
    with _connected(address):
        import ray.data
        from ray.exceptions import RayError

        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if backend != "onnx" else 0
        workers = gpus or int(resources.get("CPU", 0))
        if not workers:
            raise UserError(f"the Ray cluster at {address} has no CPUs: start nodes first")
        answers = ray.data.from_items([{"files": batch} for batch in batches], override_num_blocks=len(batches))
        with warnings.catch_warnings():
            # The warning is about `max_restarts`, which Ray Data takes in no other way.
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            answers = answers.map_batches(
                Worker,
                batch_size=1,
                batch_format="pyarrow",
                fn_constructor_args=[settings],
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(batches)), max_tasks_in_flight_per_actor=2),
                num_cpus=1,
                num_gpus=1 if gpus else 0,
                max_restarts=REPLACED,
            )
        try:
            for row in answers.iter_rows():
                yield from _described(pickle.loads(row["answer"]))
        except RayError as error:
            said = str(error).strip() or type(error).__name__
            node = re.search(r"ip=([^,)\s]+)", said)
            line = shorten(said.splitlines()[-1], LINE)
            raise UserError(f"Ray{f', node {node[1]}' if node else ''}: {line}") from error


def _described(answer: Answer) -> list[Described]:
    """The results in a node's answer. Raises UserError for a problem of the node, not of a photo."""
    if answer.mistake is not None:
        raise UserError(f"{answer.node}: {answer.mistake}")
    for name in filter(is_readable, answer.unseen):
        raise UserError(f"{answer.node} cannot read {name!r}, which this machine can: nodes need the same paths")
    return answer.described


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """A connection to a cluster, without its logs. Raises UserError if it does not answer."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_LOG_LEVEL": "CRITICAL", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == LOCAL:
        # This makes Ray listen only on the loopback address, on Linux too.
        quiet["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # Workers run this code, wherever it was imported from.
        code = str(Path(dolglab.__file__).parents[1])
        quiet["PYTHONPATH"] = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    else:
        # Otherwise it would keep trying for minutes.
        quiet |= {"RAY_gcs_server_port_wait_time_s": "1", "RAY_py_gcs_connect_timeout_s": str(ANSWER_SECONDS)}
    os.environ |= quiet
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    stops = signal.getsignal(signal.SIGTERM)
    try:
        with _no_stderr():
            ray.init(address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray answers at {address}: {str(error).splitlines()[0]}") from error
    # With Ray's own handler, SIGTERM would abort the process.
    signal.signal(signal.SIGTERM, stops)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Suppress messages that C++ code writes to standard error, regardless of log levels."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
