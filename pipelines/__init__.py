"""The five stages as Apache Beam pipelines; `build.py` reads top to bottom."""
