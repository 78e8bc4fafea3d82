"""``python -m fastgc``."""

from fastgc.cli import main

if __name__ == "__main__":
    main()
