#!/usr/bin/env bash
# The rivals' own environment, benchmarks/rivals/.venv: nothing of it enters recurra's.
#     PYTHON=python3.11 benchmarks/rivals/make_env.sh
# torch comes first and with the project's own version, so that "beyond torch" means the same on both sides.
set -euo pipefail
python=$(command -v "${PYTHON:-python3}")
python=$(realpath -s "$python") # before the change of folder
cd "$(dirname "$0")"
"$python" -m venv .venv
.venv/bin/pip install --quiet --upgrade pip
.venv/bin/pip install --quiet torch==2.13.0
.venv/bin/pip freeze --all >.venv/torch-only.txt # what torch alone needs: the rest is what the rivals add
if [[ -f requirements.txt && -z "${UNPINNED:-}" ]]; then
    .venv/bin/pip install --quiet -r requirements.txt
else # UNPINNED=1: the newest of both, and their versions written down
    .venv/bin/pip install --quiet neuralforecast "darts[torch]"
    .venv/bin/pip freeze | sed "s/+cpu$//" >requirements.txt
fi
.venv/bin/pip check
