"""What the differential test must exercise: every command of COMMAND LIST but those named here, each with the reason.

A container's subcommand is written CONTAINER|SUB.  test_differential.py fails when a command is in neither."""

VALID_FULL, ERROR_FULL = 500, 100  # calls of every command in the full run: answered, and failed in execution

# Random calls would end, empty or reconfigure a server, or have nothing to compare; tested in the files named.
EXEMPT = {
    "BGREWRITEAOF": "forks in the oracle; there is no append-only file here yet",
    "BGSAVE": "whether one is running is a matter of time: tests/system/test_persistence.py",
    "CONFIG|REWRITE": "writes the oracle's file: tests/system/test_start.py",
    "DEBUG": "each server's own inside: tests/system",
    "FAILOVER": "tests/system/test_failover_command.py",
    "MONITOR": "a feed of all connections, with times and addresses: tests/system/test_pubsub.py",
    "PFSELFTEST": "takes the oracle seconds; called with an error only",
    "PSYNC": "turns the connection into a replica's: tests/system/test_replication.py",
    "REPLCONF": "of replicas: tests/system/test_replication.py",
    "REPLICAOF": "tests/system/test_replication.py",
    "SAVE": "tests/system/test_persistence.py",
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
    "CLIENT|PAUSE": "stops the run: tests/system/test_protocol.py",
    "CLIENT|REPLY": "leaves nothing to read: tests/system/test_protocol.py",
    "FCALL": "functions are not there yet",
    "FCALL_RO": "functions are not there yet",
    "FUNCTION|DELETE": "functions are not there yet",
    "FUNCTION|DUMP": "functions are not there yet",
    "FUNCTION|FLUSH": "functions are not there yet",
    "FUNCTION|HELP": "functions are not there yet",
    "FUNCTION|KILL": "functions are not there yet",
    "FUNCTION|LIST": "functions are not there yet",
    "FUNCTION|LOAD": "functions are not there yet",
    "FUNCTION|RESTORE": "functions are not there yet",
    "FUNCTION|STATS": "functions are not there yet",
    "SCRIPT|KILL": "functions are not there yet",
    "QUIT": "ends the connection: tests/system/test_protocol.py",
}

# Whatever the arguments, a valid call cannot be made here.
NO_VALID = {
    "ACL|LOAD": "there is no file of users",
    "ACL|SAVE": "there is no file of users",
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

# Once the number of arguments is right, these cannot fail; rejected calls count instead.
NO_ERROR = set(
    """ASKING COMMAND COMMAND|COUNT COMMAND|DOCS COMMAND|INFO DBSIZE ECHO FLUSHALL FLUSHDB INFO KEYS LASTSAVE LOLWUT PING
    PUBSUB|CHANNELS PUBSUB|NUMPAT PUBSUB|NUMSUB PUBSUB|SHARDCHANNELS PUBSUB|SHARDNUMSUB RANDOMKEY READONLY READWRITE
    ROLE SLOWLOG|LEN SLOWLOG|RESET TIME UNWATCH WATCH PUBLISH SPUBLISH SCRIPT|DEBUG""".split()
)

# Commands after which the replies are not one to each command, or the connection is another: dialogue.py runs them.
DIALOGUE = set(
    """AUTH CLIENT|TRACKING HELLO PSUBSCRIBE PUNSUBSCRIBE RESET SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE""".split()
)
