"""Re-ranking of a query's first answers; each is a `contracts.Reranker`, and says in `config()` what it did."""
