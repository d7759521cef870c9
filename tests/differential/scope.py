"""What the differential test must exercise: every command of COMMAND LIST but those named here, each with the reason.

A container's subcommand is written CONTAINER|SUB.  test_differential.py fails when a command is in neither."""

VALID_FULL, ERROR_FULL = 500, 100  # calls of every command in the full run: answered, and failed in execution

# Random calls would end, empty or reconfigure a server, or have nothing to compare; tested in the files named.
EXEMPT = {
    "BGREWRITEAOF": "tests/system/test_aof.py",
    "BGSAVE": "whether one is running is a matter of time: tests/system/test_persistence.py",
    "CONFIG|REWRITE": "writes the oracle's file: tests/system/test_start.py",
    "DEBUG": "each server's own inside: tests/system",
    "FAILOVER": "tests/system/test_failover_command.py",
    "MONITOR": "test_bystanders.py",
    "PFSELFTEST": "takes the oracle seconds; called with an error only",
    "PSYNC": "turns the connection into a replica's: tests/system/test_replication.py",
    "REPLCONF": "of replicas: tests/system/test_replication.py",
    "REPLICAOF": "tests/system/test_replication.py",
    "SAVE": "tests/system/test_persistence.py",
    "SCRIPT|DEBUG": "not in a pipeline, and forks the oracle; what Covey says: docs/compatibility.md",
    "SHUTDOWN": "tests/system/test_persistence.py",
    "SLAVEOF": "tests/system/test_replication.py",
    "SYNC": "turns the connection into a replica's: tests/system/test_replication.py",
    "CLUSTER|ADDSLOTS": "tests/system/test_cluster_commands.py",
    "CLUSTER|ADDSLOTSRANGE": "tests/system/test_cluster_commands.py",
    "CLUSTER|BUMPEPOCH": "tests/system/test_cluster_commands.py",
    "CLUSTER|DELSLOTS": "tests/system/test_cluster_commands.py",
    "CLUSTER|DELSLOTSRANGE": "tests/system/test_cluster_commands.py",
    "CLUSTER|FAILOVER": "tests/system/test_cluster.py",
    "CLUSTER|FLUSHSLOTS": "tests/system/test_cluster_commands.py",
    "CLUSTER|FORGET": "tests/system/test_cluster.py",
    "CLUSTER|MEET": "tests/system/test_cluster.py",
    "CLUSTER|REPLICATE": "tests/system/test_cluster.py",
    "CLUSTER|RESET": "tests/system/test_cluster_commands.py",
    "CLUSTER|SAVECONFIG": "tests/system/test_cluster_commands.py",
    "CLUSTER|SET-CONFIG-EPOCH": "tests/system/test_cluster_commands.py",
    "CLUSTER|SETSLOT": "tests/system/test_slots.py",
    "CLIENT|PAUSE": "stops the run: test_bystanders.py",
    "CLIENT|REPLY": "leaves nothing to read: test_bystanders.py",
}

# Of Redis 7.2, unknown to the oracle.
NEWER = {
    "CLIENT|NO-TOUCH": "tests/system/test_later_commands.py",
    "CLIENT|CROSSSLOT": "tests/system/test_cross_slot.py",
    "CLIENT|MIN-REPLICAS-TO-ACK": "tests/system/test_noloss.py",
    "CLIENT|SETINFO": "tests/system/test_later_commands.py",
    "CLUSTER|MYSHARDID": "tests/system/test_shards.py",
    "WAITAOF": "tests/system/test_aof.py",
}

# Whatever the arguments, a valid call cannot be made here.
NO_VALID = {
    "ACL|LOAD": "there is no file of users",
    "ACL|SAVE": "there is no file of users",
    "CLIENT|CACHING": "only for a connection with tracking: tests/system/test_tracking.py",
    "LATENCY|GRAPH": "there are no events to draw: tests/system/test_observe.py",
    "MODULE|LOAD": "no modules",
    "MODULE|LOADEX": "no modules",
    "MODULE|UNLOAD": "no modules",
    "OBJECT|FREQ": "needs an LFU policy",
    "SCRIPT|KILL": "no script is running",
    "FUNCTION|KILL": "no function is running",
    "CLUSTER|COUNT-FAILURE-REPORTS": "names of nodes are each server's own",
    "CLUSTER|REPLICAS": "names of nodes are each server's own",
    "CLUSTER|SLAVES": "names of nodes are each server's own",
}

# Where else they are refused.
ONLY_STANDALONE = {"MOVE", "SWAPDB"}
ONLY_CLUSTER = set(
    """ASKING CLUSTER|COUNTKEYSINSLOT CLUSTER|GETKEYSINSLOT CLUSTER|HELP CLUSTER|INFO CLUSTER|KEYSLOT CLUSTER|LINKS CLUSTER|MYID CLUSTER|NODES
    CLUSTER|SHARDS CLUSTER|SLOTS READONLY READWRITE""".split()
)

# Once the number of arguments is right, these cannot fail; calls refused for the number count instead.
ONLY_REJECTED = set(
    """ACL|GETUSER ACL|HELP ACL|LIST ACL|USERS ACL|WHOAMI ASKING CLIENT|GETNAME CLIENT|GETREDIR CLIENT|HELP CLIENT|ID
    CLIENT|INFO CLIENT|TRACKINGINFO CLIENT|UNPAUSE COMMAND|COUNT COMMAND|HELP CONFIG|GET CONFIG|HELP CONFIG|RESETSTAT
    DBSIZE DEL DUMP ECHO EXISTS EXPIRETIME FLUSHALL FLUSHDB FUNCTION|DUMP FUNCTION|HELP FUNCTION|STATS KEYS LASTSAVE LATENCY|DOCTOR
    LATENCY|HELP LATENCY|HISTORY LATENCY|LATEST MEMORY|DOCTOR MEMORY|HELP MEMORY|MALLOC-STATS MEMORY|PURGE MEMORY|STATS
    MGET MODULE|HELP MODULE|LIST MSET MSETNX OBJECT|ENCODING OBJECT|HELP OBJECT|IDLETIME OBJECT|REFCOUNT PERSIST
    PEXPIRETIME PING PTTL PUBLISH PUBSUB|CHANNELS PUBSUB|HELP PUBSUB|NUMPAT PUBSUB|SHARDCHANNELS RANDOMKEY READONLY
    READWRITE ROLE SCRIPT|EXISTS SCRIPT|HELP SETNX SLOWLOG|HELP SLOWLOG|LEN SLOWLOG|RESET SPUBLISH TIME TOUCH TTL TYPE
    UNLINK UNWATCH WATCH XGROUP|HELP XINFO|HELP""".split()
)
# The same, in cluster mode; in the other mode they are all refused.
ONLY_REJECTED_IN_CLUSTER = ONLY_CLUSTER - {"CLUSTER|COUNTKEYSINSLOT", "CLUSTER|GETKEYSINSLOT"}
# Take any arguments.
NO_ERROR = set(
    """COMMAND COMMAND|DOCS COMMAND|INFO INFO LATENCY|HISTOGRAM LATENCY|RESET PUBSUB|NUMSUB PUBSUB|SHARDNUMSUB PUNSUBSCRIBE
    QUIT UNSUBSCRIBE""".split()
)

# Commands after which the replies are not one to each command, or the connection is another: test_dialogue.py runs them.
DIALOGUE = set(
    """AUTH CLIENT|TRACKING HELLO PSUBSCRIBE PUNSUBSCRIBE QUIT RESET SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE""".split()
)
