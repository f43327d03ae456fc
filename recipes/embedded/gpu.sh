#!/usr/bin/env bash
# The embedded model on one rented GPU, a quarter of an hour: nothing to decide on the day.
#
# The machine has python3 with torch, numpy, pillow and tokenizers, but no network; it takes 64 MiB with
# each command (the tracked tree is 47 of them), and what a command leaves in $OUT comes back: 8 files of 16 MiB.
#
#   bash recipes/embedded/gpu.sh prepare   at home, beforehand: data/travel/ is filled (packages in pieces, wheels)
#   bash recipes/embedded/gpu.sh arrive    there, with data/travel/*.piece01 and the wheels: leaves them there
#   bash recipes/embedded/gpu.sh train     there, with data/travel/*.piece02 and *.pieces.json: pictures, latents, denoiser
#   bash recipes/embedded/gpu.sh student   there, at once afterwards: the few-step student of what was trained
#   bash recipes/embedded/gpu.sh home DIR  at home, for each folder that came back: model.safetensors, fast.safetensors
#
# Seconds: `train` ends after LIMIT (560), `student` after STUDENT_LIMIT (150). REHEARSE=1 does all of it on a CPU, small.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="src:.${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
OUT=${OUT:-runs/gpu/out}
TRAVEL=data/travel PACKAGES=${PACKAGES:-data/packages} PACK=runs/gpu/pack RUN=runs/gpu/denoiser STUDENT=runs/gpu/student
MODEL=src/stable_diffusion/embedded/model.safetensors
LIMIT=${LIMIT:-560} STUDENT_LIMIT=${STUDENT_LIMIT:-150}
MAKE="--size 256 --landscapes 4000 --placed 3000 --large 3000 --counted 2000"
MAKE+=" --shards objects art recoloured counted landscapes placed large"
TRAIN="" TEACH="--set batch_size=256 --set ways=4096 --set optimiser.warmup_steps=50" PYTHON=${PYTHON:-python3}
if [[ ${REHEARSE:-} ]]; then
  SMALL='--set precision=float32 --set size=64 --set log_every=1 --set sample_steps=2'
  MAKE="--size 64 --landscapes 64 --workers 1 --shards landscapes"
  TRAIN="$SMALL --set batch_size=4 --set compile=false --set channels_last=false --set data.styles=[\"scene\"] --set data.weights={}"
  TEACH="--set size=64 --set batch_size=4 --set ways=80 --set data.styles=[\"scene\"] --set data.weights={} --set log_every=1"
fi

say() { printf '[%4d s] %s\n' "$SECONDS" "$*"; }
minutes() { awk "BEGIN { m = ($1 - $SECONDS) / 60; print (m > 0.2 ? m : 0.2) }"; }

case ${1:-} in
prepare)
  "$PYTHON" -m recipes.embedded.data.travel pack --packages "$PACKAGES" --out $TRAVEL --piece-size 10
  "$PYTHON" -m pip download -q resvg-py==0.5.0 --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d $TRAVEL
  "$PYTHON" -m pip download -q "click>=8.1.7" --no-deps --only-binary=:all: -d $TRAVEL
  ls -l $TRAVEL
  ;;
arrive)
  mkdir -p runs/gpu/travel
  cp $TRAVEL/* runs/gpu/travel/
  "$PYTHON" -c "import torch, numpy, PIL, tokenizers; print(torch.__version__, torch.cuda.is_available())"
  ls -l runs/gpu/travel
  ;;
train)
  mkdir -p runs/gpu/travel "$OUT"
  cp $TRAVEL/* runs/gpu/travel/
  [[ ${REHEARSE:-} ]] || "$PYTHON" -m pip install -q --no-index --no-deps runs/gpu/travel/*.whl
  "$PYTHON" -m recipes.embedded.data.travel unpack runs/gpu/travel/packages.tar.xz.piece* --out runs/gpu/packages
  say "packages"
  # shellcheck disable=SC2086
  "$PYTHON" -m recipes.embedded.data --packages runs/gpu/packages --out $PACK --tokenizer $MODEL $MAKE
  say "pictures"
  # shellcheck disable=SC2086
  "$PYTHON" -m stable_diffusion train denoiser --data $PACK --out $RUN --config recipes/embedded/gpu_denoiser.toml \
    --minutes "$(minutes $((LIMIT - 25)))" --set vae_run=$MODEL --set text_run=$MODEL --set start_from=$MODEL \
    --set 'start_parts=["unet"]' $TRAIN
  say "denoiser"
  "$PYTHON" -m recipes.embedded.ship split $RUN --tokenizer $PACK/tokenizer.json --text-dtype int8 --out "$OUT"
  cp $RUN/log.jsonl $RUN/samples.png "$OUT"
  say "in $OUT: $(ls "$OUT" | tr '\n' ' ')"
  ;;
student)
  mkdir -p "$OUT"
  "$PYTHON" -m recipes.embedded.candidate $RUN --tokenizer $PACK --out runs/gpu/model.safetensors
  say "the teacher, packed"
  # shellcheck disable=SC2086
  "$PYTHON" -m stable_diffusion train student --data $PACK --out $STUDENT --config recipes/embedded/student.toml \
    --minutes "$(minutes $((STUDENT_LIMIT - 10)))" --set teacher=runs/gpu/model.safetensors --set guidance=2.0 $TEACH
  "$PYTHON" -m recipes.embedded.candidate $RUN --tokenizer $PACK --out runs/gpu/model.safetensors --student $STUDENT
  "$PYTHON" -c "import sys; from pathlib import Path; from recipes.embedded.pieces import write_pieces
write_pieces(Path(sys.argv[1]).read_bytes(), sys.argv[2], 'model.safetensors', size=15 << 20)" runs/gpu/model.safetensors "$OUT"
  cp runs/gpu/fast.safetensors "$OUT"
  cp $STUDENT/log.jsonl "$OUT/student.jsonl"
  cp $STUDENT/samples.png "$OUT/student.png"
  say "in $OUT: $(ls "$OUT" | tr '\n' ' ')"
  ;;
home)
  "$PYTHON" -m recipes.embedded.ship join "$2"/model.safetensors.piece* --out "$2/model.safetensors"
  say "$2/model.safetensors: judge it (recipes.embedded.judge), look at it, pack it to int8 (TRAINING.md)"
  ;;
*)
  sed -n '2,15s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
