"""One active gateway per cluster: a record on etcd, renewed by compare-and-swap, and who may act on it."""
