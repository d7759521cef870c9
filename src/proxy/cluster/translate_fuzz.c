/* Whatever a node replies to whatever command: its translation is one whole reply again. */
#include "proxy/cluster/translate.h"
#include "resp/resp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct bytes out)
{
    struct resp_reply_parser p = {0};
    while (out.n) {
        enum status st = resp_scan_reply(&p, out);
        if (st != OK) abort();
        out = bytes_make(out.p + p.size, out.n - p.size);
    }
}

/* The number of the command, how many arguments "withscores", and the reply. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const words[] = {"withscores", "withvalues", "withcoord", "x"};
    struct resp_reply_parser p = {0};
    struct bytes argv[6];
    if (size < 4) return 0;
    const struct command *cmd = command_by_id((enum command_id)((data[0] | data[1] << 8) % CMD_ID_COUNT));
    size_t argc = 1 + data[2] % 5;
    for (size_t i = 0; i < 6; i++) argv[i] = bytes_of(words[(data[2] >> 3) % 4]);
    struct bytes reply = bytes_make(data + 3, size - 3);
    if (resp_scan_reply(&p, reply) != OK) return 0;
    reply.n = p.size;
    for (size_t i = 0; i < reply.n; i++)
        if (memchr("%~>,#_=(!|", reply.p[i], 10)) return 0; /* RESP2 has none of these; where they are data is lost */
    struct buf out = {0};
    translate_reply(cmd, argv, argc, reply, &out);
    check(buf_bytes(&out));
    out.n = 0;
    translate_message(reply, &out);
    check(buf_bytes(&out));
    out.n = 0;
    translate_transaction(BYTES("*1\r\n$5\r\nMULTI\r\n*2\r\n$7\r\nHGETALL\r\n$1\r\nk\r\n"), reply, &out);
    check(buf_bytes(&out));
    buf_deinit(&out);
    return 0;
}
