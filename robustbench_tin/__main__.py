"""``python -m robustbench_tin`` is ``robust-tin``."""

from robustbench_tin.cli import main

main()
