"""`python -m stream_infer.cli`: the same as the program `stream-infer`."""

from stream_infer.cli.app import main

if __name__ == "__main__":
    main()
