"""The run-time checker of shape annotations; pytest puts it around every function of src."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
