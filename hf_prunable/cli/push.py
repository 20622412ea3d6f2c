"""The command `hf-prunable push`."""

from ..hub import main


if __name__ == "__main__":
    main()
