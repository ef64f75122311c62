#!/usr/bin/env bash
# Checks and measures spikenorm on a GPU, from what scripts/gpu-pack.mjs gathered. Needs an NVIDIA driver, and neither cargo
# nor npm nor network. Everything goes on after a failure; the summary comes last.
set -uo pipefail

usage() {
  cat <<'TEXT'
Checks and measures spikenorm on a GPU, from prebuilt artefacts.

  scripts/gpu-check.sh [options] [output folder]

  --only <parts>    of golden,device,sanitizer,plans,bench   (default: all)
  --minutes <m>     at most for each part                    (default: 8)
  --from <file>     what scripts/gpu-pack.mjs made           (default: beside this script, or .cache/gpu-check/)
  --python <path>   a Python with PyTorch, for the peers     (default: python3, where it has torch)
  --device <name>   cuda or cuda:<n>                         (default: cuda)
  --quick           small shapes and few samples
  --bench-args "…"  further options of the benchmark
  --help

golden      the golden cases, and every other test that runs on any device
device      the launcher's tests
sanitizer   the launcher's tests under compute-sanitizer: memcheck, racecheck, synccheck, initcheck
plans       what every plan of the batch norms takes, beside what the cost model takes it for
bench       the benchmark, beside PyTorch and SpikingJelly where a Python has them

The output folder is $OUT, or gpu-check-output. Exit status: 0 all good, 1 something failed, 2 wrong usage, 3 no GPU here.
TEXT
}

say() { printf '%s\n' "$*"; }
wrong() {
  say "gpu-check: $*" >&2
  exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
only=golden,device,sanitizer,plans,bench
minutes=8
from=
python=python3
device=cuda
quick=
bench_args=
out=${OUT:-gpu-check-output}
while (($#)); do
  case $1 in
  --help | -h) usage; exit 0 ;;
  --quick) quick=--quick ;;
  --only | --minutes | --from | --python | --device | --bench-args)
    (($# > 1)) || wrong "$1 needs a value; see --help"
    case $1 in
    --only) only=$2 ;;
    --minutes) minutes=$2 ;;
    --from) from=$2 ;;
    --python) python=$2 ;;
    --device) device=$2 ;;
    --bench-args) bench_args=$2 ;;
    esac
    shift
    ;;
  -*) wrong "unknown option $1; see --help" ;;
  *) out=$1 ;;
  esac
  shift
