#!/usr/bin/env bash
# Fine-tuning that you can copy: a fresh head on a pretrained net, most of the backbone frozen, two
# learning rates, and a proof that what was frozen did not move.  Usage: examples/finetune.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")"
work=${1:-$(mktemp -d)}
mkdir -p "$work"

# 1. A pretrained net: here one is made, in your project it is a file.
python finetune.py pretrain "$work/pretrained.pth"

# 2. A new head; every other tensor is copied as it is. The same seed gives the same head.
modtool reinit finetune.py:Net --weights "$work/pretrained.pth" --pattern head \
  --scheme xavier_uniform --bias zeros --seed 0 -o "$work/fresh.pth"

# 3. Freeze the early part of the backbone; its norms stay in eval mode.
modtool freeze "$work/fresh.pth" backbone.early --bn-eval -o "$work/start.pth"

# 4. Train: the script asks the checkpoint what is frozen.
python finetune.py train "$work/start.pth" "$work/tuned.pth"

# 5. What was frozen is the same to the bit.
python finetune.py compare "$work/start.pth" "$work/tuned.pth"
