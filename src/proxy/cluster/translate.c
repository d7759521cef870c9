#include "proxy/cluster/translate.h"

#include "base/mem.h"
#include "base/number.h"
#include "resp/resp.h"

enum { DEPTH_MAX = RESP_DEPTH_MAX };

/* ---- shapes ---- */

enum kind {
    ANY,      /* as it is, but for nulls */
    DOUBLE,   /* a number in a bulk */
    VERBATIM, /* text in a bulk */
    LIST,     /* an array of `each` */
    SET,      /* an array that is a set of `each` */
    MAP,      /* an array of names and values; a value is what `named` says of its name, else `each` */
    PAIRS,    /* a flat array that becomes an array of pairs; the second of each is `each` */
    TUPLE,    /* an array whose elements are `places`, the last for all that come behind */
};

struct shape;
struct named {
    const char *name;
    const struct shape *shape;
};

struct shape {
    enum kind kind;
    const struct shape *each;
    const struct named *named;         /* the last has no name */
    const struct shape *const *places; /* the last is NULL */
};

static const struct shape any = {ANY}, number = {DOUBLE}, text = {VERBATIM};
static const struct shape set = {SET, &any}, map = {MAP, &any};
static const struct shape numbers = {LIST, &number}, maps = {LIST, &map};
static const struct shape pairs = {PAIRS, &any}, scores = {PAIRS, &number};
static const struct shape member_and_score = {TUPLE, .places = (const struct shape *const[]){&any, &number, NULL}};
static const struct shape key_member_score = {TUPLE,
                                              .places = (const struct shape *const[]){&any, &any, &number, NULL}};
static const struct shape scored_members = {LIST, &member_and_score};
static const struct shape key_scored_members = {TUPLE,
                                                .places = (const struct shape *const[]){&any, &scored_members, NULL}};
static const struct shape positions = {LIST, &numbers};

/* XREAD: pairs of a stream's name and its entries. */
static const struct shape streams = {MAP, &any};

static const struct shape group = {MAP, &any, (const struct named[]){{"consumers", &maps}, {NULL, NULL}}};
static const struct shape groups = {LIST, &group};
static const struct shape full_stream = {MAP, &any, (const struct named[]){{"groups", &groups}, {NULL, NULL}}};

static const struct shape search = {MAP, &any, (const struct named[]){{"spec", &map}, {NULL, NULL}}};
static const struct shape key_spec = {
    MAP, &any,
    (const struct named[]){{"flags", &set}, {"begin_search", &search}, {"find_keys", &search}, {NULL, NULL}}};
static const struct shape key_specs = {SET, &key_spec};
static const struct shape command_infos;
static const struct shape command_info = {TUPLE, .places = (const struct shape *const[]){&any, &any, &set, &any, &any,
                                                                                         &any, &set, &set, &key_specs,
                                                                                         &command_infos, NULL}};
static const struct shape command_infos = {LIST, &command_info};
static const struct shape keys_and_flags = {
    LIST, &(const struct shape){TUPLE, .places = (const struct shape *const[]){&any, &set, NULL}}};

static const struct shape arguments;
static const struct shape argument = {MAP, &any,
                                      (const struct named[]){{"flags", &set}, {"arguments", &arguments}, {NULL, NULL}}};
static const struct shape arguments = {LIST, &argument};
static const struct shape all_docs;
static const struct shape docs = {
    MAP, &any,
    (const struct named[]){
        {"arguments", &arguments}, {"subcommands", &all_docs}, {"doc_flags", &set}, {"history", &set}, {NULL, NULL}}};
static const struct shape all_docs = {MAP, &docs};

static const struct shape function = {MAP, &any, (const struct named[]){{"flags", &set}, {NULL, NULL}}};
static const struct shape functions = {LIST, &function};
static const struct shape library = {MAP, &any, (const struct named[]){{"functions", &functions}, {NULL, NULL}}};
static const struct shape libraries = {LIST, &library};
static const struct shape engines = {MAP, &map};
static const struct shape function_stats = {
    MAP, &any, (const struct named[]){{"engines", &engines}, {"running_script", &map}, {NULL, NULL}}};

/* ---- writing ---- */

/* What is left of a reply; it is known to be whole. */
struct input {
    const char *p, *end;
};

static struct bytes take_line(struct input *in)
{
    const char *cr = memchr(in->p, '\r', (size_t)(in->end - in->p));
    if (!cr) cr = in->end;
    struct bytes line = bytes_make(in->p, (size_t)(cr - in->p));
    in->p = in->end - cr < 2 ? in->end : cr + 2;
    return line;
}

static int64_t length_of(struct bytes line)
{
    int64_t n;
    return parse_i64(bytes_make(line.p + 1, line.n - 1), &n) ? n : 0;
}

static struct bytes take_bulk(struct input *in, int64_t n)
{
    int64_t left = in->end - in->p;
    if (n > left - 2) n = left < 2 ? 0 : left - 2;
    struct bytes b = bytes_make(in->p, (size_t)n);
    in->p += left < n + 2 ? left : n + 2;
    return b;
}

