"""From finished runs to numbers: metrics, distances of domains, statistics, tables, evidence."""
