"""Generated videos against ground truth: what is compared, the metrics, the table, the page, and sheets for human raters."""
