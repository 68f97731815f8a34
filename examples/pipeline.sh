#!/usr/bin/env bash
# A training pipeline that you can copy: stop if the model is too big, freeze a backbone, train,
# convert the result, and check that it loads.  Usage: examples/pipeline.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")"
work=${1:-$(mktemp -d)}
mkdir -p "$work"

# 1. Stop before anything is spent if the model has more parameters than fit.
limit=1000000
total=$(modtool count mlp.py --total)
if [ "$total" -gt "$limit" ]; then
  echo "the model has $total parameters, more than $limit" >&2
  exit 1
fi
echo "parameters: $total"

# 2. Freeze everything but the head; start.pth holds the weights and what is trained.
modtool freeze mlp.py 'fc*' -o "$work/start.pth"
echo "trainable: $(modtool count "$work/start.pth" --trainable)"

# 3. Train a few steps.
python train.py "$work/start.pth" "$work/ckpt.pth"

# 4. What is in the result, and how much of it is optimizer state?
modtool summary "$work/ckpt.pth"

# 5. Weights only, in a form that loads without pickle.
modtool convert "$work/ckpt.pth" --to safetensors -o "$work/model.safetensors"

# 6. The output loads into the model, name by name.
python - "$work/model.safetensors" <<'PY'
import sys
from mlp import MLP
from safetensors.torch import load_file

MLP().load_state_dict(load_file(sys.argv[1]))
print("the converted weights load")
PY
