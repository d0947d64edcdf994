"""`python -m taro_rt`: the same as the `taro-rt` command."""

from taro_rt.runtime.cli import app

if __name__ == "__main__":
    app(prog_name="taro-rt")
