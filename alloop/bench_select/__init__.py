"""Which way to choose labels needs fewest of them? Active learning replayed on a pool that is labelled already."""