done
[[ $minutes =~ ^[0-9]+([.][0-9]+)?$ ]] || wrong "--minutes takes a number, not '$minutes'"
for part in ${only//,/ }; do
  [[ " golden device sanitizer plans bench " == *" $part "* ]] || wrong "--only: no part '$part'; see --help"
done
seconds=$(awk -v m="$minutes" 'BEGIN { printf "%d", m * 60 }')

mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
if [[ -z $from ]]; then
  for candidate in "$here/gpu-check.tar.xz" "$here/../.cache/gpu-check/gpu-check.tar.xz"; do
    [[ -f $candidate ]] && from=$candidate && break
  done
fi
[[ -f $from ]] || wrong "no gpu-check.tar.xz here; run node scripts/gpu-pack.mjs where the project is built, or give --from"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
# Python reads xz where tar has no xz to call.
tar -C "$tree" -xJf "$from" 2>/dev/null ||
  "$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$from" "$tree" ||
  { say "gpu-check: cannot unpack $from"; exit 1; }
cd "$tree" || exit 1
SPIKENORM_COMMIT=$(cat COMMIT)
export SPIKENORM_COMMIT
node=$tree/bin/node
chmod +x bin/node bin/plans bin/device-tests/*

reason=$("$node" --input-type=module -e "
import { cuda } from 'spikenorm'
const reason = cuda.unavailableReason()
if (reason) { console.log(reason); process.exit(3) }
" 2>&1) || {
  say "gpu-check: no NVIDIA driver that can be used: $reason" | tee "$out/summary.txt"
  exit 3
}

summary=()
failed=0
# part NAME STATUS SECONDS REMARK
note() {
  local verdict="ok"
  case $2 in
  0) ;;
  124 | 137) verdict="OUT OF TIME" failed=1 ;;
  skipped) verdict="skipped" ;;
  *) verdict="FAILED ($2)" failed=1 ;;
  esac
  summary+=("$(printf '%-22s %-14s %6s s  %s' "$1" "$verdict" "$3" "$4")")
}

# Runs a command under the time limit, its output in a file; the end of it is shown. limited SECONDS FILE COMMAND…
limited() {
  local limit=$1 file=$2
  shift 2
  timeout -k 20 "$limit" "$@" >>"$file" 2>&1
}

begin() {
  say ""
  say "== $1"
  started=$SECONDS
}

part_golden() {
  begin 'tests on every device'
  local log=$out/golden.log tests
  : >"$log"
  mapfile -t tests < <(grep -l describeOnDevices test/*.test.js)
  limited "$seconds" "$log" "$node" --test --test-reporter=tap "${tests[@]}"
  local status=$?
  local counted
  counted=$(grep -E '^# (tests|pass|fail|skipped) ' "$log" | tr -d '#' | tr '\n' ';')
  grep -E '^ *not ok' "$log" | head -20
  note golden "$status" $((SECONDS - started)) "$counted"
}

# All of the launcher's tests, under a tool or none. device_tests SECONDS LOG [TOOL…]
device_tests() {
  local until=$((SECONDS + $1)) log=$2 status=0 worst=0 tests
  shift 2
  for tests in bin/device-tests/*; do
    limited $((until > SECONDS ? until - SECONDS : 1)) "$log" "$@" "$tests" --test-threads=1 --nocapture
    status=$?
    ((status > worst)) && worst=$status
  done
  return "$worst"
}

part_device() {
  begin 'tests of the launcher'
  local log=$out/device.log
  : >"$log"
  device_tests "$seconds" "$log"
  local status=$?
  grep -E '^(test result|test .*FAILED|SKIPPED)' "$log"
  # The tests skip where they find no device, which here would be a failure in disguise.
  grep -q '^SKIPPED' "$log" && status='the tests skipped themselves'
  note device "$status" $((SECONDS - started)) "$(passed "$log")"
}

passed() { grep -Eo '[0-9]+ passed; [0-9]+ failed' "$1" | awk '{ p += $1; f += $3 } END { print p + 0 " passed, " f + 0 " failed" }'; }

part_sanitizer() {
  local log tool status sanitizer
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -1)
  for tool in memcheck racecheck synccheck initcheck; do
    begin "$tool"
    if [[ -z $sanitizer ]]; then
      say 'compute-sanitizer is not here'
      note "sanitizer $tool" skipped 0 'compute-sanitizer is not on this machine'
      continue
    fi
    log=$tree/$tool.log
    SPIKENORM_SMALL=1 device_tests $((seconds / 4 + 1)) "$log" "$sanitizer" --tool "$tool" --error-exitcode 9
    status=$?
    { say "== $tool"; cat "$log"; } >>"$out/sanitizer.log"
    grep 'SUMMARY' "$log"
    note "sanitizer $tool" "$status" $((SECONDS - started)) "$(passed "$log")"
  done
}

part_plans() {
  begin 'plans'
  local log=$out/plans.log status
  : >"$log"
  limited "$seconds" "$log" bin/plans --csv "$out/plans.csv" ${quick:+--chosen}
  status=$?
  cat "$log"
  note plans "$status" $((SECONDS - started)) "$(($(wc -l <"$out/plans.csv") - 1)) plans timed"
}

# benchmark NAME SHARE OPTIONS…: a run with a share (in percent) of the time. It stops by itself and writes what it has; the
# limit is for what hangs.
benchmark() {
  local name=$1 share=$2 log=$out/bench.log status
  shift 2
  begin "$name"
  local allowed
  allowed=$(awk -v m="$minutes" -v s="$share" 'BEGIN { printf "%.2f", m * s / 100 }')
  : >"$tree/run.log"
  # shellcheck disable=SC2086
  limited $((seconds * share / 100 + 60)) "$tree/run.log" "$node" bench/main.js --device "$device" --python "$python" \
    --minutes "$allowed" --json "$out/$name.json" "$@" $quick $bench_args
  status=$?
  { say "== $name"; cat "$tree/run.log"; } >>"$log"
  tail -15 "$tree/run.log"
  note "$name" "$status" $((SECONDS - started)) "$(grep -c '^not measured' "$tree/run.log") cases not measured"
}

part_bench() {
  local peers=none
  : >"$out/bench.log"
  export PYTHONPATH=$tree/site${PYTHONPATH:+:$PYTHONPATH}
  if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    peers=pytorch,cudnn,channels-last,spikingjelly
  else
    say "$python has no PyTorch with a GPU: no peers"
  fi
  benchmark bench 60 --dtype float32,float16 --seconds 0.5 --peers "$peers"
  benchmark bench-suites 20 --suite scaling,training --seconds 0.5 --peers "${peers/#pytorch*/torch}"
  # It compiles for seconds for each shape, so it gets few.
  [[ $peers == none ]] || benchmark bench-compile 20 --dtype float16 --cache cold --seconds 0.5 --peers compile,spikingjelly \
    --shape 4,32,64,56x56 --shape 4,32,256,14x14 --shape 4,128,512,4x4
}

for part in golden device sanitizer plans bench; do
  if [[ ,$only, == *,$part,* ]]; then "part_$part"; fi
done

{
  say ""
  say "spikenorm $SPIKENORM_COMMIT on $(command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -1 || say 'a GPU that nvidia-smi does not name')"
  printf '%s\n' "${summary[@]}"
  say "output: $out"
} | tee "$out/summary.txt"
exit "$failed"
