#include "proxy/front/header.h"

#include "base/number.h"
#include "proxy/front/config.h"

#include <arpa/inet.h>
#include <stdio.h>

enum { V2_FIXED = 16, INET_BYTES = 12, INET6_BYTES = 36, UNIX_BYTES = 216, UNIX_PATH = 108 };

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

static enum status corrupt(struct header *h, const char *why)
{
    h->error = why;
    return E_CORRUPT;
}

/* ---- version 1 ---- */

static bool next_word(struct bytes *line, struct bytes *word)
{
    const char *space = memchr(line->p, ' ', line->n);
    *word = bytes_make(line->p, space ? (size_t)(space - line->p) : line->n);
    size_t used = word->n + (space != NULL);
    *line = bytes_make(line->p + used, line->n - used);
    return word->n > 0;
}

/* The address as it is always written; false: not one of that family. */
static bool read_address(struct bytes text, int family, char out[INET6_ADDRSTRLEN])
{
    char copy[INET6_ADDRSTRLEN];
    struct in6_addr address; /* large enough for both */
    if (text.n >= sizeof copy || memchr(text.p, '\0', text.n)) return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    return inet_pton(family, copy, &address) == 1 && inet_ntop(family, &address, out, INET6_ADDRSTRLEN);
}

static bool read_port(struct bytes text, unsigned *port)
{
    unsigned n = 0;
    if (text.n < 1 || text.n > 5 || (text.n > 1 && text.p[0] == '0')) return false;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9') return false;
        n = n * 10 + (unsigned)(text.p[i] - '0');
    }
    *port = n;
    return n <= 65535;
}

static void write_address(char out[NET_ADDRESS_MAX], int family, const char *ip, unsigned port)
{
    snprintf(out, NET_ADDRESS_MAX, family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, port);
}

static enum status read_line(struct bytes line, struct header *h)
{
    struct bytes word, address[2], port[2];
    char ip[2][INET6_ADDRSTRLEN];
    unsigned number[2];
    next_word(&line, &word); /* PROXY */
    if (!next_word(&line, &word)) return corrupt(h, "no family");
    if (bytes_eq(word, BYTES("UNKNOWN"))) return OK;
    bool is_ipv6 = bytes_eq(word, BYTES("TCP6"));
    if (!is_ipv6 && !bytes_eq(word, BYTES("TCP4"))) return corrupt(h, "neither TCP4, TCP6 nor UNKNOWN");
    int family = is_ipv6 ? AF_INET6 : AF_INET;
    if (!next_word(&line, &address[0]) || !next_word(&line, &address[1]) || !next_word(&line, &port[0]))
        return corrupt(h, "too few words");
    if (!next_word(&line, &port[1]) || line.n || port[1].p + port[1].n != line.p)
        return corrupt(h, "too few or too many words");
    for (int i = 0; i < 2; i++) {
        if (!read_address(address[i], family, ip[i])) return corrupt(h, "not an address of that family");
        if (!read_port(port[i], &number[i])) return corrupt(h, "not a port");
    }
    write_address(h->source, family, ip[0], number[0]);
    write_address(h->destination, family, ip[1], number[1]);
    return OK;
}

static enum status parse_v1(struct bytes in, struct header *h)
{
    size_t most = in.n < HEADER_V1_MAX ? in.n : HEADER_V1_MAX;
    const char *end = memchr(in.p, '\n', most);
    if (!end) return in.n < HEADER_V1_MAX ? E_AGAIN : corrupt(h, "a line that is too long");
    if (end[-1] != '\r') return corrupt(h, "a line that does not end with CR LF");
    h->size = (size_t)(end - in.p) + 1;
    return read_line(bytes_make(in.p, h->size - 2), h);
}

/* ---- version 2 ---- */

static unsigned read_u16(const char *p)
{
    return (unsigned)(uint8_t)p[0] << 8 | (uint8_t)p[1];
}

static void write_inet(const char *p, int family, size_t size, struct header *h)
{
    char ip[INET6_ADDRSTRLEN];
    inet_ntop(family, p, ip, sizeof ip);
    write_address(h->source, family, ip, read_u16(p + 2 * size));
    inet_ntop(family, p + size, ip, sizeof ip);
    write_address(h->destination, family, ip, read_u16(p + 2 * size + 2));
}

/* A path may fill its field, and then no zero ends it. */
static void write_path(const char *p, char out[NET_ADDRESS_MAX])
{
    snprintf(out, NET_ADDRESS_MAX, "%.*s:0", UNIX_PATH, p);
    for (char *s = out; *s; s++)
        if (*s <= ' ' || *s > '~') *s = '?'; /* it goes into lines of text */
}

