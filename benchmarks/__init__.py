"""One script a claim: each runs its peers beside ours, prints ratios, and writes JSON."""