static void write_value(struct input *in, const struct shape *s, struct buf *out, int depth);

static const struct shape *shape_of_name(const struct shape *s, struct bytes name)
{
    for (const struct named *n = s->named; n && n->name; n++)
        if (bytes_eq(name, bytes_of(n->name))) return n->shape;
    return s->each;
}

/* The next value if it is a bulk or a status, without moving on. */
static struct bytes name_ahead(struct input in)
{
    struct bytes line = in.p < in.end ? take_line(&in) : (struct bytes){0};
    if (line.n && line.p[0] == '+') return bytes_make(line.p + 1, line.n - 1);
    return line.n && line.p[0] == '$' ? take_bulk(&in, length_of(line)) : (struct bytes){0};
}

static void write_map(struct input *in, const struct shape *s, int64_t n, struct buf *out, int depth)
{
    buf_printf(out, "%%%lld\r\n", (long long)n / 2);
    for (int64_t i = 0; i + 1 < n && in->p < in->end; i += 2) {
        struct bytes name = name_ahead(*in);
        write_value(in, &any, out, depth);
        write_value(in, shape_of_name(s, name), out, depth);
    }
}

/* XREAD: its elements are pairs already. */
static void write_map_of_pairs(struct input *in, int64_t n, struct buf *out, int depth)
{
    buf_printf(out, "%%%lld\r\n", (long long)n);
    for (int64_t i = 0; i < n && in->p < in->end; i++) {
        struct input start = *in;
        if (bytes_eq(take_line(in), BYTES("*2"))) {
            write_value(in, &any, out, depth);
        } else { /* no pair: a node that is not what it says */
            *in = start;
            buf_append_cstr(out, "_\r\n");
        }
        write_value(in, &any, out, depth);
    }
}

static void write_pairs(struct input *in, const struct shape *s, int64_t n, struct buf *out, int depth)
{
    buf_printf(out, "*%lld\r\n", (long long)n / 2);
    for (int64_t i = 0; i + 1 < n && in->p < in->end; i += 2) {
        buf_append_cstr(out, "*2\r\n");
        write_value(in, &any, out, depth);
        write_value(in, s->each, out, depth);
    }
}

static void write_array(struct input *in, const struct shape *s, int64_t n, struct buf *out, int depth)
{
    bool is_set = s->kind == SET || (s == &command_infos && n == 0 && depth > 1); /* no subcommands */
    buf_printf(out, "%c%lld\r\n", is_set ? '~' : '*', (long long)n);
    const struct shape *const *place = s->kind == TUPLE ? s->places : NULL;
    for (int64_t i = 0; i < n && in->p < in->end; i++) {
        const struct shape *each = place ? *place : s->kind == LIST || s->kind == SET ? s->each : &any;
        if (place && place[1]) place++;
        write_value(in, each, out, depth);
    }
}

static void write_aggregate(struct input *in, const struct shape *s, struct bytes line, struct buf *out, int depth)
{
    int64_t n = length_of(line);
    if (n < 0)
        buf_append_cstr(out, "_\r\n");
    else if (s == &streams)
        write_map_of_pairs(in, n, out, depth + 1);
    else if (s->kind == MAP && n % 2 == 0)
        write_map(in, s, n, out, depth + 1);
    else if (s->kind == PAIRS && n % 2 == 0)
        write_pairs(in, s, n, out, depth + 1);
    else
        write_array(in, s, n, out, depth + 1);
}

/* Whether it can stand in a double. */
static bool is_number(struct bytes b)
{
    double d;
    return b.n < NUMBER_TEXT_MAX && parse_double(b, &d);
}

static void write_bulk(struct input *in, const struct shape *s, struct bytes line, struct buf *out)
{
    int64_t n = length_of(line);
    if (n < 0) {
        buf_append_cstr(out, "_\r\n");
        return;
    }
    struct bytes b = take_bulk(in, n);
    if (s->kind == DOUBLE && is_number(b))
        buf_append_char(out, ',');
    else if (s->kind == VERBATIM)
        buf_printf(out, "=%zu\r\ntxt:", b.n + 4);
    else
        buf_printf(out, "$%zu\r\n", b.n);
    buf_append_bytes(out, b);
    buf_append_cstr(out, "\r\n");
}

static void write_value(struct input *in, const struct shape *s, struct buf *out, int depth)
{
    if (in->p >= in->end || depth > DEPTH_MAX) return;
    struct bytes line = take_line(in);
    if (line.n && line.p[0] == '*') {
        write_aggregate(in, s, line, out, depth);
    } else if (line.n && line.p[0] == '$') {
        write_bulk(in, s, line, out);
    } else {
        buf_append_bytes(out, line);
        buf_append_cstr(out, "\r\n");
    }
}

/* ---- which shape ---- */

static bool has_word(const struct bytes *argv, size_t argc, const char *word)
{
    for (size_t i = 1; i < argc; i++)
        if (bytes_ieq(argv[i], bytes_of(word))) return true;
    return false;
}

