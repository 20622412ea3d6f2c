"""The command `hf-prunable superb`."""

from ..superb import main


if __name__ == "__main__":
    main()
