#!/usr/bin/env bash
# faiss 1.15.1: merge_from joins RaBitQ indexes of different means without a word, and the joined one finds less.
#
# Who it hurts: whoever builds one-bit codes by parts (a folder, a shard, a day each) and joins them. Codes hold what a
# vector differs by from the mean of its own part; the joined index keeps the first part's mean for all of them.
# Expected: an error, as other kinds give where they are not compatible, or codes that fit the one mean.
# Seen: no error; of the first ten neighbours, far fewer are among the first hundred answers than by one index over all,
# and than by both parts asked apart, their answers joined by their estimates.
# What helps: ask the parts apart, or code the vectors anew.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6

cat > program.py << 'EOF'
import faiss
import numpy as np

rng = np.random.default_rng(0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def coded(vectors):
    index = faiss.IndexRaBitQ(128, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def share(found):
    return np.mean([np.isin(few, many).mean() for few, many in zip(exact, found)])


parts = [unit(rng.normal(size=(4000, 128)) + rng.normal(size=128)) for _ in range(2)]
vectors = np.concatenate(parts)
queries = unit(parts[1][:200] + 0.05 * rng.normal(size=(200, 128)))
exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
whole, (first, second) = coded(vectors), map(coded, parts)
answers = [index.search(queries, 100) for index in (first, second)]
estimates = np.concatenate([answers[0][0], answers[1][0]], axis=1)
places = np.concatenate([answers[0][1], answers[1][1] + 4000], axis=1)
apart = np.take_along_axis(places, np.argsort(-estimates, axis=1)[:, :100], axis=1)
first.merge_from(second)
print(f"one index {share(whole.search(queries, 100)[1]):.2f}")
print(f"asked apart {share(apart):.2f}")
print(f"joined {share(first.search(queries, 100)[1]):.2f}")
EOF

said=$(venv/bin/python program.py)
echo "$said"
echo "expected: an error, or joined about as much as one index"
read -r one joined < <(awk '/one index/ {a = $3} /joined/ {b = $2} END {print a, b}' <<< "$said")
if awk "BEGIN {exit !($joined < $one - 0.15)}"; then
  echo "seen as described"
else
  echo "this has changed" >&2
  exit 1
fi
