#!/usr/bin/env bash
# joblib 1.6.0: inside a job of its default backend (loky), Python's spawn and forkserver processes do not start.
#
# Affected: jobs of a joblib sweep (hydra-joblib-launcher, Optuna, scikit-learn) that start processes, such as a
# DataLoader with multiprocessing_context="spawn", which CUDA and threads require.
# Expected: get_context("spawn") works whatever the default start method is, as it does outside joblib.
# Observed: loky makes itself the default start method of its worker. The child process receives this default, does
# not know it ("cannot find context for 'loky'"), and ends with code 1 before it runs anything. fork works.
# Workaround: multiprocessing.set_start_method("spawn", force=True) in the job before the first process, or a job that
# is a subprocess, as in this project's sweeps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check joblib==1.6.0

cat > work.py << 'EOP'
import multiprocessing


def child():
    pass


def job(method, first=None):
    if first:
        multiprocessing.set_start_method(first, force=True)
    process = multiprocessing.get_context(method).Process(target=child)
    process.start()
    process.join(60)
    return process.exitcode
EOP
cat > program.py << 'EOP'
from joblib import Parallel, delayed

from work import job

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        (within,) = Parallel(n_jobs=2)([delayed(job)(method)])
        (helped,) = Parallel(n_jobs=2)([delayed(job)(method, method)])
        print(f"{method}: alone {job(method)}, in a job {within}, with that as default {helped}")
EOP

seen=$(venv/bin/python -W ignore program.py 2> errors)
echo "exit codes of a child that does nothing:"
echo "$seen"
echo "expected: 0 everywhere"
if [ "$seen" = "fork: alone 0, in a job 0, with that as default 0
spawn: alone 0, in a job 1, with that as default 0
forkserver: alone 0, in a job 1, with that as default 0" ] && grep -q "cannot find context for 'loky'" errors; then
  echo "observed as described"
else
  cat errors >&2
  echo "the behaviour has changed" >&2
  exit 1
fi