/* Positions are the last of an element's parts, and an array; the others are no arrays. */
static const struct shape found_place = {TUPLE, .places = (const struct shape *const[]){&any, &numbers, NULL}};
static const struct shape found_places = {LIST, &found_place};

static const struct shape *shape_of_ranges(const struct command *cmd, const struct bytes *argv, size_t argc)
{
    switch (cmd->id) {
    case CMD_ID_ZRANGE:
    case CMD_ID_ZREVRANGE:
    case CMD_ID_ZRANGEBYSCORE:
    case CMD_ID_ZREVRANGEBYSCORE:
    case CMD_ID_ZUNION:
    case CMD_ID_ZINTER:
    case CMD_ID_ZDIFF:
    case CMD_ID_ZRANDMEMBER: return has_word(argv, argc, "withscores") ? &scores : &any;
    case CMD_ID_HRANDFIELD: return has_word(argv, argc, "withvalues") ? &pairs : &any;
    case CMD_ID_ZPOPMIN:
    case CMD_ID_ZPOPMAX: return argc > 2 ? &scores : &member_and_score;
    case CMD_ID_BZPOPMIN:
    case CMD_ID_BZPOPMAX: return &key_member_score;
    case CMD_ID_ZMPOP:
    case CMD_ID_BZMPOP: return &key_scored_members;
    case CMD_ID_ZSCORE:
    case CMD_ID_ZINCRBY:
    case CMD_ID_ZADD: return &number; /* ZADD's integers are none of its business */
    case CMD_ID_ZMSCORE: return &numbers;
    case CMD_ID_ZRANK:
    case CMD_ID_ZREVRANK: return &member_and_score; /* WITHSCORE; else a number */
    case CMD_ID_GEOPOS: return &positions;
    case CMD_ID_GEOSEARCH:
    case CMD_ID_GEORADIUS:
    case CMD_ID_GEORADIUS_RO:
    case CMD_ID_GEORADIUSBYMEMBER:
    case CMD_ID_GEORADIUSBYMEMBER_RO: return has_word(argv, argc, "withcoord") ? &found_places : &any;
    default: return &any;
    }
}

static const struct shape *shape_of(const struct command *cmd, const struct bytes *argv, size_t argc)
{
    switch (cmd->id) {
    case CMD_ID_HGETALL:
    case CMD_ID_LCS: return &map; /* LCS without IDX is no array */
    case CMD_ID_SMEMBERS:
    case CMD_ID_SUNION:
    case CMD_ID_SINTER:
    case CMD_ID_SDIFF:
    case CMD_ID_SPOP: return &set;
    case CMD_ID_XREAD:
    case CMD_ID_XREADGROUP: return &streams;
    case CMD_ID_XINFO_STREAM: return &full_stream; /* without FULL, groups is a number */
    case CMD_ID_XINFO_GROUPS:
    case CMD_ID_XINFO_CONSUMERS: return &maps;
    case CMD_ID_COMMAND:
    case CMD_ID_COMMAND_INFO: return &command_infos;
    case CMD_ID_COMMAND_DOCS: return &all_docs;
    case CMD_ID_COMMAND_GETKEYSANDFLAGS: return &keys_and_flags;
    case CMD_ID_FUNCTION_LIST: return &libraries;
    case CMD_ID_FUNCTION_STATS: return &function_stats;
    case CMD_ID_LOLWUT: return &text;
    default: return shape_of_ranges(cmd, argv, argc);
    }
}

void translate_reply(const struct command *cmd, const struct bytes *argv, size_t argc, struct bytes reply,
                     struct buf *out)
{
    struct input in = {reply.p, reply.p + reply.n};
    write_value(&in, cmd ? shape_of(cmd, argv, argc) : &any, out, 0);
}

void translate_transaction(struct bytes requests, struct bytes reply, struct buf *out)
{
    struct input in = {reply.p, reply.p + reply.n};
    struct resp_parser p;
    struct resp_request req = {0};
    int64_t n = reply.n && reply.p[0] == '*' ? length_of(take_line(&in)) : -2;
    if (n < 0) {
        in.p = reply.p;
        write_value(&in, &any, out, 0);
        return;
    }
    buf_printf(out, "*%lld\r\n", (long long)n);
    resp_parser_init(&p, INT64_MAX);
    bool ok = resp_parse_request(&p, requests, &req) == OK; /* MULTI */
    for (int64_t i = 0; i < n && in.p < in.end; i++) {
        if (ok) requests = bytes_make(requests.p + req.size, requests.n - req.size);
        ok = ok && resp_parse_request(&p, requests, &req) == OK;
        const struct command *cmd = ok ? command_of_request(req.argv, req.argc, NULL) : NULL;
        write_value(&in, cmd ? shape_of(cmd, req.argv, req.argc) : &any, out, 1);
    }
    resp_request_deinit(&req);
    resp_parser_deinit(&p);
}

void translate_message(struct bytes reply, struct buf *out)
{
    size_t start = out->n;
    struct input in = {reply.p, reply.p + reply.n};
    write_value(&in, &any, out, 0);
    if (out->p[start] == '*') out->p[start] = '>';
}
