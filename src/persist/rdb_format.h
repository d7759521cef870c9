/* rdb_format.h: the numbers of the RDB format, for the files of this folder. */
#ifndef COVEY_PERSIST_RDB_FORMAT_H
#define COVEY_PERSIST_RDB_FORMAT_H

/* The byte that says how a value is laid out. */
enum rdb_type {
    RDB_STRING = 0,
    RDB_LIST = 1,
    RDB_SET = 2,
    RDB_ZSET = 3, /* scores as text */
    RDB_HASH = 4,
    RDB_ZSET_2 = 5, /* scores as IEEE doubles */
    RDB_MODULE_PRE_GA = 6,
    RDB_MODULE_2 = 7,
    RDB_HASH_ZIPMAP = 9,
    RDB_LIST_ZIPLIST = 10,
    RDB_SET_INTSET = 11,
    RDB_ZSET_ZIPLIST = 12,
    RDB_HASH_ZIPLIST = 13,
    RDB_LIST_QUICKLIST = 14,
    RDB_STREAM = 15,
    RDB_HASH_LISTPACK = 16,
    RDB_ZSET_LISTPACK = 17,
    RDB_LIST_QUICKLIST_2 = 18,
    RDB_STREAM_2 = 19,
    RDB_SET_LISTPACK = 20,
    RDB_STREAM_3 = 21,
    RDB_TYPE_COUNT = 22,
};

enum rdb_opcode {
    RDB_OP_SLOT_INFO = 0xf4,
    RDB_OP_FUNCTION = 0xf5,
    RDB_OP_FUNCTION_PRE_GA = 0xf6,
    RDB_OP_MODULE_AUX = 0xf7,
    RDB_OP_IDLE = 0xf8,
    RDB_OP_FREQ = 0xf9,
    RDB_OP_AUX = 0xfa,
    RDB_OP_RESIZEDB = 0xfb,
    RDB_OP_EXPIRE_MS = 0xfc,
    RDB_OP_EXPIRE_S = 0xfd,
    RDB_OP_SELECTDB = 0xfe,
    RDB_OP_EOF = 0xff,
};

/* First bytes of lengths and strings. */
enum { RDB_LEN_14 = 0x40, RDB_LEN_32 = 0x80, RDB_LEN_64 = 0x81 };
enum { RDB_ENC_INT8 = 0xc0, RDB_ENC_INT16 = 0xc1, RDB_ENC_INT32 = 0xc2, RDB_ENC_LZF = 0xc3 };

enum { RDB_NODE_PLAIN = 1, RDB_NODE_PACKED = 2 }; /* containers of RDB_LIST_QUICKLIST_2 */

enum { RDB_MAGIC_BYTES = 9, RDB_FOOTER_BYTES = 10, STREAM_ID_BYTES = 16 };

/* Little-endian, at any address; the compiler makes one load or store of them. */
static inline void put_le(unsigned char *p, unsigned long long v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> (8 * i));
}

static inline unsigned long long get_le(const unsigned char *p, unsigned bytes)
{
    unsigned long long v = 0;
    for (unsigned i = 0; i < bytes; i++) v |= (unsigned long long)p[i] << (8 * i);
    return v;
}

#endif
