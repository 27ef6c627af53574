#!/bin/sh
# Others than this container may connect, as in the image that this one stands for.
set -eu

umask 0077
exec "$@" --protected-mode no
