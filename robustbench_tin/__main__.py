"""``python -m robustbench_tin`` is ``robust-tin``."""

from robustbench_tin.cli.app import main

main()
