"""Post-processing of descriptors: whitening, query expansion, database-side augmentation.

Each step is called as `step(gallery, queries, known)` and returns gallery and queries. `gallery` is (N, D) float32, in
memory or memory-mapped, `queries` (Q, D) float32, both L2-normalised on the way in and out; `known` is (N,), which
gallery images have a descriptor, None if all do. The others are zeros, which stay zeros and are nobody's neighbours.
`describe()` gives what a result card says of the step.
"""
