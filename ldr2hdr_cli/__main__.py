"""`python -m ldr2hdr_cli`, where the command is not on the path."""

from ldr2hdr_cli.app import main

if __name__ == "__main__":
    main()
