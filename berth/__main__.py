"""`python -m berth` and the console command."""

from __future__ import annotations

from berth.cli import main

if __name__ == "__main__":
    main()
