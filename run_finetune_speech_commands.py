from hf_prunable.cli.finetune_speech_commands import main


if __name__ == "__main__":
    main()
