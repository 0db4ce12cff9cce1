"""The verbs that read results: compare, tables, leaderboard, report."""
