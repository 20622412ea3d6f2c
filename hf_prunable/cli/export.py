"""The command `hf-prunable export`."""

from ..export import main


if __name__ == "__main__":
    main()
