"""``python -m robustbench_tin`` runs ``robust-tin``."""

from robustbench_tin.cli.app import main

main()
