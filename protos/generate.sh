#!/bin/sh
# Writes the Python code of the contract into the folder given (default: client/).
# The generator's versions are pinned in protos/constraints.txt: what grpcio-tools 1.71.2
# generates loads without warnings under protobuf 5.29 to 7.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../client}
python=${PYTHON:-python3}
mkdir -p "$out/fovea/v1"
rm -f "$out"/fovea/v1/*_pb2*.py "$out"/fovea/v1/*_pb2*.pyi
"$python" -m grpc_tools.protoc -I "$here" \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
  "$here"/fovea/v1/*.proto
# A file of messages alone gets an empty gRPC module, which nobody would import.
for module in "$out"/fovea/v1/*_pb2_grpc.py; do
  grep -q 'class .*Stub' "$module" || rm "$module" "${module}i"
done
