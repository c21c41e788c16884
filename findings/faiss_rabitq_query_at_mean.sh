#!/usr/bin/env bash
# faiss 1.15.1: IndexRaBitQFastScan with inner products returns no answers for a query that equals the mean of its
# vectors.
#
# Affected: searches among few or equal vectors. An index with one vector does not find that vector, and copies of one
# photo are not found by that photo. The answers are -1, as if there were too few vectors.
# Expected: all vectors, as returned by IndexRaBitQ (the same codes without fast scan) and by both indexes with L2.
# Observed: -1 and the lowest float. Cause: the difference between query and mean is zero, and so is the scale of its
# tables.
# Workaround: if the first answer is -1 and the index is not empty, return any vectors; their estimates are all equal.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6

cat > program.py << 'EOF'
import faiss
import numpy as np

for count in (1, 4):
    vectors = np.tile(np.eye(1, 128, dtype=np.float32), (count, 1))
    for kind in (faiss.IndexRaBitQ, faiss.IndexRaBitQFastScan):
        for name, metric in (("inner product", faiss.METRIC_INNER_PRODUCT), ("L2", faiss.METRIC_L2)):
            index = kind(128, metric)
            index.train(vectors)
            index.add(vectors)
            found = index.search(vectors[:1], count)[1][0]
            print(f"{count} equal, {kind.__name__}, {name}: {int((found >= 0).sum())} found")
EOF

said=$(venv/bin/python program.py)
echo "$said"
echo "expected: all of them found each time"
if [ "$(grep -c "FastScan, inner product: 0 found" <<< "$said")" = 2 ] && [ "$(grep -c ": 0 found" <<< "$said")" = 2 ]; then
  echo "observed as described"
else
  echo "the behaviour has changed" >&2
  exit 1
fi
