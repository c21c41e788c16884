"""Re-ranking of a query's first answers; each method is a `contracts.Reranker`, described by its `config()`."""
