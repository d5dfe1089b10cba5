"""What coordinator and devices agree on for finding each other by multicast DNS on a home network.

Does not cover: announcing (coordinator/membership/announcement.py), looking (shardnode/membership/discovery.py). What
is said is believed as a place to look and nothing more: whose authority a token names is decided by its hash.
Source: RFC 6762, RFC 6763.
"""

SERVICE_TYPE = "_shardmesh._tcp.local."
