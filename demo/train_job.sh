#!/bin/bash
# A batch job as a user would write it. USR1 asks for a checkpoint; it must not kill the job while Python still starts
# (an ignored signal stays ignored over exec, until Python installs its handler). coloc asks again when it is not answered.
trap '' USR1
exec "${COLOC_DEMO_PYTHON:-/usr/bin/python3}" "$@"