static enum status read_addresses(unsigned kind, struct bytes rest, struct header *h)
{
    switch (kind) {
    case 0x00: return OK; /* UNSPEC */
    case 0x11:            /* TCP over IPv4 */
        if (rest.n < INET_BYTES) return corrupt(h, "too short for its addresses");
        write_inet(rest.p, AF_INET, 4, h);
        return OK;
    case 0x21: /* TCP over IPv6 */
        if (rest.n < INET6_BYTES) return corrupt(h, "too short for its addresses");
        write_inet(rest.p, AF_INET6, 16, h);
        return OK;
    case 0x31: /* UNIX stream */
        if (rest.n < UNIX_BYTES) return corrupt(h, "too short for its addresses");
        write_path(rest.p, h->source);
        write_path(rest.p + UNIX_PATH, h->destination);
        return OK;
    default: return corrupt(h, "not a kind of connection that a client could have");
    }
}

static enum status parse_v2(struct bytes in, struct header *h)
{
    if (in.n > 12 && ((uint8_t)in.p[12] >> 4) != 2) return corrupt(h, "another version than 2");
    unsigned command = in.n > 12 ? (uint8_t)in.p[12] & 15 : 0;
    if (command > 1) return corrupt(h, "neither LOCAL nor PROXY");
    if (in.n < V2_FIXED) return E_AGAIN;
    size_t size = V2_FIXED + read_u16(in.p + 14);
    if (in.n < size) return E_AGAIN;
    h->size = size;
    if (command == 0) return OK; /* LOCAL: the balancer itself; whatever stands behind is to be skipped */
    return read_addresses((uint8_t)in.p[13], bytes_make(in.p + V2_FIXED, size - V2_FIXED), h);
}

static bool begins_like(struct bytes in, const char *text, size_t n)
{
    return memcmp(in.p, text, in.n < n ? in.n : n) == 0;
}

enum status header_parse(struct bytes in, struct header *out)
{
    *out = (struct header){0};
    if (in.n == 0) return E_AGAIN;
    enum status st = corrupt(out, "there is none");
    if (begins_like(in, "PROXY ", 6)) st = in.n < 6 ? E_AGAIN : parse_v1(in, out);
    if (begins_like(in, signature, sizeof signature)) st = in.n < sizeof signature ? E_AGAIN : parse_v2(in, out);
    if (st != E_CORRUPT) out->error = NULL;
    return st;
}

/* ---- networks ---- */

/* Both families in one form. */
static bool read_ip(const char *text, struct network *out)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    *out = (struct network){.bits = 32};
    if (inet_pton(AF_INET, text, out->address) == 1) return true;
    if (inet_pton(AF_INET6, text, out->address) != 1) return false;
    if (memcmp(out->address, mapped, sizeof mapped) == 0) {
        memmove(out->address, out->address + 12, 4);
        memset(out->address + 4, 0, 12);
        return true;
    }
    out->is_ipv6 = true;
    out->bits = 128;
    return true;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    if (memcmp(a, b, bits / 8) != 0) return false;
    unsigned left = bits % 8;
    return left == 0 || (a[bits / 8] ^ b[bits / 8]) >> (8 - left) == 0;
}

bool network_parse(struct bytes text, struct network *out)
{
    char ip[INET6_ADDRSTRLEN];
    const char *slash = memchr(text.p, '/', text.n);
    size_t n = slash ? (size_t)(slash - text.p) : text.n;
    if (n == 0 || n >= sizeof ip || memchr(text.p, '\0', text.n)) return false;
    memcpy(ip, text.p, n);
    ip[n] = '\0';
    if (!read_ip(ip, out)) return false;
    int64_t bits;
    if (!slash) return true;
    if (!parse_i64(bytes_make(slash + 1, text.n - n - 1), &bits) || bits < 0 || bits > out->bits) return false;
    out->bits = (unsigned)bits;
    for (unsigned i = out->bits; i < (out->is_ipv6 ? 128u : 32u); i++)
        if (out->address[i / 8] & (0x80 >> i % 8)) return false;
    return true;
}

bool network_has(const struct network *networks, size_t n, const char *ip)
{
    struct network one;
    if (!read_ip(ip, &one)) return false;
    for (size_t i = 0; i < n; i++)
        if (networks[i].is_ipv6 == one.is_ipv6 && same_bits(networks[i].address, one.address, networks[i].bits))
            return true;
    return false;
}

bool header_is_expected(const struct proxy_config *config, int fd)
{
    char ip[NET_ADDRESS_MAX];
    int port;
    if (config->header_network_count == 0) return true;
    net_peer_ip(fd, ip, &port);
    return *ip == '\0' || network_has(config->header_networks, (size_t)config->header_network_count, ip);
}
