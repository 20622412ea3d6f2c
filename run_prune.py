from hf_prunable.cli.prune import main


if __name__ == "__main__":
    main()
