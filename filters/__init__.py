"""What is kept and what is not: one pure rule a file, each returning a reason, or None to keep."""
