"""Self-supervised correspondence: twelve systems, one propagator.

In reading order: ``encoder`` and ``preactivation`` (networks), ``checkpoint`` (released
files), ``inputs`` (colours and sizes), ``method`` (what all systems share), ``systems`` (each of
them; ``uvc`` with ``tracking``, ``mamp`` and ``rpmnet`` with ``online`` are by themselves),
``pretext`` (what each is trained for).
"""

from methods.correspondence import mamp as mamp
from methods.correspondence import rpmnet as rpmnet
from methods.correspondence import systems as systems
from methods.correspondence import uvc as uvc
