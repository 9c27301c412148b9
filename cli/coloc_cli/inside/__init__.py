"""What runs inside of batch jobs: the parts of the stand-alone program that `coloc sbatch` embeds in submitted scripts.

They are joined into one file by `coloc_cli.sbatch_wrap`, so they use Python 3.6 or later and its standard library only, and
import nothing of coloc but each other.
"""
