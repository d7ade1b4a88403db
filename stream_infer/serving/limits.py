"""Bounds of the HTTP server that are no settings, each with its unit."""

WAITING_EVENTS_MAX = 4_000
"""Events that wait to be scored before requests are refused with 503."""
BATCH_EVENTS_MAX = 128
"""Events scored together, except that one request always fits: more cost little less each, and what
comes meanwhile waits."""
LIVE_QUEUE_EVENTS_MAX = 1_000
"""Live events that wait for one follower; beyond them the oldest are lost, and it is told."""
LIVE_HEARTBEAT_S = 15.0
"""Time between two comments on a live stream on which nothing happens."""
LIVE_SEND_TIMEOUT_S = 30.0
"""How long one send to a follower may take before its connection is closed."""
LIVE_BEHIND_RECORDS_MAX = 50_000
"""Records the follower of the result topics may lie behind before it jumps to the end."""
LIVE_SUMMARIES_MAX = 300
"""Seconds of summaries kept for a follower that comes anew."""

HEADERS_TIMEOUT_S = 10.0
"""How long a connection may take to send a request's headers."""
KEEP_ALIVE_TIMEOUT_S = 75
"""How long an idle connection stays open."""
FAREWELL_S = 1.0
"""How long a stopping server still answers on idle connections, before it closes them."""
CONNECTIONS_MAX = 3_000
"""Connections at a time, live followers apart; on one more, the answer is 503 and its end."""
OPEN_FILES_SPARE = 200
"""Open files that a server needs besides its connections."""
RETRY_AFTER_S = 1
"""What `Retry-After` says when a request is refused for now."""
PARTITIONS_REFRESH_S = 5.0
"""Time between two looks at the number of partitions that the stored state was made with."""
CHECK_TIMEOUT_S = 2.0
"""How long a readiness check may wait for a dependency."""
EXPLAIN_EVENTS_MAX = 1
"""Events explained in one request."""
